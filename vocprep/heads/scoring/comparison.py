"""Two runs on the same images: how their scores differ, and how far that depends on the images.

The interval of a difference is that of a paired bootstrap over images: a resample draws as many
images as the split has, with replacement; both runs are scored on it, by the confusions of the
drawn images together, as on the split itself.

Shape legend: C classes of the ground truth, N images, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from vocprep.errors import UsageError
from vocprep.heads.scoring.measures.image_scores import ImageConfusions
from vocprep.heads.scoring.measures.metrics import FREQUENT
from vocprep.heads.scoring.scores import ClassName, RunScores
from vocprep.validation import to_json

RESAMPLES = 2000
LEVEL = 0.95
"""Of the interval: it is meant to hold the true difference that often."""
SEED = 0
BORDERS = {"boundary_iou_3": 3, "boundary_iou_8": 8}
"""Scores of pixels near borders, by how near these are."""
COMPARED = ("miou_present", "miou_frequent", "pixel_accuracy", *BORDERS)
"""Scores of ``ScoreRow`` that are resampled."""
_BLOCK = 1 << 21
"""Draws at once: images times resamples."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ScoreDifference:
    """One score of two runs; the difference is that of the second minus the first."""

    score: str
    """Name of the field of ``TableRow``."""
    first: float
    second: float
    difference: float
    low: float
    high: float
    """Ends of the interval of the difference."""


@dataclass(frozen=True, kw_only=True)
class ScorePair:
    """One score in two runs."""

    first: float
    second: float

    @property
    def difference(self) -> float:
        """That of the second minus that of the first."""
        return self.second - self.first


@dataclass(frozen=True, kw_only=True)
class ClassDifference(ClassName, ScorePair):
    """One class's IoU in two runs."""

    pixels: int


@dataclass(frozen=True, kw_only=True)
class ImageDifference(ScorePair):
    """One image's pixel accuracy in two runs."""

    image_id: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How the scores of a second run differ from those of a first one, on the same images."""

    first: str
    second: str
    """Names of the runs."""
    images: int
    """Images that are resampled."""
    resamples: int
    level: float
    scores: tuple[ScoreDifference, ...]
    """Those of ``COMPARED``."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, keys as the fields are called."""
        return to_json(self)


def compare_runs(
    first: RunScores, second: RunScores, resamples: int = RESAMPLES, seed: int = SEED
) -> Comparison:
    """Compare two runs that were scored on the same images; each time with the same draws.

    Raises UsageError when the images or their pixels are not the same.
    """
    confusions = _aligned(first, second)
    totals = [_RunTotals.of(each) for each in confusions]
    drawn: list[Mapping[str, Floats]] = []
    images = len(confusions[0].image_ids)
    for weights in _resampled_weights(images, resamples, seed):
        one, other = (each.scores(weights) for each in totals)
        drawn.append({name: other[name] - one[name] for name in COMPARED})
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    scores = []
    for name in COMPARED:
        low, high = np.quantile(np.concatenate([block[name] for block in drawn]), ends)
        before, after = (float(getattr(each.model, name)) for each in (first, second))
        scores.append(
            ScoreDifference(
                score=name,
                first=before,
                second=after,
                difference=after - before,
                low=float(low),
                high=float(high),
            )
        )
    return Comparison(
        first=first.run,
        second=second.run,
        images=images,
        resamples=resamples,
        level=LEVEL,
        scores=tuple(scores),
    )


def class_differences(first: RunScores, second: RunScores) -> tuple[ClassDifference, ...]:
    """Return the classes of the ground truth, what the second run gained most first."""
    after = {item.id: item.iou for item in second.classes}
    found = [
        ClassDifference(
            id=item.id, name=item.name, pixels=item.pixels, first=item.iou, second=after[item.id]
        )
        for item in first.classes
    ]
    return tuple(sorted(found, key=lambda item: (-item.difference, item.id)))


def image_differences(first: RunScores, second: RunScores) -> tuple[ImageDifference, ...]:
    """Return the images by pixel accuracy, what the second run gained most first."""
    after = {score.image_id: score.pixel_accuracy for score in second.confusions.scores}
    found = [
        ImageDifference(
            image_id=score.image_id, first=score.pixel_accuracy, second=after[score.image_id]
        )
        for score in first.confusions.scores
    ]
    return tuple(sorted(found, key=lambda item: (-item.difference, item.image_id)))


@dataclass(frozen=True, eq=False)
class _Totals:
    """Pixels of each class of the ground truth in each image, sparse [C, N]."""

    truth: csr_array
    found: csr_array
    """Predicted as the class."""
    hits: csr_array

    @classmethod
    def of(cls, confusions: ImageConfusions, held: NDArray[np.int64]) -> _Totals:
        """Count the classes ``held`` [C], which rise."""
        shape = (len(held), len(confusions.image_ids))

        def totals(classes: NDArray[np.int64], chosen: NDArray[np.bool_]) -> csr_array:
            places = np.searchsorted(held, classes[chosen]), confusions.image[chosen]
            pixels = confusions.pixels[chosen].astype(np.float64)
            return csr_array((pixels, places), shape=shape)

        truth, predicted = confusions.truth, confusions.predicted
        return cls(
            truth=totals(truth, np.ones(len(truth), dtype=bool)),
            found=totals(predicted, np.isin(predicted, held)),
            hits=totals(truth, truth == predicted),
        )

    def drawn(self, weights: Floats) -> _Drawn:
        """Return the counts of resamples: how often each image was drawn, float [N, R]."""
        truth, found, hits = (each @ weights for each in (self.truth, self.found, self.hits))
        return _Drawn(truth=truth, hits=hits, ious=hits / np.maximum(truth + found - hits, 1))


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Pixels of the classes in resamples, and their IoU: [C, R]."""

    truth: Floats
    hits: Floats
    ious: Floats


@dataclass(frozen=True, eq=False)
class _RunTotals:
    """The pixels of a run, all of them and those near borders."""

    all: _Totals
    near: Mapping[str, _Totals]
    """By the score that they are of."""

    @classmethod
    def of(cls, confusions: ImageConfusions) -> _RunTotals:
        held = np.unique(confusions.truth)
        return cls(
            all=_Totals.of(confusions, held),
            near={
                name: _Totals.of(confusions.within(width), held) for name, width in BORDERS.items()
            },
        )

    def scores(self, weights: Floats) -> dict[str, Floats]:
        """Return the scores [R] of resamples: how often each image was drawn, float [N, R]."""
        drawn = self.all.drawn(weights)
        pixels, present = drawn.truth.sum(axis=0), drawn.truth > 0
        frequent = present & (FREQUENT * drawn.truth >= pixels)
        scores = {
            "miou_present": _mean(drawn.ious, present),
            "miou_frequent": _mean(drawn.ious, frequent),
            "pixel_accuracy": drawn.hits.sum(axis=0) / np.maximum(pixels, 1),
        }
        for name, totals in self.near.items():
            part = totals.drawn(weights)
            scores[name] = _mean(part.ious, frequent & (part.truth > 0))
        return scores


def _mean(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Return the means [R] of the chosen values [C, R]; 0 without any."""
    means: Floats = (values * chosen).sum(axis=0) / np.maximum(chosen.sum(axis=0), 1)
    return means


def _resampled_weights(images: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield how often resamples draw each image, float64 [N, ≤ R], all resamples in blocks."""
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK // max(images, 1))
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        draws = rng.integers(0, images, size=(images, count))
        cells = (draws * count + np.arange(count)).ravel()
        weights = np.bincount(cells, minlength=images * count).reshape(images, count)
        yield weights.astype(np.float64)


def _aligned(first: RunScores, second: RunScores) -> tuple[ImageConfusions, ImageConfusions]:
    """Return the confusions of two runs with the images in one order."""
    one, other = first.confusions, second.confusions.ordered_as(first.confusions.image_ids)
    pixels, others = first.confusion.truth_pixels, second.confusion.truth_pixels
    if other is None or not np.array_equal(pixels, others):
        raise UsageError(
            f"{first.run} and {second.run}: expected scores on the same images and ground truth, "
            "found others; evaluate both on one split of one version"
        )
    return one, other
