from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocprep.heads.metrics import ConfusionMatrix, PatchRecall, constant_prediction

VOID = 9


def naive_ious(truth: np.ndarray, predicted: np.ndarray, categories: int) -> list[float]:
    ious = []
    for label in range(categories):
        hits = union = 0
        for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
            if t == VOID:
                continue
            hits += t == label and p == label
            union += label in (t, p)
        ious.append(hits / union if union else 0.0)
    return ious


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_scores_equal_a_naive_count(seed: int, parts: int):
    rng = np.random.default_rng(seed)
    matrix = ConfusionMatrix(categories=6, void=VOID)
    truths, predictions = [], []
    for _ in range(parts):
        truth = rng.choice([0, 1, 2, 4, VOID], size=(3, 7)).astype(np.uint16)
        predicted = rng.choice([0, 1, 2, 3, 5, 6, VOID, 65535], size=(3, 7)).astype(np.uint16)
        matrix.add(truth, predicted)
        truths.append(truth)
        predictions.append(predicted)
    truth, predicted = np.concatenate(truths), np.concatenate(predictions)
    ious = naive_ious(truth, predicted, 6)
    assert matrix.iou().tolist() == pytest.approx(ious)
    present = sorted({int(t) for t in truth.ravel()} - {VOID})
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
    assert matrix.counts.sum() == seen.sum()


def test_void_inside_the_label_space_is_not_counted():
    matrix = ConfusionMatrix(categories=3, void=0)
    matrix.add(np.array([0, 0, 1, 2]), np.array([1, 0, 1, 0]))
    assert matrix.counts.sum() == 2
    assert matrix.pixel_accuracy() == 0.5
    assert matrix.miou_present() == 0.5
    assert matrix.miou_all([1, 2]) == 0.5


def test_minus_one_is_a_prediction_of_no_class():
    matrix = ConfusionMatrix(categories=2, void=VOID)
    matrix.add(np.array([0, 1, 1]), np.array([-1, 1, 7], dtype=np.int64))
    assert matrix.counts.tolist() == [[0, 0, 1], [0, 1, 1]]
    assert matrix.iou().tolist() == [0.0, 0.5]


def test_no_pixels_score_zero():
    matrix = ConfusionMatrix(categories=2, void=VOID)
    assert (matrix.miou_present(), matrix.miou_all([0, 1]), matrix.pixel_accuracy()) == (0, 0, 0)


def test_constant_prediction_is_what_predicting_it_counts():
    truth = np.array([0, 1, 1, 2, VOID])
    matrix = ConfusionMatrix(categories=3, void=VOID)
    matrix.add(truth, np.array([2, 2, 1, 0, 0]))
    expected = ConfusionMatrix(categories=3, void=VOID)
    expected.add(truth, np.full(5, 1))
    assert np.array_equal(constant_prediction(matrix, 1).counts, expected.counts)


def test_patch_recall_by_hand():
    recall = PatchRecall()
    slots = np.array([[3, 5, -1, -1], [1, 2, 3, 4], [-1, -1, -1, -1]])
    recall.add(slots, np.array([[5, 0, 1, 3], [4, 9, 8, 7], [0, 1, 2, 3]]))
    assert recall.patches == 2
    assert recall.score() == pytest.approx((1 + 1 / 4) / 2)
    recall.add(np.array([[6, -1, -1, -1]]), np.array([[6]]))
    assert recall.score() == pytest.approx((1 + 1 / 4 + 1) / 3)


def test_patch_recall_of_nothing_is_zero():
    assert PatchRecall().score() == 0
