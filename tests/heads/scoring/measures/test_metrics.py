"""Confusion matrices, IoU, recall and average precision, against naive counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders.oracles import VOID, naive_average_precision, naive_ious
from hypothesis import given, settings
from hypothesis import strategies as st

from vocprep.heads.scoring.measures.counters import PixelCounter
from vocprep.heads.scoring.measures.metrics import (
    ConfusionMatrix,
    PatchRecall,
    PatchTop1,
    average_precision,
    constant_prediction,
)
from vocprep.labels.label_space import load_label_space


def count(classes: int, *pairs: tuple[np.ndarray, np.ndarray]) -> ConfusionMatrix:
    counter = PixelCounter(classes)
    for pair in pairs:
        truth, predicted = (torch.from_numpy(side).flatten() for side in pair)
        seen = truth != VOID
        counter.add(truth[seen], predicted[seen], torch.ones_like(truth[seen]))
    return counter.matrix()


@given(st.integers(0, 10**6), st.integers(1, 3))
def test_scores_equal_a_naive_count(seed: int, parts: int):
    rng = np.random.default_rng(seed)
    pairs = [
        (
            rng.choice([0, 1, 2, 4, VOID], size=(3, 7)),
            rng.choice([0, 1, 2, 3, 5, -1], size=(3, 7)),
        )
        for _ in range(parts)
    ]
    matrix = count(6, *pairs)
    truth, predicted = (np.concatenate(side).ravel() for side in zip(*pairs, strict=True))
    ious = naive_ious(truth, predicted, 6)
    assert matrix.iou().tolist() == pytest.approx(ious)
    pixels = {label: truth.tolist().count(label) for label in range(6)}
    present = [label for label in pixels if pixels[label]]
    assert matrix.miou_present() == pytest.approx(
        sum(ious[label] for label in present) / len(present) if present else 0.0
    )
    assert matrix.miou_all([1, 2, 3, 4]) == pytest.approx(
        sum(ious[label] for label in present if label) / 4
    )
    seen = truth != VOID
    assert matrix.pixel_accuracy() == pytest.approx(
        float((truth == predicted)[seen].mean()) if seen.any() else 0.0
    )
    assert matrix.frequency_weighted_iou() == pytest.approx(
        sum(pixels[label] / seen.sum() * ious[label] for label in present)
    )
    for label in present:
        own = truth == label
        found = (predicted[own] == label).mean()
        assert matrix.class_accuracy()[label] == pytest.approx(found)
    assert matrix.counts.sum() == seen.sum()


def test_frequent_classes_are_those_with_one_percent_of_the_pixels():
    truth = np.repeat([0, 1, 2, VOID], [980, 10, 9, 500])
    assert (truth != VOID).sum() == 999
    matrix = count(4, (truth, np.where(truth == 0, 0, 3)))
    # 10 of 999 pixels are 1 %, 9 are not; class 3 is predicted and never true.
    assert matrix.miou_frequent() == pytest.approx((1 + 0) / 2)
    assert matrix.miou_present() == pytest.approx(1 / 3)
    exact = count(2, (np.repeat([0, 1], [99, 1]), np.zeros(100, dtype=np.int64)))
    assert exact.miou_frequent() == pytest.approx(0.99 / 2)


def test_pixels_are_counted_together_and_in_groups():
    counter = PixelCounter(classes=3, groups=2)
    truth, predicted = torch.tensor([0, 2, 2, 2]), torch.tensor([1, -1, 2, 2])
    counter.add(truth, predicted, torch.tensor([5, 1, 3, 4]), torch.tensor([0, 1, 1, 1]))
    first, second = counter.matrices()
    assert first.counts.tolist() == [[0, 5, 0, 0], [0] * 4, [0] * 4]
    assert second.counts.tolist() == [[0] * 4, [0] * 4, [0, 0, 7, 1]]
    assert counter.matrix().counts.sum() == 13


def test_minus_one_is_a_prediction_of_no_class():
    matrix = count(2, (np.array([0, 1, 1]), np.array([-1, 1, -1])))
    assert matrix.counts.tolist() == [[0, 0, 1], [0, 1, 1]]
    assert matrix.iou().tolist() == [0.0, 0.5]


def test_no_pixels_score_zero():
    matrix = PixelCounter(classes=2).matrix()
    assert (matrix.miou_present(), matrix.miou_all([0, 1]), matrix.pixel_accuracy()) == (0, 0, 0)
    assert (matrix.miou_frequent(), matrix.frequency_weighted_iou()) == (0, 0)


def test_constant_prediction_is_what_predicting_it_counts():
    truth = np.array([0, 1, 1, 2, VOID])
    matrix = count(3, (truth, np.array([2, 2, 1, 0, 0])))
    expected = count(3, (truth, np.full(5, 1)))
    assert np.array_equal(constant_prediction(matrix, 1).counts, expected.counts)


def test_missed_pixels_are_wrong_and_charged_to_no_other_class():
    truth, predicted = np.array([0, 0, 1]), np.array([0, 1, 1])
    missed = np.array([2, 0, 3])
    whole = np.concatenate([truth, np.repeat([0, 1, 2], missed)])
    said = np.concatenate([predicted, np.full(missed.sum(), -1)])
    matrix = count(3, (truth, predicted))
    assert np.array_equal(matrix.with_missed(missed).counts, count(3, (whole, said)).counts)
    assert matrix.counts.sum() == 3


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_59_classes_are_counted_as_if_both_sides_were_mapped_by_name(seed: int):
    base, schema = load_label_space("context460"), load_label_space("context59")
    rng = np.random.default_rng(seed)
    # Ids that stand in both label spaces, ids that do not, and the base's void as a prediction.
    truth = rng.choice([0, 2, 9, 18, 31, 397, 431, 458], size=400)
    predicted = rng.choice([0, 2, 9, 18, 31, 397, 431, 454, -1], size=400)
    counter = PixelCounter(base.outputs)
    pixels = torch.ones(len(truth), dtype=torch.int64)
    counter.add(torch.from_numpy(truth), torch.from_numpy(predicted), pixels)
    found = counter.matrix().translated(
        schema.raw_to_class, void=schema.void, classes=schema.outputs
    )

    ids = {name: key for key, name in schema.names.items()}
    expected = np.zeros((60, 61), dtype=np.int64)
    for t, p in zip(truth, predicted, strict=True):
        row, column = (ids.get(base.names.get(int(label), "void")) for label in (t, p))
        if row is not None:
            expected[row, 60 if column is None else column] += 1
    assert np.array_equal(found.counts, expected)
    assert found.counts.sum() < (truth != 0).sum()


def test_csv_holds_every_count():
    matrix = ConfusionMatrix(np.array([[5, 0, 2], [1, 0, 0]]))
    assert matrix.to_csv().splitlines() == ["truth,predicted,pixels", "0,0,5", "0,,2", "1,0,1"]


def test_patch_recall_by_hand():
    recall = PatchRecall()
    slots = np.array([[3, 5, -1, -1], [1, 2, 3, 4], [-1, -1, -1, -1]])
    recall.add(slots, np.array([[5, 0, 1, 3], [4, 9, 8, 7], [0, 1, 2, 3]]))
    assert recall.patches == 2
    assert recall.score() == pytest.approx((1 + 1 / 4) / 2)
    recall.add(np.array([[6, -1, -1, -1]]), np.array([[6]]))
    assert recall.score() == pytest.approx((1 + 1 / 4 + 1) / 3)


def test_patch_top1_by_hand():
    top1 = PatchTop1()
    slots = np.array([[3, 5, -1, -1], [1, 2, 3, 4], [-1, -1, -1, -1], [7, -1, -1, -1]])
    top1.add(slots, np.array([5, 1, -1, 7]))
    assert (top1.hits, top1.patches) == (2, 3)
    assert top1.score() == pytest.approx(2 / 3)


def test_patch_scores_of_nothing_are_zero():
    assert PatchRecall().score() == 0
    assert PatchTop1().score() == 0


@given(st.lists(st.tuples(st.integers(0, 7), st.booleans()), min_size=1, max_size=40))
def test_average_precision_equals_a_walk_down_the_thresholds(ranked: list[tuple[int, bool]]):
    positives, negatives = np.zeros((2, 1, 8), dtype=np.int64)
    for score, held in ranked:
        (positives if held else negatives)[0, score] += 1
    scores, held = map(list, zip(*ranked, strict=True))
    expected = naive_average_precision(scores, held) if any(held) else 0.0
    assert average_precision(positives, negatives)[0] == pytest.approx(expected)
