"""Pixels of cells: the strongest class of every pixel, interpolated between cells.

A pixel's class probabilities are means, with bilinear weights, of those of the cells in and around
its patch. So a class whose largest probability among these cells is below another's smallest wins
no pixel of the patch: of tens or hundreds of classes a few are left in most patches, and only these
are interpolated.

Shape legend: B batch, P patches, N some of the B·P patches, G cells per patch, H cells in and
around a patch, C classes, K = 4 slots, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from vocprep.geometry import PATCH
from vocprep.heads.model.mask_heads.cells import around, between

_CANDIDATES = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)
"""Most classes of the groups of patches that are interpolated together."""
_BLOCK = 1 << 24
"""Class scores of cells, and of pixels, that are held at once."""
_SLACK = 1 - 1e-4
"""Keeps classes that rounding could bring to the top."""


class CellPixels:
    """Pixels of cells: the class probabilities of cells, interpolated over the picture."""

    def __init__(self, cells: Tensor, grids: Tensor, per_side: int) -> None:
        """``cells`` float32 [B, P, G, C]: the classes' probabilities in every cell.

        ``grids`` int64 [B, 2] of (ny, nx), G = ``per_side``².
        """
        batch, patches, _, self._classes = cells.shape
        self._shape, self._cells = (batch, patches), cells.flatten(0, 2)
        first = torch.arange(batch, device=grids.device) * patches * per_side**2
        self._around = (around(grids, patches, per_side) + first.view(-1, 1, 1)).flatten(0, 1)
        self._weights = between(per_side, PATCH, cells.device)

    @property
    def label_map(self) -> Tensor:
        """Ids of the classes with the largest interpolated probability."""
        return self._strongest[1]

    @property
    def confidence(self) -> Tensor:
        """These probabilities."""
        return self._strongest[0]

    def masks_of(self, patches: Tensor, labels: Tensor) -> Tensor:
        """Interpolated probabilities of the given classes."""
        places = self._around[patches].unsqueeze(-1) * self._classes
        chosen = self._cells.take(places + labels.clamp(min=0).unsqueeze(-2))
        return self._weights @ chosen.masked_fill_((labels < 0).unsqueeze(-2), 0)

    @cached_property
    def _strongest(self) -> tuple[Tensor, Tensor]:
        size = max(1, _BLOCK // (self._around.shape[1] * self._classes))
        parts = [
            strongest_classes(self._cells[part], self._weights)
            for part in torch.split(self._around, size)
        ]
        values, ids = (torch.cat(each) for each in zip(*parts, strict=True))
        return values.view(*self._shape, -1), ids.view(*self._shape, -1)


def strongest_classes(scores: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest interpolated score of each pixel, and its class: [N, 1024], int64 ids.

    ``scores`` float32 [N, H, C] of 0 or more, ``weights`` float32 [1024, H] of 0 or more, whose
    rows sum to 1. Of equal scores the smallest id counts.
    """
    largest = scores.amax(dim=1)
    least = scores.amin(dim=1).amax(dim=1, keepdim=True)
    can_win = (largest > 0) & (largest >= least * _SLACK)
    counts = can_win.sum(dim=1).clamp(min=1)  # one of patches of zeros, or of no numbers
    values = scores.new_empty(len(scores), len(weights))
    ids = torch.empty_like(values, dtype=torch.int64)
    for rows, most in _groups(counts, scores.shape[-1]):
        kept = largest[rows].topk(most, dim=1).indices.sort(dim=1).values
        columns = kept.unsqueeze(1).expand(-1, scores.shape[1], -1)
        chosen = scores[rows].gather(2, columns).transpose(1, 2)
        # One product of two matrices, which is faster than one for each patch.
        pixels = (chosen.flatten(0, 1) @ weights.T).view(len(rows), most, -1)
        values[rows], place = pixels.max(dim=1)
        ids[rows] = kept.gather(1, place)
    return values, ids


def _groups(counts: Tensor, classes: int) -> Iterator[tuple[Tensor, int]]:
    """Yield patches with about as many candidates, and their most; large groups in pieces."""
    lower = 0
    for most in (*(size for size in _CANDIDATES if size < classes), classes):
        rows = ((counts > lower) & (counts <= most)).nonzero().squeeze(1)
        for part in torch.split(rows, max(1, _BLOCK // (PATCH**2 * most))):
            if len(part):
                yield part, most
        lower = most
