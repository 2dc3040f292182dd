"""The counter of mAP, against counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from builders.oracles import naive_average_precision
from hypothesis import given
from hypothesis import strategies as st

from vocprep.heads.scoring.measures.counters import ScoreHistogram


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
