"""Differences of two runs and their intervals, against resamples scored one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from builders.heads import CPU, always_says, make_dataset, random_records, run_for

from vocprep.errors import UsageError
from vocprep.heads.scoring.comparison import (
    BORDERS,
    COMPARED,
    class_differences,
    compare_runs,
    image_differences,
)
from vocprep.heads.scoring.measures.image_scores import ImageConfusions
from vocprep.heads.scoring.measures.metrics import ConfusionMatrix
from vocprep.heads.scoring.run_scores import score_run
from vocprep.heads.scoring.scores import RunScores


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> RunScores:
    """A real result, whose counts are replaced."""
    val = random_records("val", [(1, 2), (2, 2), (1, 1)])
    dataset = make_dataset(tmp_path_factory.mktemp("data") / "shards", {"val": val})
    return score_run(run_for(dataset), dataset, "val", CPU)


def in_bands(matrix: np.ndarray) -> list[np.ndarray]:
    """Divide an image's pixels between those near borders and the others."""
    return [matrix // 4, matrix // 3, matrix - matrix // 4 - matrix // 3]


def score_of(matrices: Sequence[np.ndarray], name: str) -> float:
    """Return a score of images with these confusion matrices together."""
    total = ConfusionMatrix(np.sum(matrices, axis=0))
    if name not in BORDERS:
        return getattr(total, name)()
    bands = 1 if BORDERS[name] == 3 else 2
    near = [part for matrix in matrices for part in in_bands(matrix)[:bands]]
    return total.miou_within(ConfusionMatrix(np.sum(near, axis=0)))


def with_images(scores: RunScores, name: str, matrices: Sequence[np.ndarray]) -> RunScores:
    """Return scores of images with these confusion matrices."""
    entries = [
        (i, *pair, part[tuple(pair)], band)
        for i, matrix in enumerate(matrices)
        for band, part in enumerate(in_bands(matrix))
        for pair in np.argwhere(part).tolist()
    ]
    image, truth, predicted, pixels, band = np.array(entries).T
    confusions = ImageConfusions(
        image_ids=tuple(f"image_{i}" for i in range(len(matrices))),
        classes=len(matrices[0]),
        losses=np.zeros(len(matrices)),
        image=image,
        truth=truth,
        predicted=predicted,
        pixels=pixels,
        band=band,
    )
    model = replace(scores.model, **{name: score_of(matrices, name) for name in COMPARED})
    return replace(
        scores,
        run=name,
        rows=(model, *scores.rows[1:]),
        confusions=confusions,
        confusion=ConfusionMatrix(np.sum(matrices, axis=0)),
    )


def random_matrices(rng: np.random.Generator, images: int, classes: int = 4) -> list[np.ndarray]:
    """Images of one to three classes, some of them rare."""
    matrices = []
    for _ in range(images):
        matrix = np.zeros((classes, classes + 1), dtype=np.int64)
        for truth in rng.choice(classes, size=rng.integers(1, 4), p=[0.6, 0.3, 0.08, 0.02]):
            matrix[truth, :-1] = rng.multinomial(rng.integers(1, 200), [0.6, 0.2, 0.1, 0.1])
        matrices.append(matrix)
    return matrices


def shuffled_predictions(matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a matrix of other predictions for the same ground truth."""
    return np.stack([[*rng.permutation(row[:-1]), 0] for row in matrix])


@pytest.mark.parametrize("seed", range(3))
def test_intervals_equal_those_of_resamples_scored_one_by_one(scores: RunScores, seed: int):
    rng = np.random.default_rng(seed)
    first = random_matrices(rng, 23)
    second = [shuffled_predictions(matrix, rng) for matrix in first]
    found = compare_runs(
        with_images(scores, "one", first), with_images(scores, "two", second), 60, seed
    )
    assert (found.first, found.second, found.images, found.resamples) == ("one", "two", 23, 60)

    draws = np.random.default_rng(seed).integers(0, 23, size=(23, 60)).T
    for item in found.scores:
        differences = []
        for drawn in draws:
            one, two = (score_of([each[i] for i in drawn], item.score) for each in (first, second))
            differences.append(two - one)
        low, high = np.quantile(differences, [0.025, 0.975])
        assert (item.low, item.high) == pytest.approx((low, high)), item.score
        assert item.difference == item.second - item.first
        assert item.first == score_of(first, item.score)


def test_the_order_of_images_does_not_matter_nor_do_several_blocks(
    scores: RunScores, monkeypatch: pytest.MonkeyPatch
):
    rng = np.random.default_rng(5)
    first = random_matrices(rng, 9)
    one = with_images(scores, "one", first)
    two = with_images(scores, "two", [shuffled_predictions(matrix, rng) for matrix in first])
    ids = list(reversed(two.confusions.image_ids))
    moved = replace(two, confusions=two.confusions.ordered_as(ids))
    assert compare_runs(one, moved, 50) == compare_runs(one, two, 50)
    monkeypatch.setattr("vocprep.heads.scoring.comparison._BLOCK", 9 * 7)
    blocks = compare_runs(one, two, 2000)
    monkeypatch.undo()
    for few, many in zip(blocks.scores, compare_runs(one, two, 2000).scores, strict=True):
        assert (few.low, few.high) == pytest.approx((many.low, many.high), abs=0.03)


def test_a_run_does_not_differ_from_itself(scores: RunScores):
    for item in compare_runs(scores, scores).scores:
        assert (item.difference, item.low, item.high) == (0, 0, 0)


def test_the_interval_holds_the_true_difference_about_as_often_as_it_says(scores: RunScores):
    """Pixels of an image are right or wrong together, so that images, not pixels, must be drawn."""
    rng, held, trials = np.random.default_rng(0), 0, 150
    for _ in range(trials):
        pair = []
        easy = rng.normal(size=40)
        for share in (0.55, 0.65):  # of images that are right, by an own and a common chance
            right = easy + rng.normal(size=40) < _threshold(share)
            matrices = [np.array([[100 * r, 100 * (1 - r), 0], [0, 0, 0]]) for r in right.tolist()]
            pair.append(with_images(scores, str(share), matrices))
        (accuracy,) = (
            item for item in compare_runs(*pair, 400).scores if item.score == "pixel_accuracy"
        )
        held += accuracy.low <= 0.1 <= accuracy.high
    assert 0.89 <= held / trials <= 0.99


def _threshold(share: float) -> float:
    """Return what a sum of two standard normal numbers is below with a chance of ``share``."""
    return NormalDist(sigma=2**0.5).inv_cdf(share)


def test_classes_and_images_are_listed_by_what_the_second_run_gained(tmp_path: Path):
    val = random_records("val", [(1, 2), (2, 2), (1, 1)])
    dataset = make_dataset(tmp_path / "shards", {"val": val})
    one, two = (score_run(run_for(dataset, always_says(k)), dataset, "val", CPU) for k in (1, 2))
    classes = class_differences(one, two)
    assert {item.id for item in classes} == {item.id for item in one.classes}
    assert (classes[0].id, classes[-1].id) == (2, 1)
    assert classes[0].difference == classes[0].second > 0
    assert classes[-1].difference == -classes[-1].first < 0
    images = image_differences(one, two)
    differences = [item.difference for item in images]
    assert differences == sorted(differences, reverse=True)
    for item, record in zip(sorted(images, key=lambda item: item.image_id), val, strict=True):
        valid = record.label_map[record.label_map != 255]
        assert item.first == pytest.approx((valid == 1).mean())
        assert item.second == pytest.approx((valid == 2).mean())


def test_scores_of_other_images_are_not_compared(scores: RunScores):
    matrices = [np.array([[5, 1, 0], [0, 4, 0]]), np.array([[2, 0, 0], [0, 0, 0]])]
    one = with_images(scores, "one", matrices)
    for other in (matrices[:1], [matrices[0], matrices[1] * 2]):
        with pytest.raises(UsageError, match="one and two: expected scores on the same images"):
            compare_runs(one, with_images(scores, "two", other))
