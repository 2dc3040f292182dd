"""The images of a split one by one: confusions, losses, scores.

Shape legend: B batch, C classes, N images, E entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.heads.scoring.measures.borders import BANDS, WIDTHS
from vocprep.heads.scoring.measures.metrics import ConfusionMatrix
from vocprep.heads.scoring.measures.pixel_counts import PixelEntries

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """One image's own scores; the scores of a split are not means of them."""

    image_id: str
    pixel_accuracy: float
    miou: float
    """Mean IoU over the classes that the image holds."""
    pixels: int
    """Pixels scored."""
    loss: float
    """Class and mask loss together, in nats, over this image's patches alone."""


Group = Literal["worst", "median", "best"]
"""Where in the order of pixel accuracy images are taken from."""


def by_accuracy(scores: Iterable[ImageScore]) -> list[ImageScore]:
    """Return scores by rising pixel accuracy, ties by id."""
    return sorted(scores, key=lambda score: (score.pixel_accuracy, score.image_id))


def examples(scores: Iterable[ImageScore], most: int) -> dict[Group, list[ImageScore]]:
    """Return up to ``most`` images with the lowest, middle and highest pixel accuracy.

    The worst and the best begin with the extreme one; no image is in two groups, the worst come
    first where there are few.

    >>> scores = [ImageScore(image_id=str(n), pixel_accuracy=n, miou=0, pixels=1, loss=0)
    ...           for n in range(9)]
    >>> {name: [s.image_id for s in found] for name, found in examples(scores, 2).items()}
    {'worst': ['0', '1'], 'median': ['3', '4'], 'best': ['8', '7']}
    """
    order = by_accuracy(scores)
    worst, rest = order[:most], order[most:]
    best = rest[::-1][:most]
    between = rest[: len(rest) - len(best)]
    first = max(0, (len(between) - most) // 2)
    return {"worst": worst, "median": between[first : first + most], "best": best}


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageConfusions:
    """Pixels of each image by band, ground truth and prediction, those that occur only.

    A photograph has some tens of the C·C pairs, so that ten thousand images of 460 classes
    take a few megabytes.

    >>> confusions = ImageConfusions(
    ...     image_ids=("a", "b"), classes=2, losses=np.zeros(2),
    ...     image=np.array([0, 0, 1]), truth=np.array([0, 1, 1]),
    ...     predicted=np.array([0, 0, 1]), pixels=np.array([6, 2, 4]),
    ...     band=np.array([2, 0, 2]),
    ... )
    >>> confusions.matrix().counts.tolist()
    [[6, 0, 0], [2, 4, 0]]
    >>> [score.pixel_accuracy for score in confusions.scores]
    [0.75, 1.0]
    """

    image_ids: tuple[str, ...]
    """[N] in the order of the pass."""
    classes: int
    """C, the largest class id plus one."""
    losses: NDArray[np.float64]
    """[N] ``ImageScore.loss``."""
    image: Ints
    """[E] index of an entry's image, rising."""
    truth: Ints
    """[E] class id."""
    predicted: Ints
    """[E] class id."""
    pixels: Ints
    """[E] pixels of the entry, 1 or more."""
    band: Ints
    """[E] how near to a border they lie (``borders.border_bands``)."""

    def within(self, width: int) -> ImageConfusions:
        """Return the pixels within one of ``borders.WIDTHS`` of a border; all images stay."""
        chosen = self.band <= WIDTHS.index(width)
        names = ("image", "truth", "predicted", "pixels", "band")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def matrix(self) -> ConfusionMatrix:
        """Return the confusion matrix of all images together."""
        counts = np.zeros((self.classes, self.classes + 1), dtype=np.int64)
        np.add.at(counts, (self.truth, self.predicted), self.pixels)
        return ConfusionMatrix(counts)

    def ordered_as(self, image_ids: Sequence[str]) -> ImageConfusions | None:
        """Return the same with the images in another order; None where they are not the same."""
        if self.image_ids == tuple(image_ids):
            return self
        place = {image_id: i for i, image_id in enumerate(image_ids)}
        if place.keys() != set(self.image_ids):
            return None
        moved = np.array([place[image_id] for image_id in self.image_ids], dtype=np.int64)
        losses = np.empty_like(self.losses)
        losses[moved] = self.losses
        order = np.argsort(moved[self.image], kind="stable")
        return ImageConfusions(
            image_ids=tuple(image_ids),
            classes=self.classes,
            losses=losses,
            image=moved[self.image][order],
            truth=self.truth[order],
            predicted=self.predicted[order],
            pixels=self.pixels[order],
            band=self.band[order],
        )

    @cached_property
    def scores(self) -> tuple[ImageScore, ...]:
        """The scores of each image in their order; images of void alone are left out."""
        images, weights = len(self.image_ids), self.pixels.astype(np.float64)
        hit = self.truth == self.predicted
        keys, true, found, hits = self._held_classes(hit, weights)
        holder = keys // self.classes
        ious = np.bincount(holder, hits / (true + found - hits), minlength=images)
        held = np.bincount(holder, minlength=images)
        pixels = np.bincount(self.image, weights, minlength=images)
        right = np.bincount(self.image[hit], weights[hit], minlength=images)
        return tuple(
            ImageScore(
                image_id=self.image_ids[i],
                pixel_accuracy=float(right[i] / pixels[i]),
                miou=float(ious[i] / held[i]),
                pixels=int(pixels[i]),
                loss=float(self.losses[i]),
            )
            for i in np.flatnonzero(pixels).tolist()
        )

    def _held_classes(
        self, hit: NDArray[np.bool_], weights: Floats
    ) -> tuple[Ints, Floats, Floats, Floats]:
        """Return the classes that each image holds, as image·C + class, and their pixels.

        Those of the ground truth, of the prediction, and of both.
        """
        first = self.image * self.classes
        keys, place = np.unique(first + self.truth, return_inverse=True)
        # A class that an image is predicted to hold and does not is in no mean.
        said = np.isin(first + self.predicted, keys)
        at = np.searchsorted(keys, (first + self.predicted)[said])
        true, found, hits = (
            np.bincount(places, chosen, minlength=len(keys)).astype(np.float64)
            for places, chosen in (
                (place, weights),
                (at, weights[said]),
                (place[hit], weights[hit]),
            )
        )
        return keys, true, found, hits


class ImageCounter:
    """Counts the pixels of images by ground truth and prediction."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._ids: list[str] = []
        self._losses: list[NDArray[np.float64]] = []
        self._cells: list[Ints] = []
        self._pixels: list[Ints] = []

    def add(
        self, image_ids: Sequence[str], entries: PixelEntries, patches: int, losses: Tensor
    ) -> None:
        """Count images with their losses [B], each of which has so many patches of the entries'.

        Predicted ids lie in 0..C−1.
        """
        image = entries.patch // patches + len(self._ids)
        pair = entries.truth * self.classes + entries.predicted
        cells, place = torch.unique(
            (image * BANDS + entries.band) * self.classes**2 + pair, return_inverse=True
        )
        pixels = torch.zeros_like(cells).index_add_(0, place, entries.pixels)
        self._ids += image_ids
        self._losses.append(losses.double().cpu().numpy())
        self._cells.append(cells.cpu().numpy())
        self._pixels.append(pixels.cpu().numpy())

    def confusions(self) -> ImageConfusions:
        """Return what was counted so far."""
        cell = np.concatenate([np.zeros(0, dtype=np.int64), *self._cells])
        part, pair = np.divmod(cell, self.classes**2)
        image, band = np.divmod(part, BANDS)
        truth, predicted = np.divmod(pair, self.classes)
        return ImageConfusions(
            image_ids=tuple(self._ids),
            classes=self.classes,
            losses=np.concatenate([np.zeros(0), *self._losses]),
            image=image,
            truth=truth,
            predicted=predicted,
            pixels=np.concatenate([np.zeros(0, dtype=np.int64), *self._pixels]),
            band=band,
        )
