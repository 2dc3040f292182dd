"""Metrics: the scores that are read off corpus-level counts.

Shape legend: C classes (an index is a class id), K slots, N patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Counts = NDArray[np.int64]

FREQUENT = 100
"""A class is frequent when it has at least one in so many of the scored pixels."""


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Pixels by ground truth and prediction, over any number of images.

    Every score but those of images and patches is read off one such matrix: a mean of per-image
    scores would weigh a class by the pictures that lack it.
    """

    counts: Counts
    """[C, C + 1] rows are ground truth; the last column counts predictions of no class, which are
    wrong and charged to no class. Void pixels are in no row."""

    @property
    def categories(self) -> int:
        """C, the largest class id plus one."""
        return len(self.counts)

    @property
    def truth_pixels(self) -> Counts:
        """[C] pixels of each class in the ground truth."""
        pixels: Counts = self.counts.sum(axis=1)
        return pixels

    def iou(self) -> NDArray[np.float64]:
        """Return each class's intersection over union [C]; 0 where the union is empty."""
        hits = np.diagonal(self.counts)
        union = self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0) - hits
        scores: NDArray[np.float64] = hits / np.maximum(union, 1)
        return scores

    def class_accuracy(self) -> NDArray[np.float64]:
        """Return the share of each class's pixels that were predicted as it [C]."""
        scores: NDArray[np.float64] = np.diagonal(self.counts) / np.maximum(self.truth_pixels, 1)
        return scores

    def pixel_accuracy(self) -> float:
        """Return the share of counted pixels whose class was predicted; 0 when there are none."""
        return float(np.trace(self.counts) / max(int(self.counts.sum()), 1))

    def frequency_weighted_iou(self) -> float:
        """Return the IoU of the classes, each weighing as much as its share of the pixels."""
        pixels = self.truth_pixels
        return float((pixels * self.iou()).sum() / max(int(pixels.sum()), 1))

    def miou_present(self) -> float:
        """Return the mean IoU over classes that the ground truth holds; 0 when it holds none."""
        return self._mean_iou(self.truth_pixels > 0)

    def miou_frequent(self) -> float:
        """Return the mean IoU over classes with at least 1 % of the pixels; 0 without any."""
        pixels = self.truth_pixels
        return self._mean_iou((pixels > 0) & (FREQUENT * pixels >= pixels.sum()))

    def miou_all(self, class_ids: Sequence[int]) -> float:
        """Return the mean IoU over ``class_ids``, a class absent from the ground truth being 0."""
        scores = np.where(self.truth_pixels > 0, self.iou(), 0.0)
        return float(scores[list(class_ids)].mean())

    def _mean_iou(self, chosen: NDArray[np.bool_]) -> float:
        return float(self.iou()[chosen].mean()) if chosen.any() else 0.0

    def with_missed(self, pixels: Counts) -> ConfusionMatrix:
        """Return the matrix with further pixels [C] of each class, for which nothing was said."""
        counts = self.counts.copy()
        counts[:, -1] += pixels
        return ConfusionMatrix(counts)

    def translated(
        self, to_class: Mapping[int, int], *, void: int, categories: int
    ) -> ConfusionMatrix:
        """Return the matrix of the same predictions in another label space.

        ``to_class`` gives each class's id there. Where the ground truth becomes ``void`` nothing
        is counted any more; a prediction that becomes void is one of no class, thus wrong.
        """
        ids = np.array([to_class.get(label, void) for label in range(self.categories)])
        columns = np.append(np.where(ids == void, categories, ids), categories)
        rows = np.flatnonzero(ids != void)
        counts = np.zeros((categories, categories + 1), dtype=np.int64)
        np.add.at(counts, (ids[rows, None], columns[None, :]), self.counts[rows])
        return ConfusionMatrix(counts)

    def to_csv(self) -> str:
        """Return every count that is not 0: truth id, predicted id (empty: no class), pixels."""
        lines = ["truth,predicted,pixels"]
        for truth, predicted in np.argwhere(self.counts).tolist():
            name = "" if predicted == self.categories else predicted
            lines.append(f"{truth},{name},{self.counts[truth, predicted]}")
        return "\n".join(lines) + "\n"


def constant_prediction(truth: ConfusionMatrix, label: int) -> ConfusionMatrix:
    """Return the matrix of predicting one label everywhere over the same ground truth."""
    counts = np.zeros_like(truth.counts)
    counts[:, label] = truth.truth_pixels
    return ConfusionMatrix(counts)


@dataclass
class PatchRecall:
    """Recall@4: how much of what a patch holds is among four predicted labels.

    The mean, over patches that have at least one slot, of |truth ∩ predicted| / |truth|, where
    truth is the set of the patch's slot labels (its up to four largest) and predicted the set of
    up to four labels; order and area do not count.
    """

    total: float = field(default=0.0)
    patches: int = field(default=0)

    def add(self, slot_labels: Labels, predicted: Labels) -> None:
        """Count patches: slot_labels [..., 4] (−1: absent), predicted [..., K], distinct ids."""
        present = slot_labels >= 0
        found = (slot_labels[..., :, None] == predicted[..., None, :]).any(axis=-1) & present
        counted = present.any(axis=-1)
        shares = found.sum(axis=-1)[counted] / present.sum(axis=-1)[counted]
        self.total += float(shares.sum())
        self.patches += int(counted.sum())

    def score(self) -> float:
        """Return the recall, 0 when no patch was counted."""
        return self.total / max(self.patches, 1)


@dataclass
class PatchTop1:
    """Top-1: the share of patches whose strongest predicted label is their largest label.

    Patches without a valid pixel are not counted; of labels of one area the smallest id counts as
    the largest label, as in the shards' slots.
    """

    hits: int = field(default=0)
    patches: int = field(default=0)

    def add(self, slot_labels: Labels, strongest: Labels) -> None:
        """Count patches: slot_labels [..., 4] (−1: absent), strongest [...]."""
        counted = slot_labels[..., 0] >= 0
        self.hits += int(((slot_labels[..., 0] == strongest) & counted).sum())
        self.patches += int(counted.sum())

    def score(self) -> float:
        """Return the share, 0 when no patch was counted."""
        return self.hits / max(self.patches, 1)


def average_precision(positives: Counts, negatives: Counts) -> NDArray[np.float64]:
    """Return each class's average precision [C] from histograms of scores [C, bins].

    Bins are in order of rising score; what shares a bin is tied and is accepted together. The
    precision is summed over the steps of the recall, without interpolation. 0 where a class has
    no positive.
    """
    accepted = positives[:, ::-1].cumsum(axis=1)
    wrong = negatives[:, ::-1].cumsum(axis=1)
    precision = accepted / np.maximum(accepted + wrong, 1)
    summed = (positives[:, ::-1] * precision).sum(axis=1)
    scores: NDArray[np.float64] = summed / np.maximum(positives.sum(axis=1), 1)
    return scores


def confusion_shares(matrix: ConfusionMatrix, labels: Sequence[int]) -> NDArray[np.float64]:
    """Return what became of the pixels of L labels: [L, L + 1] shares, other predictions last."""
    rows = matrix.counts[list(labels)]
    chosen = rows[:, list(labels)]
    pixels = rows.sum(axis=1, keepdims=True)
    other = pixels - chosen.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.hstack([chosen, other]) / np.maximum(pixels, 1)
    return shares
