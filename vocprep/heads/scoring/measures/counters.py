"""Counters of a pass over a split, on the device and without a loop over pixels.

Shape legend: B batch, P patches, C classes, K = 4 slots, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vocprep.heads.model.config import ClassLoss
from vocprep.heads.model.losses import Losses
from vocprep.heads.scoring.measures.metrics import ConfusionMatrix, average_precision
from vocprep.labels.targets import SLOTS, STATE_VOID

Total = Callable[[Tensor], Tensor]
"""Sums a tensor over all ranks, in place."""
ODDS_STEPS = 128
"""Bins per nat of log-odds in ``ScoreHistogram``."""
ODDS_LIMIT = 16
"""Log-odds are clipped to ± this."""


class LossCounter:
    """Sums of the losses on the device, since reading one per batch would stall it."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)
        self.images = 0

    def add(self, losses: Losses, images: int) -> None:
        """Add the losses of ``images`` images, of all together or of each."""
        self._sums += torch.stack([losses.class_sum.sum(), losses.mask_sum.sum()])
        self._counts += torch.stack([losses.patches.sum(), losses.entries.sum()])
        self.images += images

    def sum_over_ranks(self, total: Total) -> None:
        """Add the sums of the other ranks."""
        images = torch.tensor(self.images, device=self._counts.device)
        for tensor in (self._sums, self._counts, images):
            total(tensor)
        self.images = int(images)

    def means(self) -> tuple[float, float]:
        """Return the class loss per patch and the mask loss per entry, in nats."""
        class_loss, mask_loss = (self._sums / self._counts.clamp(min=1)).tolist()
        return class_loss, mask_loss


class PixelCounter:
    """Pixels by ground truth and prediction."""

    def __init__(self, classes: int, void: int, device: torch.device | str = "cpu") -> None:
        self.classes = classes
        self.void = void
        cells = classes * (classes + 1)
        # One more cell for void: selecting the other pixels would synchronise with the device.
        self.cells = torch.zeros(cells + 1, dtype=torch.int64, device=device)
        """Counts by ground truth and prediction, row-major, the last of them of void."""

    def add(self, truth: Tensor, predicted: Tensor) -> None:
        """Count class ids of equal shape; where ``truth`` is void nothing is counted.

        A predicted id outside 0..C−1 is a prediction of no class.
        """
        none, last = self.classes, len(self.cells) - 1
        column = torch.where((predicted < 0) | (predicted > none), none, predicted)
        cell = torch.where(truth == self.void, last, truth.long() * (none + 1) + column)
        self.cells += torch.bincount(cell.flatten(), minlength=last + 1)

    def matrix(self) -> ConfusionMatrix:
        """Return the confusion matrix so far."""
        cells = self.cells[:-1].view(self.classes, self.classes + 1)
        return ConfusionMatrix(cells.cpu().numpy())


class ScoreHistogram:
    """Class scores of patches, by class and by whether the patch holds the class.

    A patch holds the classes of its slots, which are its four largest. A score is the probability
    that the heads were trained to give: the softmax over the classes, or each class's own sigmoid
    where ``class_loss`` is ``multi_hot``. Scores are binned by their log-odds in steps of 1/128 up
    to ±16, so that memory does not grow with the split. Patches without a valid pixel are not
    counted.
    """

    bins = 2 * ODDS_LIMIT * ODDS_STEPS + 1

    def __init__(
        self,
        classes: int,
        device: torch.device | str = "cpu",
        class_loss: ClassLoss = "soft_cross_entropy",
    ) -> None:
        self.classes, self.class_loss = classes, class_loss
        cells = 2 * classes * self.bins
        self._cells = torch.zeros(cells + 1, dtype=torch.int64, device=device)

    def add(self, class_logits: Tensor, slot_labels: Tensor) -> None:
        """Count patches: class_logits [..., C], slot_labels int64 [..., 4] (−1: absent)."""
        odds = class_logits.float()
        if self.class_loss == "soft_cross_entropy":
            odds = odds.softmax(dim=-1).logit()
        odds = odds.clamp(-ODDS_LIMIT, ODDS_LIMIT)
        bins = ((odds + ODDS_LIMIT) * ODDS_STEPS).round().long()
        absent, last = self.classes, len(self._cells) - 1
        held = torch.zeros(
            *bins.shape[:-1], absent + 1, dtype=torch.int64, device=class_logits.device
        )
        held.scatter_(-1, torch.where(slot_labels < 0, absent, slot_labels), 1)
        columns = torch.arange(self.classes, device=class_logits.device)
        cell = (held[..., :-1] * self.classes + columns) * self.bins + bins
        counted = (slot_labels >= 0).any(dim=-1, keepdim=True)
        cell = torch.where(counted, cell, last)
        self._cells += torch.bincount(cell.flatten(), minlength=last + 1)

    def mean_average_precision(self) -> float:
        """Return the mean average precision over the classes that a patch holds; 0 without any."""
        cells = self._cells[:-1].view(2, self.classes, self.bins).cpu().numpy()
        negatives, positives = cells
        held = positives.sum(axis=1) > 0
        scores = average_precision(positives[held], negatives[held])
        return float(scores.mean()) if held.any() else 0.0


@dataclass(frozen=True, kw_only=True)
class MaskQuality:
    """Quality of the masks when the classes are given; see ``MaskCounter``."""

    iou: float
    """Mean IoU of the drawn slots, 0..1."""
    iou_of_largest: float
    """The same when each patch's largest slot is drawn everywhere."""
    slots: int
    """Slots that were drawn."""


class MaskCounter:
    """Mask quality alone: the mean, over slots, of the IoU of the drawn and the true slot.

    Counted are the slots of patches with at least two, since in the others nothing remains to be
    drawn. The true slot is the set of pixels of its state; the drawn one is the set of pixels, void
    left out, where its mask is the strongest among the patch's slots (``oracles.draw_slots``).
    Every slot has the same weight, whatever its class and area.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        # By the slots of a patch: IoU drawn, IoU of the largest, slots.
        self._sums = torch.zeros(SLOTS + 1, 3, dtype=torch.float64, device=device)

    def add(self, drawn: Tensor, states: Tensor, present: Tensor) -> None:
        """Count slots: drawn int64 and states uint8 [B, P, 1024], present bool [B, P, 4]."""
        valid = states != STATE_VOID
        ious = torch.stack([_iou((drawn == s) & valid, states == s) for s in range(SLOTS)], dim=-1)
        slots = present.sum(dim=-1)
        values = [(ious * present).sum(dim=-1), _iou(valid, states == 0) * present[..., 0], slots]
        rows = torch.stack([value.to(torch.float64) for value in values], dim=-1).flatten(0, 1)
        # A matrix product: adding by index has no fixed order on a GPU.
        self._sums += functional.one_hot(slots.flatten(), SLOTS + 1).to(torch.float64).T @ rows

    def quality(self) -> MaskQuality:
        """Return the means so far; zeros when no patch had two slots."""
        return _mask_quality(self._sums[2:].sum(dim=0))

    def quality_by_slots(self) -> dict[int, MaskQuality]:
        """Return the means over patches of 2, 3 and 4 slots."""
        return {slots: _mask_quality(self._sums[slots]) for slots in range(2, SLOTS + 1)}


def _mask_quality(sums: Tensor) -> MaskQuality:
    iou, largest, slots = sums.tolist()
    return MaskQuality(
        iou=iou / max(slots, 1), iou_of_largest=largest / max(slots, 1), slots=int(slots)
    )


def _iou(one: Tensor, other: Tensor) -> Tensor:
    """Return the IoU of pixel sets bool [..., 1024]; 0 where both are empty."""
    union = (one | other).sum(dim=-1)
    return (one & other).sum(dim=-1).to(torch.float64) / union.clamp(min=1)
