"""The rows of a table of scores, of one batch: what each predicts of the same pixels, counted.

Most rows follow from how many pixels of each patch belong to each slot. What is left to be drawn
pixel by pixel are patches of several classes, and those beside them.

Shape legend: N patches of a batch, M those of two slots or more, S = 6 states, K = 4 slots,
1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from vocprep.heads.model.mask_heads.pixel_choices import PixelChoices
from vocprep.heads.model.tfdet import top_labels
from vocprep.heads.scoring.measures.cell_oracle import CellOracle, shares_by_grid
from vocprep.heads.scoring.measures.oracles import (
    RowKind,
    draw_slots,
    label_slots,
    matched_masks,
)
from vocprep.heads.scoring.measures.pixel_counts import PixelEntries, TruePixels
from vocprep.heads.scoring.split_pass import ScoredBatch
from vocprep.labels.targets import NO_LABEL, SLOTS

CELL_GRIDS = {RowKind.GT_CELLS_4: 4, RowKind.GT_CELLS_2: 2, RowKind.GT_CELLS_1: 1}
"""Cells per side of a patch, by the row of their oracle."""


class BatchRows:
    """The rows of a batch but the model's own and the constant one."""

    def __init__(self, scored: ScoredBatch, true: TruePixels) -> None:
        self._pixels, self._true, batch = scored.pixels, true, scored.batch
        self._mixed = (true.slots > 1).nonzero().squeeze(1)
        self._slots = true.slots[self._mixed]
        ranked = top_labels(scored.patch_logits).flatten(0, 1)
        # −1 where there are fewer classes than slots.
        self._ranked = functional.pad(ranked, (0, SLOTS - ranked.shape[-1]), value=NO_LABEL)
        shares = shares_by_grid(batch.slot_planes, list(CELL_GRIDS.values()))
        self._oracles = {
            kind: CellOracle(batch.slot_labels, each, batch.grids)
            for kind, each in zip(CELL_GRIDS, shares, strict=True)
        }
        masks = self._pixels.masks_of(self._mixed, self._ranked[self._mixed])
        masks = matched_masks(masks, true.states[self._mixed])
        self._best = draw_slots(masks, self._slots)

    def entries(self) -> Iterator[tuple[RowKind, PixelEntries]]:
        """Yield what each row predicts of the batch's pixels."""
        true, labels = self._true, self._true.labels
        yield RowKind.GT_TOP_4, true.entries_of_slots(labels)
        yield RowKind.GT_MASKS, true.entries_of_slots(label_slots(self._ranked, labels))
        valid = (true.slots > 0).nonzero().squeeze(1)
        yield RowKind.PATCH_MAJORITY, true.entries_of_choices([self._largest(valid)])
        pure = (true.slots == 1).nonzero().squeeze(1)
        drawn = PixelChoices(
            patches=self._mixed,
            classes=functional.pad(labels[self._mixed], (0, 1), value=NO_LABEL),
            chosen=self._best,
        )
        yield RowKind.GT_CLASSES, true.entries_of_choices([self._largest(pure), drawn])
        for kind, oracle in self._oracles.items():
            yield kind, true.entries_of_choices(list(oracle.choices_of(valid)))

    def drawn_slots(self) -> Iterator[tuple[RowKind, Tensor]]:
        """Yield the mixed patches' pixels by state and by drawn slot: int64 [M, S, 5]."""
        own = self._pixels.masks_of(self._mixed, self._true.labels[self._mixed])
        drawn = {
            RowKind.MODEL: draw_slots(own, self._slots),
            RowKind.GT_CLASSES: self._best,
            RowKind.PATCH_MAJORITY: torch.zeros_like(self._best),
        }
        for kind, oracle in self._oracles.items():
            drawn[kind] = draw_slots(oracle.masks_of_slots(self._mixed), self._slots)
        for kind, slots in drawn.items():
            yield kind, self._true.drawn_counts(self._mixed, slots)

    @property
    def slots_of_mixed(self) -> Tensor:
        """int64 [M]: how many slots the mixed patches have."""
        return self._slots

    def _largest(self, patches: Tensor) -> PixelChoices:
        """Return the largest class of patches [n] all over them."""
        nowhere = torch.zeros(1, 1, dtype=torch.uint8, device=patches.device)
        return PixelChoices(
            patches=patches,
            classes=self._true.labels[patches, :1],
            chosen=nowhere.expand(len(patches), self._true.states.shape[1]),
        )
