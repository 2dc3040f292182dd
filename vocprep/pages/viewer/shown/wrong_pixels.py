"""Which patches hold the pixels of a confusion: sparse counts by patch, truth and prediction.

Shape legend: B batch, P patches, E entries: a pair of classes in a patch; 1024 pixels of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vocprep.heads.scoring.measures.pixel_counts import PixelEntries

_CLASS_BITS = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class WrongPixels:
    """Pixels whose predicted class is not the true one, 14 bytes per entry.

    Entries are sorted by pair, then by pixels, the most first, then by patch.
    """

    pairs: NDArray[np.uint32]
    """[E] truth · 2¹⁶ + predicted."""
    places: NDArray[np.int32]
    """[E] pictures of the catalogue."""
    patches: NDArray[np.int32]
    """[E] patches of the picture."""
    pixels: NDArray[np.uint16]
    """[E]"""

    def of(self, truth: int, predicted: int) -> slice:
        """Return where the entries of a pair are."""
        pair = np.uint32((truth << _CLASS_BITS) + predicted)
        first = int(np.searchsorted(self.pairs, pair, side="left"))
        return slice(first, int(np.searchsorted(self.pairs, pair, side="right")))


class WrongPixelCounter:
    """Counts batch after batch."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []

    def add(self, places: NDArray[np.int64], entries: PixelEntries, patches: int) -> None:
        """Count pictures ``places`` [B], each of which has so many patches of the entries'."""
        wrong = (entries.truth != entries.predicted).nonzero().squeeze(1)
        pairs = (entries.truth[wrong] << _CLASS_BITS) + entries.predicted[wrong]
        # One number per entry: a patch of the batch and a pair of classes.
        keys, rows = torch.unique(
            (entries.patch[wrong] << 2 * _CLASS_BITS) + pairs, return_inverse=True
        )
        counts = torch.zeros_like(keys).index_add_(0, rows, entries.pixels[wrong])
        numbers = (keys >> 2 * _CLASS_BITS).cpu().numpy()
        own = places[numbers // patches] << _CLASS_BITS * 2 | numbers % patches
        found = (keys & (1 << 2 * _CLASS_BITS) - 1).cpu().numpy()
        self._parts.append((found, own, counts.cpu().numpy()))

    def counts(self) -> WrongPixels:
        """Return what was counted, sorted."""
        none = np.zeros(0, dtype=np.int64)
        pairs, patches, pixels = (
            (np.concatenate([none, *column]) for column in zip(*self._parts, strict=True))
            if self._parts
            else (none, none, none)
        )
        self._parts.clear()
        order = np.lexsort((patches, -pixels, pairs))
        places, patches = np.divmod(patches[order], 1 << 2 * _CLASS_BITS)
        return WrongPixels(
            pairs=pairs[order].astype(np.uint32),
            places=places.astype(np.int32),
            patches=patches.astype(np.int32),
            pixels=pixels[order].astype(np.uint16),
        )
