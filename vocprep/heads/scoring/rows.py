"""The rows of a table of scores: predictions of the same pixels, and what is counted of each.

Shape legend: B batch, P patches, N = B·P patches, M those of two slots or more, K = 4 slots,
1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vocprep.heads.model.loss_parts import unpack_states
from vocprep.heads.model.tfdet import top_labels
from vocprep.heads.scoring.measures.borders import BANDS, WIDTHS, border_bands
from vocprep.heads.scoring.measures.cell_oracle import CellOracle, shares_by_grid
from vocprep.heads.scoring.measures.counters import PixelCounter
from vocprep.heads.scoring.measures.masks import MaskCounter, MaskQuality
from vocprep.heads.scoring.measures.metrics import ConfusionMatrix, confusion_of
from vocprep.heads.scoring.measures.oracles import (
    RowKind,
    draw_slots,
    label_slots,
    matched_masks,
    true_masks,
)
from vocprep.heads.scoring.split_pass import ScoredBatch, as_patches
from vocprep.labels.targets import NO_LABEL, SLOTS

CELL_GRIDS = {RowKind.GT_CELLS_4: 4, RowKind.GT_CELLS_2: 2, RowKind.GT_CELLS_1: 1}
"""Cells per side of a patch, by the row of their oracle."""
_COUNTED = tuple(kind for kind in RowKind if not kind.is_constant)
_DRAWN = (RowKind.MODEL, *CELL_GRIDS, RowKind.GT_CLASSES, RowKind.PATCH_MAJORITY)
"""Rows whose masks are not the true ones."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RowPixels:
    """A row's pixels, apart by what they lie in; all but void are in one of the parts."""

    parts: Sequence[ConfusionMatrix]
    """By kind of patch, those of one slot first, then by band of borders (``borders.BANDS``)."""

    @property
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

    def __init__(self, classes: int, void: int, device: torch.device) -> None:
        self._void = void
        self._pixels = {
            kind: PixelCounter(classes, void, device, groups=2 * BANDS) for kind in _COUNTED
        }
        self._masks = {kind: MaskCounter(device) for kind in _DRAWN}

    def add(self, scored: ScoredBatch, bands: Tensor) -> None:
        """Count a batch; ``bands`` int64 [B, P, 1024] are those of ``border_bands_of``."""
        facts, batch = _Facts.of(scored), scored.batch
        shares = shares_by_grid(batch.slot_planes, list(CELL_GRIDS.values()))
        oracles = {
            kind: CellOracle(batch.slot_labels, each, batch.grids)
            for kind, each in zip(CELL_GRIDS, shares, strict=True)
        }
        drawn = _drawn_slots(facts, oracles)
        for kind, masks in self._masks.items():
            masks.add(drawn[kind], facts.mixed_states, facts.slots[facts.mixed])
        label_maps = _label_maps(facts, oracles, drawn[RowKind.GT_CLASSES])
        group = (facts.slots > 1).long().unsqueeze(-1) * BANDS + bands.flatten(0, 1)
        rows = self._pixels[RowKind.MODEL].rows(scored.truth.flatten(0, 1), group)
        for kind, counter in self._pixels.items():
            counter.add_rows(rows, label_maps[kind])

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


def border_bands_of(scored: ScoredBatch, void: int) -> Tensor:
    """Return how near each pixel of a batch is to a border: int64 [B, P, 1024]."""
    bands = (border_bands(label_map, void) for label_map in scored.batch.label_maps or ())
    return as_patches(bands, scored.batch, BANDS - 1).to(scored.truth.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Facts:
    """What the rows of a batch are made of, its patches in one row [N]."""

    scored: ScoredBatch
    slot_labels: Tensor
    """int64 [N, 4]"""
    slots: Tensor
    """int64 [N]: how many slots a patch has."""
    states: Tensor
    """uint8 [N, 1024]"""
    ranked: Tensor
    """int64 [N, 4]: the classes that the model ranks highest; −1 where there are fewer."""
    mixed: Tensor
    """int64 [M]: the patches of two slots or more."""
    mixed_states: Tensor
    """uint8 [M, 1024]"""

    @classmethod
    def of(cls, scored: ScoredBatch) -> _Facts:
        labels = scored.batch.slot_labels.flatten(0, 1)
        ranked = top_labels(scored.patch_logits).flatten(0, 1)
        states = unpack_states(scored.batch.slot_planes).flatten(0, 1)
        slots = (labels >= 0).sum(dim=-1)
        mixed = (slots > 1).nonzero().squeeze(1)
        return cls(
            scored=scored,
            slot_labels=labels,
            slots=slots,
            states=states,
            ranked=functional.pad(ranked, (0, SLOTS - ranked.shape[-1]), value=NO_LABEL),
            mixed=mixed,
            mixed_states=states[mixed],
        )


def _drawn_slots(facts: _Facts, oracles: Mapping[RowKind, CellOracle]) -> dict[RowKind, Tensor]:
    """Return the slots that rows draw in patches of several, 4 for none: int64 [M, 1024]."""
    mixed, slots = facts.mixed, facts.slots[facts.mixed]
    pixels = facts.scored.pixels
    masks = {
        RowKind.MODEL: pixels.masks_of(mixed, facts.slot_labels[mixed]),
        RowKind.GT_CLASSES: matched_masks(
            pixels.masks_of(mixed, facts.ranked[mixed]), facts.mixed_states
        ),
        **{kind: oracle.masks_of_slots(mixed) for kind, oracle in oracles.items()},
    }
    drawn = {kind: draw_slots(each, slots) for kind, each in masks.items()}
    return {**drawn, RowKind.PATCH_MAJORITY: torch.zeros_like(drawn[RowKind.MODEL])}


def _label_maps(
    facts: _Facts, oracles: Mapping[RowKind, CellOracle], drawn: Tensor
) -> dict[RowKind, Tensor]:
    """Return all rows' label maps int64 [N, 1024] but the constant's.

    ``drawn`` int64 [M, 1024] are the slots that the model's masks draw, 4 for none.
    """
    labels, states = facts.slot_labels, facts.states
    largest = labels[:, :1].expand_as(states)
    given = largest.clone()
    given[facts.mixed] = functional.pad(labels[facts.mixed], (0, 1), value=NO_LABEL).gather(
        1, drawn
    )
    return {
        RowKind.MODEL: facts.scored.pixels.label_map.flatten(0, 1),
        RowKind.GT_TOP_4: true_masks(labels, states),
        **{kind: oracle.label_map.flatten(0, 1) for kind, oracle in oracles.items()},
        RowKind.GT_CLASSES: given,
        RowKind.GT_MASKS: true_masks(label_slots(facts.ranked, labels), states),
        RowKind.PATCH_MAJORITY: largest,
    }
