"""Counters of a pass over a split, on the device and without a loop over pixels.

Shape legend: B batch, P patches, C classes, K = 4 slots, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vocprep.heads.model.config import ClassLoss
from vocprep.heads.model.losses import Losses
from vocprep.heads.scoring.measures.metrics import (
    ConfusionMatrix,
    average_precision,
    confusion_of,
)

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
    """Pixels by ground truth and prediction, in groups of pixels where there are several."""

    def __init__(self, classes: int, device: torch.device | str = "cpu", groups: int = 1) -> None:
        self.classes, self.groups = classes, groups
        size = groups * classes * (classes + 1)
        self.cells = torch.zeros(size, dtype=torch.int64, device=device)
        """Counts by group, ground truth and prediction (of no class first)."""

    def add(
        self, truth: Tensor, predicted: Tensor, pixels: Tensor, group: Tensor | None = None
    ) -> None:
        """Count int64 [E]: class ids below C, numbers of pixels, and groups 0..

        −1 is a prediction of no class.
        """
        rows = truth if group is None else truth + group * self.classes
        places = (rows * (self.classes + 1)).add_(predicted).add_(1)
        self.cells.index_add_(0, places, pixels)

    def matrix(self) -> ConfusionMatrix:
        """Return the confusion matrix so far, of all groups together."""
        return confusion_of(self.matrices())

    def matrices(self) -> list[ConfusionMatrix]:
        """Return the confusion matrix of each group."""
        counts = self.cells.view(self.groups, self.classes, -1).roll(-1, dims=2).cpu().numpy()
        return [ConfusionMatrix(each) for each in counts]


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
