"""Counters: what a pass over a split adds up on the device, without a loop over pixels.

Shape legend: B batch, P patches, C classes, K = 4 slots, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vocprep.heads.model.config import ClassLoss
from vocprep.heads.scoring.metrics import ConfusionMatrix, average_precision
from vocprep.labels.targets import SLOTS, STATE_VOID

ODDS_STEPS = 128
"""Steps of a nat in which ``ScoreHistogram`` tells log-odds apart."""
ODDS_LIMIT = 16
"""Log-odds beyond this are taken for this."""


class PixelCounter:
    """Pixels by ground truth and prediction."""

    def __init__(self, categories: int, void: int, device: torch.device | str = "cpu") -> None:
        self.categories = categories
        self.void = void
        cells = categories * (categories + 1)
        # One cell more for void: leaving pixels out would make the device tell how many they are.
        self.cells = torch.zeros(cells + 1, dtype=torch.int64, device=device)
        """Counts by ground truth and prediction, row-major, the last of them of void."""

    def add(self, truth: Tensor, predicted: Tensor) -> None:
        """Count label ids of equal shape; where ``truth`` is void nothing is counted.

        A predicted id outside 0..C−1 is a prediction of no class.
        """
        none, last = self.categories, len(self.cells) - 1
        column = torch.where((predicted < 0) | (predicted > none), none, predicted)
        cell = torch.where(truth == self.void, last, truth.long() * (none + 1) + column)
        self.cells += torch.bincount(cell.flatten(), minlength=last + 1)

    def matrix(self) -> ConfusionMatrix:
        """Return what has been counted."""
        cells = self.cells[:-1].view(self.categories, self.categories + 1)
        return ConfusionMatrix(cells.cpu().numpy())


class ScoreHistogram:
    """Category scores of patches, by class and by whether the patch holds the class.

    A patch holds the labels of its slots, which are its four largest. A score is the probability
    that the heads learnt to say: the softmax over the classes, or each class's own sigmoid where
    ``class_loss`` is ``multi_hot``; scores are told apart by their log-odds in steps of 1/128 up
    to ±16, so that memory does not grow with the split. Patches without a valid pixel are not
    counted.
    """

    bins = 2 * ODDS_LIMIT * ODDS_STEPS + 1

    def __init__(
        self,
        categories: int,
        device: torch.device | str = "cpu",
        class_loss: ClassLoss = "soft_cross_entropy",
    ) -> None:
        self.categories, self.class_loss = categories, class_loss
        cells = 2 * categories * self.bins
        self._cells = torch.zeros(cells + 1, dtype=torch.int64, device=device)

    def add(self, category_logits: Tensor, slot_labels: Tensor) -> None:
        """Count patches: category_logits [..., C], slot_labels int64 [..., 4] (−1: absent)."""
        odds = category_logits.float()
        if self.class_loss == "soft_cross_entropy":
            odds = odds.softmax(dim=-1).logit()
        odds = odds.clamp(-ODDS_LIMIT, ODDS_LIMIT)
        bins = ((odds + ODDS_LIMIT) * ODDS_STEPS).round().long()
        absent, last = self.categories, len(self._cells) - 1
        held = torch.zeros(
            *bins.shape[:-1], absent + 1, dtype=torch.int64, device=category_logits.device
        )
        held.scatter_(-1, torch.where(slot_labels < 0, absent, slot_labels), 1)
        classes = torch.arange(self.categories, device=category_logits.device)
        cell = (held[..., :-1] * self.categories + classes) * self.bins + bins
        counted = (slot_labels >= 0).any(dim=-1, keepdim=True)
        cell = torch.where(counted, cell, last)
        self._cells += torch.bincount(cell.flatten(), minlength=last + 1)

    def mean_average_precision(self) -> float:
        """Return the mean average precision over classes that a patch holds; 0 without any."""
        cells = self._cells[:-1].view(2, self.categories, self.bins).cpu().numpy()
        negatives, positives = cells
        held = positives.sum(axis=1) > 0
        scores = average_precision(positives[held], negatives[held])
        return float(scores.mean()) if held.any() else 0.0


@dataclass(frozen=True, kw_only=True)
class MaskQuality:
    """How well masks are drawn when the labels are given; see ``MaskCounter``."""

    iou: float
    """Mean IoU of the drawn slots, 0..1."""
    iou_of_largest: float
    """What drawing each patch's largest slot everywhere gets."""
    slots: int
    """Slots that were drawn."""


class MaskCounter:
    """Mask quality on its own: the mean, over slots, of the IoU of a slot as drawn and as it is.

    Counted are the slots of patches with at least two, since in the others nothing is left to
    draw. A slot as it is are the pixels of its state; a slot as drawn are the pixels, void left
    out, where its mask is the strongest among the patch's slots (``ladder.draw_slots``). Every
    slot weighs the same, whatever its label and area.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)

    def add(self, drawn: Tensor, states: Tensor, present: Tensor) -> None:
        """Count slots: drawn int64 and states uint8 [B, P, 1024], present bool [B, P, 4]."""
        valid = states != STATE_VOID
        ious = torch.stack([_iou((drawn == s) & valid, states == s) for s in range(SLOTS)], dim=-1)
        counted = present & (present.sum(dim=-1, keepdim=True) > 1)
        largest = _iou(valid, states == 0) * counted[..., 0]
        sums = [(ious * counted).sum(), largest.sum(), counted.sum()]
        self._sums += torch.stack([value.to(torch.float64) for value in sums])

    def quality(self) -> MaskQuality:
        """Return what has been counted; zeros when no patch had two slots."""
        iou, largest, slots = self._sums.tolist()
        return MaskQuality(
            iou=iou / max(slots, 1), iou_of_largest=largest / max(slots, 1), slots=int(slots)
        )


def _iou(one: Tensor, other: Tensor) -> Tensor:
    """Return the IoU of pixel sets bool [..., 1024]; 0 where both are empty."""
    union = (one | other).sum(dim=-1)
    return (one & other).sum(dim=-1).to(torch.float64) / union.clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """One image's own scores; no mean of them is a score of the split."""

    image_id: str
    pixel_accuracy: float
    miou: float
    """Mean IoU over the classes that the image holds."""
    pixels: int
    """Pixels scored."""


def score_images(
    image_ids: Sequence[str], truth: Tensor, predicted: Tensor, categories: int, void: int
) -> list[ImageScore]:
    """Score images one by one from label ids int64 [B, P, 1024]; those of void alone are left out.

    ``predicted`` holds ids 0..C−1.
    """
    hits, held, said = (
        _count_by_image(labels, chosen, categories)
        for labels, chosen in (
            (truth, (truth == predicted) & (truth != void)),
            (truth, truth != void),
            (predicted, truth != void),
        )
    )
    present = held > 0
    ious = hits / (held + said - hits).clamp(min=1)
    mious = (ious * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)
    pixels = held.sum(dim=1)
    accuracies = hits.sum(dim=1) / pixels.clamp(min=1)
    rows = zip(image_ids, accuracies.tolist(), mious.tolist(), pixels.tolist(), strict=True)
    return [
        ImageScore(image_id=image_id, pixel_accuracy=accuracy, miou=miou, pixels=int(count))
        for image_id, accuracy, miou, count in rows
        if count
    ]


def _count_by_image(labels: Tensor, chosen: Tensor, categories: int) -> Tensor:
    """Return the chosen pixels of each label in each image, float64 [B, C]."""
    images = len(labels)
    first = torch.arange(images, device=labels.device).view(-1, 1, 1) * categories
    cell = torch.where(chosen, first + labels, images * categories)
    counts = torch.bincount(cell.flatten(), minlength=images * categories + 1)
    return counts[:-1].view(images, categories).to(torch.float64)
