"""The rows of a table of scores: predictions of the same pixels, and what is counted of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from vocprep.heads.scoring.batch_rows import CELL_GRIDS, BatchRows
from vocprep.heads.scoring.measures.borders import BANDS, WIDTHS
from vocprep.heads.scoring.measures.counters import PixelCounter
from vocprep.heads.scoring.measures.masks import MaskCounter, MaskQuality
from vocprep.heads.scoring.measures.metrics import ConfusionMatrix, confusion_of
from vocprep.heads.scoring.measures.oracles import RowKind
from vocprep.heads.scoring.measures.pixel_counts import PixelEntries, TruePixels
from vocprep.heads.scoring.split_pass import ScoredBatch

_COUNTED = tuple(kind for kind in RowKind if not kind.is_constant)
_DRAWN = (RowKind.MODEL, *CELL_GRIDS, RowKind.GT_CLASSES, RowKind.PATCH_MAJORITY)
"""Rows whose masks are not the true ones."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RowPixels:
    """A row's pixels, apart by what they lie in; all but void are in one of the parts."""

    parts: Sequence[ConfusionMatrix]
    """By kind of patch, those of one slot first, then by band of borders (``borders.BANDS``)."""

    @cached_property
    def all(self) -> ConfusionMatrix:
        """All pixels."""
        return confusion_of(self.parts)

    @property
    def pure(self) -> ConfusionMatrix:
        """Those in patches of one slot."""
        return confusion_of(self.parts[:BANDS])

    @property
    def mixed(self) -> ConfusionMatrix:
        """Those in patches of two slots or more."""
        return confusion_of(self.parts[BANDS:])

    def within(self, width: int) -> ConfusionMatrix:
        """Those that lie within one of ``borders.WIDTHS`` of a border."""
        bands = range(WIDTHS.index(width) + 1)
        return confusion_of([self.parts[first + band] for first in (0, BANDS) for band in bands])


class RowCounters:
    """Counts pixels and masks of every row but the constant one, whose counts follow."""

    def __init__(self, classes: int, device: torch.device) -> None:
        self._pixels = {kind: PixelCounter(classes, device, groups=2 * BANDS) for kind in _COUNTED}
        self._masks = {kind: MaskCounter(device) for kind in _DRAWN}

    def add(self, scored: ScoredBatch, true: TruePixels, model: PixelEntries) -> None:
        """Count a batch; ``model`` is what the model predicts of its pixels."""
        groups = (true.slots > 1).long() * BANDS
        rows = BatchRows(scored, true)
        for kind, each in ((RowKind.MODEL, model), *rows.entries()):
            group = groups[each.patch] + each.band
            self._pixels[kind].add(each.truth, each.predicted, each.pixels, group)
        for kind, pixels in rows.drawn_slots():
            self._masks[kind].add(pixels, rows.slots_of_mixed)

    def pixels(self) -> dict[RowKind, RowPixels]:
        """Return what was counted of pixels."""
        return {kind: RowPixels(parts=counter.matrices()) for kind, counter in self._pixels.items()}

    def mask_ious(self) -> dict[RowKind, float]:
        """Return the mask IoU of the rows that draw masks of their own."""
        return {kind: counter.iou() for kind, counter in self._masks.items()}

    def masks(self, slots: int | None = None) -> MaskQuality:
        """Return the quality of the model's masks, in patches of so many slots or in all."""
        best, own, largest = (
            self._masks[kind]
            for kind in (RowKind.GT_CLASSES, RowKind.MODEL, RowKind.PATCH_MAJORITY)
        )
        return MaskQuality(
            iou=best.iou(slots),
            own_iou=own.iou(slots),
            iou_of_largest=largest.iou(slots),
            slots=best.slots(slots),
        )
