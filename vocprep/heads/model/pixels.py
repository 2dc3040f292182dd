"""From the outputs of the heads to pixels: class ids, confidences, masks.

A mask head's logits mean nothing by themselves; what they say of pixels is computed here, for each
mask head by a class of its own, which ``pixel_scores`` chooses.

Shape legend: B batch, P patches, G cells per patch, H cells in and around a patch, C classes,
K = 4 slots, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from vocprep.geometry import PATCH
from vocprep.heads.model.cells import around, between
from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.tfdet import pixel_confidence, to_label_map, top_labels
from vocprep.labels.targets import SLOTS

_BLOCK = 1 << 24
"""Class scores of pixels that are held at once."""


class PixelScores(Protocol):
    """What the heads say of every pixel of a batch."""

    @property
    def label_map(self) -> Tensor:
        """int64 [B, P, 1024]: the class id of each pixel."""

    @property
    def confidence(self) -> Tensor:
        """float32 [B, P, 1024] in 0..1: the probability of what decided the pixel's class."""

    @property
    def masks(self) -> Tensor:
        """float32 [B, P, 1024, 4] in 0..1: where the class is that ``cat`` ranks k-th.

        0 for the last ones where there are fewer than four classes.
        """


def pixel_scores(
    class_logits: Tensor, mask_logits: Tensor, grids: Tensor, config: HeadsConfig
) -> PixelScores:
    """Return what outputs of heads [B, P, C] and [B, P, …] say of pixels.

    ``grids`` int64 [B, 2] of (ny, nx), ``config`` that of the heads.
    """
    match config.mask_head:
        case "slots":
            return SlotPixels(class_logits, mask_logits)
        case "cells":
            return CellPixels(class_logits, mask_logits, grids, config.cells)


class SlotPixels:
    """Pixels of four masks per patch: the strongest mask's class."""

    def __init__(self, class_logits: Tensor, mask_logits: Tensor) -> None:
        self._class_logits, self._mask_logits = class_logits, mask_logits

    @property
    def label_map(self) -> Tensor:
        """Class ids by ``to_label_map``."""
        return to_label_map(self._class_logits, self._mask_logits)

    @property
    def confidence(self) -> Tensor:
        """Probabilities of the masks that win."""
        return pixel_confidence(self._class_logits, self._mask_logits)

    @property
    def masks(self) -> Tensor:
        """Probabilities of all four masks."""
        return self._mask_logits.float().sigmoid()


class CellPixels:
    """Pixels of cells: the class probabilities of cells, interpolated over the picture."""

    def __init__(
        self, class_logits: Tensor, cell_logits: Tensor, grids: Tensor, per_side: int
    ) -> None:
        batch, patches, _, self._classes = cell_logits.shape
        self._shape, self._ranked = (batch, patches), top_labels(class_logits)
        self._cells = cell_logits.float().softmax(dim=-1).flatten(0, 2)
        first = torch.arange(batch, device=grids.device) * patches * per_side**2
        self._around = (around(grids, patches, per_side) + first.view(-1, 1, 1)).flatten(0, 1)
        self._weights = between(per_side, PATCH, cell_logits.device)

    @property
    def label_map(self) -> Tensor:
        """Ids of the classes with the largest interpolated probability."""
        return self._strongest[1]

    @property
    def confidence(self) -> Tensor:
        """These probabilities."""
        return self._strongest[0]

    @cached_property
    def masks(self) -> Tensor:
        """Interpolated probabilities of each patch's four strongest classes."""
        ranked = self._ranked.flatten(0, 1).unsqueeze(-2)
        chosen = self._cells.take(self._around.unsqueeze(-1) * self._classes + ranked)
        masks = (self._weights @ chosen).view(*self._shape, PATCH**2, -1)
        return functional.pad(masks, (0, SLOTS - masks.shape[-1]))

    @cached_property
    def _strongest(self) -> tuple[Tensor, Tensor]:
        found = [scores.max(dim=-1) for scores in self._blocks()]
        values, places = (torch.cat(parts) for parts in zip(*found, strict=True))
        return values.view(*self._shape, -1), places.view(*self._shape, -1)

    def _blocks(self) -> Iterator[Tensor]:
        """Yield the class scores of all pixels, float32 [·, 1024, C], some patches at once."""
        size = max(1, _BLOCK // (PATCH**2 * self._classes))
        for start in range(0, len(self._around), size):
            yield self._weights @ self._cells[self._around[start : start + size]]
