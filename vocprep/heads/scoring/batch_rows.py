"""The rows of a table of scores, of one batch: what each predicts of the same pixels, counted.

Most rows follow from how many pixels of each patch belong to each slot. What is left to be drawn
pixel by pixel are patches of several classes, and those beside them.

Shape legend: N patches of a batch, M those of two slots or more, S = 6 states, K = 4 slots,
1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
_SEVERAL = range(2, SLOTS + 1)
"""Slots that mixed patches have."""


class BatchRows:
    """The rows of a batch but the model's own and the constant one."""

    def __init__(self, scored: ScoredBatch, true: TruePixels) -> None:
        self._pixels, self._true, batch = scored.pixels, true, scored.batch
        # Those of equally many slots together, which are drawn as one.
        groups = [(true.slots == slots).nonzero().squeeze(1) for slots in _SEVERAL]
        self._groups = list(zip(_SEVERAL, groups, strict=True))
        self._mixed = torch.cat(groups)
        ranked = top_labels(scored.patch_logits).flatten(0, 1)
        # −1 where there are fewer classes than slots.
        self._ranked = functional.pad(ranked, (0, SLOTS - ranked.shape[-1]), value=NO_LABEL)
        shares = shares_by_grid(batch.slot_planes, list(CELL_GRIDS.values()))
        self._oracles = {
            kind: CellOracle(batch.slot_labels, each, batch.grids)
            for kind, each in zip(CELL_GRIDS, shares, strict=True)
        }
        self._best = self._drawn(self._matched)

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
        drawn = {
            RowKind.MODEL: self._drawn(self._own),
            RowKind.GT_CLASSES: self._best,
            RowKind.PATCH_MAJORITY: torch.zeros_like(self._best),
            **{kind: self._drawn(each.masks_of_slots) for kind, each in self._oracles.items()},
        }
        for kind, slots in drawn.items():
            yield kind, self._true.drawn_counts(self._mixed, slots)

    @property
    def slots_of_mixed(self) -> Tensor:
        """int64 [M]: how many slots the mixed patches have."""
        return self._true.slots[self._mixed]

    def _drawn(self, masks_of: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Return the slots that masks draw in the mixed patches: uint8 [M, 1024].

        ``masks_of`` returns the masks [n, K, 1024] of patches [n] that have K slots.
        """
        return torch.cat([draw_slots(masks_of(group, slots)) for slots, group in self._groups])

    def _own(self, patches: Tensor, slots: int) -> Tensor:
        """Return the model's masks of the classes of slots."""
        return self._pixels.masks_of(patches, self._true.labels[patches, :slots])

    def _matched(self, patches: Tensor, slots: int) -> Tensor:
        """Return those of the model's masks that fit the slots best."""
        masks = self._pixels.masks_of(patches, self._ranked[patches])
        return matched_masks(masks, self._true.states[patches])[:, :slots]

    def _largest(self, patches: Tensor) -> PixelChoices:
        """Return the largest class of patches [n] all over them."""
        nowhere = torch.zeros(1, 1, dtype=torch.uint8, device=patches.device)
        return PixelChoices(
            patches=patches,
            classes=self._true.labels[patches, :1],
            chosen=nowhere.expand(len(patches), self._true.states.shape[1]),
        )
