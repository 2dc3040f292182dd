"""Label maps by patches, and what goes wrong with them: other classes, other pictures', moved.

Shape legend: N pictures, ny×nx patches, K classes of a picture, C classes that occur.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vocprep.auditing.patches import Patches, label_shares
from vocprep.geometry import Grid

MOST_CLASSES = 8
"""Of a picture, the largest."""
LEAST_AREA = 0.02
"""Part of a picture that a class has at least, to be judged on its own."""
_BLOCK = 256
DIRECTIONS = {
    "up and left": (-1, -1),
    "up": (-1, 0),
    "up and right": (-1, 1),
    "left": (0, -1),
    "right": (0, 1),
    "down and left": (1, -1),
    "down": (1, 0),
    "down and right": (1, 1),
}
"""Rows and columns of a move by one patch."""
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class LabelMaps:
    """The label maps of N pictures of one grid, as parts of patches."""

    pictures: NDArray[np.intp]
    """[N] their numbers in ``Patches``."""
    classes: NDArray[np.int64]
    """[N, K] places of classes, the largest first; where a picture has fewer any with no area."""
    areas: Floats
    """[N, ny, nx, K] the part of each patch that is of each class."""

    @property
    def grid(self) -> Grid:
        """(ny, nx)"""
        return self.areas.shape[1], self.areas.shape[2]

    @property
    def totals(self) -> Floats:
        """[N, K] the part of the picture that is of each class."""
        totals: Floats = self.areas.mean(axis=(1, 2))
        return totals

    def moved(self, direction: tuple[int, int]) -> LabelMaps:
        """Return maps moved by one patch, the edge repeated."""
        ny, nx = self.grid
        rows = np.clip(np.arange(ny) - direction[0], 0, ny - 1)
        columns = np.clip(np.arange(nx) - direction[1], 0, nx - 1)
        return replace(self, areas=self.areas[:, rows[:, np.newaxis], columns])

    def brought_to(self, grid: Grid) -> LabelMaps:
        """Return maps of another grid: each patch is the one below its centre."""
        ny, nx = self.grid
        rows = (2 * np.arange(grid[0]) + 1) * ny // (2 * grid[0])
        columns = (2 * np.arange(grid[1]) + 1) * nx // (2 * grid[1])
        return replace(self, areas=self.areas[:, rows[:, np.newaxis], columns])

    def take(self, order: NDArray[np.intp]) -> LabelMaps:
        """Return some of the maps."""
        return LabelMaps(
            pictures=self.pictures[order], classes=self.classes[order], areas=self.areas[order]
        )


def blocks(patches: Patches) -> Iterator[LabelMaps]:
    """Yield the label maps of all pictures, a few of one grid at a time."""
    by_grid: dict[Grid, list[int]] = {}
    for picture, grid in enumerate(patches.grids):
        by_grid.setdefault(grid, []).append(picture)
    for pictures in by_grid.values():
        for start in range(0, len(pictures), _BLOCK):
            yield read_maps(patches, pictures[start : start + _BLOCK])


def read_maps(patches: Patches, pictures: Sequence[int]) -> LabelMaps:
    """Return the label maps of pictures of one grid."""
    rows = rows_of(patches, pictures)
    ny, nx = patches.grids[pictures[0]]
    shares = label_shares(patches, rows.ravel()).reshape(len(pictures), ny * nx, -1)
    count = min(MOST_CLASSES, shares.shape[-1])
    order = np.argsort(-shares.sum(axis=1), axis=1, kind="stable")[:, :count]
    areas = np.take_along_axis(shares, order[:, np.newaxis], axis=2)
    return LabelMaps(
        pictures=np.array(pictures, dtype=np.intp),
        classes=order,
        areas=areas.reshape(len(pictures), ny, nx, count),
    )


def rows_of(patches: Patches, pictures: Sequence[int]) -> NDArray[np.intp]:
    """Return the numbers of the patches of pictures of one grid: [N, P]."""
    ny, nx = patches.grids[pictures[0]]
    rows: NDArray[np.intp] = patches.starts[list(pictures), np.newaxis] + np.arange(ny * nx)
    return rows
