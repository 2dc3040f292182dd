"""Counters of mAP, image labels and mask quality, against counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from builders.oracles import naive_average_precision
from hypothesis import given
from hypothesis import strategies as st

from vocprep.heads.scoring.measures.counters import MaskCounter, MaskQuality, ScoreHistogram


@given(st.integers(0, 10**6))
def test_map_is_the_mean_of_the_classes_that_patches_hold(seed: int):
    rng = np.random.default_rng(seed)
    categories, patches = 6, 24
    logits = rng.normal(scale=3, size=(patches, categories))
    slots = np.full((patches, 4), -1)
    for row in slots:
        held = rng.permutation(5)[: rng.integers(0, 4)]  # never class 5
        row[: len(held)] = held
    histogram = ScoreHistogram(categories)
    for part in (slice(0, 10), slice(10, patches)):
        histogram.add(
            torch.from_numpy(logits[part]).float().view(2, -1, categories),
            torch.from_numpy(slots[part]).view(2, -1, 4),
        )

    counted = [p for p in range(patches) if slots[p, 0] >= 0]
    scores = []
    for label in range(categories):
        odds = []
        for p in counted:
            others = math.log(sum(math.exp(x) for k, x in enumerate(logits[p]) if k != label))
            odds.append(round((logits[p, label] - others) * 128))
        held = [label in slots[p] for p in counted]
        if any(held):
            scores.append(naive_average_precision(odds, held))
    # Two scores within rounding of a step's border may be told apart otherwise.
    assert histogram.mean_average_precision() == pytest.approx(
        sum(scores) / len(scores) if scores else 0.0, abs=0.02
    )


def test_a_perfect_ranking_scores_one_and_ties_do_not_help():
    slots = torch.tensor([[0, -1, -1, -1], [0, 1, -1, -1], [1, -1, -1, -1], [-1, -1, -1, -1]])
    right = torch.tensor([[40.0, -40], [1, 1], [-40, 40], [9, -9]])
    histogram = ScoreHistogram(2)
    histogram.add(right, slots)
    assert histogram.mean_average_precision() == 1
    constant = ScoreHistogram(2)
    constant.add(torch.ones(4, 2), slots)
    assert constant.mean_average_precision() == pytest.approx(2 / 3)
    assert ScoreHistogram(2).mean_average_precision() == 0


def test_yes_or_no_heads_are_ranked_by_each_label_alone():
    """The second patch holds both labels: a softmax would make them rivals, a sigmoid does not."""
    slots = torch.tensor([[1, -1, -1, -1], [0, 1, -1, -1], [1, -1, -1, -1]])
    logits = torch.tensor([[-1.0, -2.0], [3.0, 3.0], [1.0, 1.5]])
    scores = {}
    for rule in ("soft_cross_entropy", "multi_hot"):
        histogram = ScoreHistogram(2, class_loss=rule)
        histogram.add(logits, slots)
        scores[rule] = histogram.mean_average_precision()
    assert scores["multi_hot"] == 1
    assert scores["soft_cross_entropy"] < 1


def test_mask_quality_by_hand():
    states = torch.full((1, 3, 1024), 5, dtype=torch.uint8)
    states[0, 0, :600], states[0, 0, 600:900], states[0, 0, 900:1000] = 0, 1, 4
    states[0, 1] = 0
    present = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]]).bool()
    drawn = torch.zeros(1, 3, 1024, dtype=torch.int64)
    drawn[0, 0, 500:700] = 1
    counter = MaskCounter()
    counter.add(drawn, states, present)
    quality = counter.quality()
    # Drawn as slot 0: 500 of its 600 pixels, 200 of slot 1 and all 100 of other labels.
    zero, one = 500 / (600 + 200 + 100), 100 / (300 + 200 - 100)
    assert quality.slots == 2
    assert quality.iou == pytest.approx((zero + one) / 2)
    assert quality.iou_of_largest == pytest.approx(600 / 1000 / 2)
    nothing = MaskQuality(iou=0, iou_of_largest=0, slots=0)
    assert counter.quality_by_slots() == {2: quality, 3: nothing, 4: nothing}


def test_mask_quality_of_all_is_the_mean_of_those_by_slots():
    rng = np.random.default_rng(0)
    counter = MaskCounter()
    for _ in range(2):
        states = rng.choice(6, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1], size=(2, 6, 1024))
        slots = rng.integers(0, 5, size=(2, 6, 1))
        states[(states < 4) & (states >= slots)] = 4
        drawn = rng.integers(0, np.maximum(slots, 1), size=states.shape)
        present = np.arange(4) < slots
        counter.add(torch.from_numpy(drawn), torch.from_numpy(states), torch.from_numpy(present))
    whole, parts = counter.quality(), counter.quality_by_slots().values()
    assert whole.slots == sum(part.slots for part in parts)
    for name in ("iou", "iou_of_largest"):
        total = sum(getattr(part, name) * part.slots for part in parts)
        assert getattr(whole, name) == pytest.approx(total / whole.slots)


def test_mask_quality_of_nothing_is_zero():
    quality = MaskCounter().quality()
    assert (quality.iou, quality.iou_of_largest, quality.slots) == (0, 0, 0)
