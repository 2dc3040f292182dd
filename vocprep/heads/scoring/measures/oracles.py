"""Oracles: what heads would score if one part of their output were right.

Between the model and the best that four slots per patch can express stand two mixtures: the model's
masks under the true classes, and the true masks under the model's classes. The better of the two
shows which part the heads lack.

Shape legend: N patches, K = 4 slots, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from itertools import permutations

import torch
from torch import Tensor

from vocprep.heads.model.mask_heads.pixel_choices import strongest
from vocprep.heads.scoring.measures.masks import NOT_DRAWN
from vocprep.labels.targets import SLOTS


class RowKind(StrEnum):
    """The predictions that are scored over the same pixels: the model, oracles, a constant."""

    MODEL = "model"
    GT_TOP_4 = "gt_top_4"
    """True slots and true masks: the best that four slots per patch can express."""
    GT_CELLS_4 = "gt_cells_4"
    """The true classes' shares of 4×4 cells per patch, interpolated: what a grid can express."""
    GT_CELLS_2 = "gt_cells_2"
    """The same of 2×2 cells per patch."""
    GT_CELLS_1 = "gt_cells_1"
    """The same of one cell per patch."""
    GT_CLASSES = "gt_classes_model_masks"
    """True slots, drawn with the model's masks."""
    GT_MASKS = "model_classes_gt_masks"
    """The model's classes, drawn with the true masks."""
    PATCH_MAJORITY = "gt_patch_majority"
    """The largest class of each patch all over it."""
    MAJORITY = "majority"
    """One class everywhere."""

    @property
    def display_name(self) -> str:
        """The row's name for people."""
        return _DISPLAY_NAMES[self]

    @property
    def is_constant(self) -> bool:
        """Whether the prediction is the same for every image."""
        return self is RowKind.MAJORITY

    @property
    def uses_model(self) -> bool:
        """Whether the model decides a part of the prediction."""
        return self in (RowKind.MODEL, RowKind.GT_CLASSES, RowKind.GT_MASKS)


_DISPLAY_NAMES = {
    RowKind.MODEL: "model",
    RowKind.GT_TOP_4: "GT top-4",
    RowKind.GT_CELLS_4: "GT cells, 4×4 per patch",
    RowKind.GT_CELLS_2: "GT cells, 2×2 per patch",
    RowKind.GT_CELLS_1: "GT cells, 1×1 per patch",
    RowKind.GT_CLASSES: "GT classes, model masks",
    RowKind.GT_MASKS: "model classes, GT masks",
    RowKind.PATCH_MAJORITY: "GT majority of each patch",
    RowKind.MAJORITY: "majority class",
}
_ASSIGNMENTS = torch.tensor(list(permutations(range(SLOTS))))
"""[24, 4] all assignments of one channel to each slot, the identity first."""


def mask_ious_of(
    ious: Mapping[RowKind, float | None], kind: RowKind
) -> tuple[float | None, float | None]:
    """Return a row's mask IoU by the masks that fit best, and by each class's own mask.

    ``ious`` are those of all rows: the model's is by the own masks, and that of the true classes
    with the model's masks by those that fit best. Of other rows both are the same.

    >>> mask_ious_of({RowKind.MODEL: 0.4, RowKind.GT_CLASSES: 0.5}, RowKind.MODEL)
    (0.5, 0.4)
    """
    best = ious.get(RowKind.GT_CLASSES if kind is RowKind.MODEL else kind)
    return best, None if kind is RowKind.GT_CLASSES else ious.get(kind)


def chance_name(class_name: str, split: str) -> str:
    """Return the constant row's name for people: what it predicts, and the split that it is of."""
    return f"chance: {class_name!r} everywhere (majority of {split})"


def matched_masks(masks: Tensor, states: Tensor) -> Tensor:
    """Return masks [N, 4, 1024] in the order of the true slots, by ``match_channels``."""
    rows = torch.arange(len(masks), device=masks.device).unsqueeze(-1)
    return masks[rows, match_channels(masks, states)]


def match_channels(masks: Tensor, states: Tensor) -> Tensor:
    """Return which mask channel draws each true slot: int64 [N, 4], every channel once.

    Heads trained on slots by area draw slot k in channel k; heads trained on the masks of their own
    predicted classes draw in the order of those. To score the masks of both alike, the assignment
    is chosen that gives the slots' pixels the largest sum of mask probabilities. ``masks`` float
    [N, 4, 1024] in 0..1, ``states`` uint8 [N, 1024].
    """
    slots = torch.arange(SLOTS, dtype=states.dtype, device=states.device).unsqueeze(-1)
    is_slot = (states.unsqueeze(-2) == slots).to(masks.dtype)
    overlap = masks @ is_slot.mT  # [N, channel, slot]
    assignments = _ASSIGNMENTS.to(masks.device)
    sums = overlap[..., assignments, torch.arange(SLOTS, device=masks.device)].sum(dim=-1)
    return assignments[sums.argmax(dim=-1)]


def draw_slots(masks: Tensor) -> Tensor:
    """Return the slot 0..3 that is drawn on each pixel, 4 for none: uint8 [N, 1024].

    It is the slot with the strongest mask among those that the patch has: the true classes of a
    patch include their number. A slot whose mask is 0 is not drawn. ``masks`` float [N, K, 1024] of
    0 or more, in the order of the K slots that each of the patches has.
    """
    values, drawn = strongest(masks)
    # No slot has a larger number than the one that stands for none.
    return torch.maximum(drawn, (values <= 0).to(drawn.dtype).mul_(NOT_DRAWN))


def label_slots(predicted: Tensor, slot_labels: Tensor) -> Tensor:
    """Return the predicted classes [..., 4] of a patch's true slots, −1 where there is no slot.

    A slot whose class is among ``predicted`` int64 [..., ≤ 4] gets it; the others, by descending
    area, get the predicted classes that are left, strongest first.

    >>> label_slots(torch.tensor([[[7, 8, 9, 6]]]), torch.tensor([[[1, 8, 2, -1]]])).tolist()
    [[[7, 8, 9, -1]]]
    """
    same = slot_labels.unsqueeze(-1) == predicted.unsqueeze(-2)
    present, found = slot_labels >= 0, same.any(dim=-1)
    used = same.any(dim=-2)
    left = predicted.gather(-1, used.long().argsort(dim=-1, stable=True))
    missing = present & ~found
    rank = (missing.long().cumsum(dim=-1) - 1).clamp(0, predicted.shape[-1] - 1)
    return torch.where(missing, left.gather(-1, rank), slot_labels)
