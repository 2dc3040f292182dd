"""Metrics: corpus-level counts, and the scores that are read off them.

Shape legend: C classes (an index is a class id), K slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]


class ConfusionMatrix:
    """Pixels by ground truth and prediction, added up over any number of images."""

    def __init__(self, categories: int, void: int) -> None:
        self.categories = categories
        self.void = void
        self.counts: NDArray[np.int64] = np.zeros((categories, categories + 1), dtype=np.int64)
        """[C, C + 1] rows are ground truth; the last column counts predictions of no class."""

    def add(self, truth: Labels, predicted: Labels) -> None:
        """Count label ids of equal shape; where ``truth`` is void nothing is counted.

        A predicted id outside 0..C−1 is a prediction of no class: wrong, and charged to no class.
        """
        seen = truth != self.void
        rows = truth[seen].astype(np.int64)
        columns = predicted[seen].astype(np.int64)
        columns[(columns < 0) | (columns > self.categories)] = self.categories
        width = self.categories + 1
        flat = np.bincount(rows * width + columns, minlength=self.counts.size)
        self.counts += flat.reshape(self.counts.shape)

    @property
    def truth_pixels(self) -> NDArray[np.int64]:
        """[C] pixels of each class in the ground truth."""
        pixels: NDArray[np.int64] = self.counts.sum(axis=1)
        return pixels

    def iou(self) -> NDArray[np.float64]:
        """Return each class's intersection over union [C]; 0 where the union is empty."""
        hits = np.diagonal(self.counts)
        union = self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0) - hits
        scores: NDArray[np.float64] = hits / np.maximum(union, 1)
        return scores

    def pixel_accuracy(self) -> float:
        """Return the share of counted pixels whose class was predicted; 0 when there are none."""
        return float(np.trace(self.counts) / max(int(self.counts.sum()), 1))

    def miou_present(self) -> float:
        """Return the mean IoU over classes that the ground truth holds; 0 when it holds none."""
        present = self.truth_pixels > 0
        return float(self.iou()[present].mean()) if present.any() else 0.0

    def miou_all(self, class_ids: Sequence[int]) -> float:
        """Return the mean IoU over ``class_ids``, a class absent from the ground truth being 0."""
        scores = np.where(self.truth_pixels > 0, self.iou(), 0.0)
        return float(scores[list(class_ids)].mean())


def constant_prediction(truth: ConfusionMatrix, label: int) -> ConfusionMatrix:
    """Return the matrix of predicting one label everywhere over the same ground truth."""
    matrix = ConfusionMatrix(truth.categories, truth.void)
    matrix.counts[:, label] = truth.truth_pixels
    return matrix


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
