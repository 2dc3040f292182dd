"""Metrics computed from the counts of a whole split.

Shape legend: C classes (an index is a class id), K slots, N patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Counts = NDArray[np.int64]

FREQUENT = 100
"""A class is frequent when it has at least 1/100 of the scored pixels."""


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Pixels by ground truth and prediction, over any number of images.

    Every score but those of images and patches is computed from one such matrix: in a mean of
    per-image scores, the weight of a class would depend on the images without it.

    >>> matrix = ConfusionMatrix(np.array([[8, 2, 0], [3, 6, 1]]))
    >>> matrix.pixel_accuracy()
    0.7
    >>> matrix.iou().round(2).tolist()  # 8 / (8 + 2 + 3) and 6 / (6 + 3 + 1 + 2)
    [0.62, 0.5]
    """

    counts: Counts
    """[C, C + 1] rows are ground truth; the last column counts predictions of no class, which are
    wrong and no false positives of a class. Void pixels are in no row."""

    @property
    def classes(self) -> int:
        """C, the largest class id plus one."""
        return len(self.counts)

    @cached_property
    def truth_pixels(self) -> Counts:
        """[C] pixels of each class in the ground truth."""
        pixels: Counts = self.counts.sum(axis=1)
        return pixels

    @property
    def is_frequent(self) -> NDArray[np.bool_]:
        """[C] whether a class has at least 1 % of the pixels."""
        pixels = self.truth_pixels
        frequent: NDArray[np.bool_] = (pixels > 0) & (FREQUENT * pixels >= pixels.sum())
        return frequent

    def iou(self) -> NDArray[np.float64]:
        """Return each class's intersection over union [C]; 0 where the union is empty."""
        return self._ious

    @cached_property
    def _ious(self) -> NDArray[np.float64]:
        hits = np.diagonal(self.counts)
        union = self.truth_pixels + self.counts[:, :-1].sum(axis=0) - hits
        scores: NDArray[np.float64] = hits / np.maximum(union, 1)
        return scores

    def class_accuracy(self) -> NDArray[np.float64]:
        """Return the share of each class's pixels whose prediction is that class [C]."""
        scores: NDArray[np.float64] = np.diagonal(self.counts) / np.maximum(self.truth_pixels, 1)
        return scores

    def pixel_accuracy(self) -> float:
        """Return the share of counted pixels whose class was predicted; 0 when there are none."""
        return float(np.trace(self.counts) / max(int(self.truth_pixels.sum()), 1))

    def frequency_weighted_iou(self) -> float:
        """Return the mean IoU of the classes, weighted by their shares of the pixels."""
        pixels = self.truth_pixels
        return float((pixels * self.iou()).sum() / max(int(pixels.sum()), 1))

    def miou_present(self) -> float:
        """Return the mean IoU over the classes in the ground truth; 0 when there are none."""
        return self.mean_iou(self.truth_pixels > 0)

    def miou_frequent(self) -> float:
        """Return the mean IoU over the classes with at least 1 % of the pixels; 0 without any."""
        return self.mean_iou(self.is_frequent)

    def miou_within(self, pixels: ConfusionMatrix) -> float:
        """Return the mean IoU over some of the pixels, of the same classes as ``miou_frequent``.

        Of these only those in the ground truth of ``pixels``, the part's own matrix.
        """
        return pixels.mean_iou(self.is_frequent & (pixels.truth_pixels > 0))

    def miou_all(self, class_ids: Sequence[int]) -> float:
        """Return the mean IoU over ``class_ids``, a class absent from the ground truth being 0."""
        scores = np.where(self.truth_pixels > 0, self.iou(), 0.0)
        return float(scores[list(class_ids)].mean())

    def mean_iou(self, chosen: NDArray[np.bool_]) -> float:
        """Return the mean IoU over chosen classes, bool [C]; 0 without any."""
        return float(self.iou()[chosen].mean()) if chosen.any() else 0.0

    def with_missed(self, pixels: Counts) -> ConfusionMatrix:
        """Return the matrix with further pixels [C] of each class that have no prediction."""
        counts = self.counts.copy()
        counts[:, -1] += pixels
        return ConfusionMatrix(counts)

    def translated(
        self, to_class: Mapping[int, int], *, void: int, classes: int
    ) -> ConfusionMatrix:
        """Return the matrix of the same predictions in another label space.

        ``to_class`` gives each class's id there. Pixels whose ground truth becomes ``void`` are no
        longer counted; a prediction that becomes void is one of no class, thus wrong.
        """
        ids = np.array([to_class.get(label, void) for label in range(self.classes)])
        columns = np.append(np.where(ids == void, classes, ids), classes)
        rows = np.flatnonzero(ids != void)
        counts = np.zeros((classes, classes + 1), dtype=np.int64)
        np.add.at(counts, (ids[rows, None], columns[None, :]), self.counts[rows])
        return ConfusionMatrix(counts)

    def to_csv(self) -> str:
        """Return every count that is not 0: truth id, predicted id (empty: no class), pixels."""
        lines = ["truth,predicted,pixels"]
        for truth, predicted in np.argwhere(self.counts).tolist():
            name = "" if predicted == self.classes else predicted
            lines.append(f"{truth},{name},{self.counts[truth, predicted]}")
        return "\n".join(lines) + "\n"


def confusion_of(parts: Sequence[ConfusionMatrix]) -> ConfusionMatrix:
    """Return the confusion matrix of the pixels of several, at least one, together."""
    counts = parts[0].counts.copy()
    for part in parts[1:]:
        counts += part.counts
    return ConfusionMatrix(counts)


def constant_prediction(truth: ConfusionMatrix, label: int) -> ConfusionMatrix:
    """Return the matrix of predicting one class everywhere over the same ground truth."""
    counts = np.zeros_like(truth.counts)
    counts[:, label] = truth.truth_pixels
    return ConfusionMatrix(counts)


@dataclass
class PatchRecall:
    """Recall@4: the share of a patch's classes that are among four predicted classes.

    The mean, over patches that have at least one slot, of |truth ∩ predicted| / |truth|, where
    truth is the set of the patch's slot labels (its up to four largest classes) and predicted the
    set of up to four classes; order and area do not count.

    >>> recall = PatchRecall()
    >>> recall.add(np.array([[3, 5, -1, -1]]), np.array([[5, 0, 1, 2]]))
    >>> recall.score()
    0.5
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
    """Top-1: the share of patches whose strongest predicted class is their largest class.

    Patches without a valid pixel are not counted; among classes of equal area the smallest id
    counts as the largest, as in the shards' slots.

    >>> top1 = PatchTop1()
    >>> top1.add(np.array([[3, 5, -1, -1], [1, -1, -1, -1]]), np.array([3, 2]))
    >>> top1.score()
    0.5
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


@dataclass(kw_only=True)
class PatchCounts:
    """The scores of patches, for one kind of row."""

    recall: PatchRecall = field(default_factory=PatchRecall)
    top1: PatchTop1 = field(default_factory=PatchTop1)

    def add(self, slot_labels: Labels, predicted: Labels) -> None:
        """Count patches [N, 4] and their predicted classes [N, K], strongest first."""
        self.recall.add(slot_labels, predicted)
        self.top1.add(slot_labels, predicted[:, 0])


def average_precision(positives: Counts, negatives: Counts) -> NDArray[np.float64]:
    """Return each class's average precision [C] from histograms of scores [C, bins].

    Bins are in order of rising score; scores in one bin are ties and are accepted together. The
    precision is summed over the steps of the recall, without interpolation. 0 where a class has
    no positive.

    >>> average_precision(np.array([[0, 1, 1]]), np.array([[1, 1, 0]])).round(3).tolist()
    [0.833]
    """
    accepted = positives[:, ::-1].cumsum(axis=1)
    wrong = negatives[:, ::-1].cumsum(axis=1)
    precision = accepted / np.maximum(accepted + wrong, 1)
    summed = (positives[:, ::-1] * precision).sum(axis=1)
    scores: NDArray[np.float64] = summed / np.maximum(positives.sum(axis=1), 1)
    return scores


def confusion_shares(matrix: ConfusionMatrix, classes: Sequence[int]) -> NDArray[np.float64]:
    """Return the shares [L, L + 1] of the predictions for the pixels of L classes.

    The last column holds predictions of other classes and of none.

    >>> matrix = ConfusionMatrix(np.array([[8, 2, 0], [3, 6, 1]]))
    >>> confusion_shares(matrix, [1]).tolist()
    [[0.6, 0.4]]
    """
    rows = matrix.counts[list(classes)]
    chosen = rows[:, list(classes)]
    pixels = rows.sum(axis=1, keepdims=True)
    other = pixels - chosen.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.hstack([chosen, other]) / np.maximum(pixels, 1)
    return shares
