"""Oracles: predictions with the true labels or the true masks in place of predicted ones."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vocprep.heads.scoring.measures.masks import NOT_DRAWN
from vocprep.heads.scoring.measures.oracles import (
    draw_slots,
    label_slots,
    match_channels,
    matched_masks,
)


def random_patch(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Masks [1, 4, 1024], states [1, 1024] and slots present [1, 4] of one patch."""
    rng = np.random.default_rng(seed)
    slots = int(rng.integers(1, 5))
    states = rng.choice([*range(slots), 4, 5], size=1024).astype(np.uint8)
    present = np.arange(4) < slots
    masks = rng.random((1024, 4), dtype=np.float32) + (states[:, None] == rng.permutation(4)) / 2
    tensors = (masks.T.astype(np.float32) / 2, states, present)
    masks_t, states_t, present_t = (torch.from_numpy(array)[None] for array in tensors)
    return masks_t, states_t, present_t


@given(st.integers(0, 10**6))
def test_channels_go_to_slots_in_the_best_of_all_ways(seed: int):
    masks, states, present = random_patch(seed)
    (channels,) = match_channels(masks, states).tolist()
    assert sorted(channels) == [0, 1, 2, 3]

    def worth(order: tuple[int, ...]) -> float:
        return sum(
            float(masks[0, order[slot], states[0] == slot].double().sum())
            for slot in range(int(present.sum()))
        )

    best = max(worth(order) for order in permutations(range(4)))
    assert worth(tuple(channels)) == pytest.approx(best, rel=1e-6)


@given(st.integers(0, 10**6))
def test_the_strongest_of_the_slots_present_is_drawn(seed: int):
    masks, states, present = random_patch(seed)
    ordered = matched_masks(masks, states)
    drawn = draw_slots(ordered[:, : int(present.sum())])[0]
    for pixel in range(0, 1024, 37):
        strengths = [float(ordered[0, s, pixel]) for s in range(int(present.sum()))]
        assert int(drawn[pixel]) == strengths.index(max(strengths))


def test_masks_in_any_order_of_channels_are_drawn_right():
    states = torch.arange(1024, dtype=torch.uint8).view(1, -1) % 4
    for order in permutations(range(4)):
        masks = torch.full((1, 4, 1024), 0.1)
        for slot, channel in enumerate(order):
            masks[0, channel, states[0] == slot] = 0.9
        assert match_channels(masks, states)[0].tolist() == list(order)
        found = draw_slots(matched_masks(masks, states))
        assert torch.equal(found, states)


def test_a_slot_without_a_mask_is_not_drawn():
    masks = torch.zeros(1, 4, 1024)
    masks[0, 2, :10], masks[0, 3] = 0.1, 0.9
    drawn = draw_slots(masks[:, :3])[0]
    assert drawn[:10].tolist() == [2] * 10
    assert (drawn[10:] == NOT_DRAWN).all()


@pytest.mark.parametrize(
    ("predicted", "slots", "expected"),
    [
        ([7, 8, 9, 6], [9, 8, -1, -1], [9, 8, -1, -1]),
        ([7, 8, 9, 6], [1, 8, 2, -1], [7, 8, 9, -1]),
        ([7, 8, 9, 6], [1, 2, 3, 4], [7, 8, 9, 6]),
        ([1, 0], [0, 1, -1, -1], [0, 1, -1, -1]),
        ([1, 0], [0, -1, -1, -1], [0, -1, -1, -1]),
        ([7, 8, 9, 6], [-1, -1, -1, -1], [-1, -1, -1, -1]),
    ],
)
def test_slots_take_their_own_label_else_the_strongest_that_is_left(
    predicted: list[int], slots: list[int], expected: list[int]
):
    found = label_slots(torch.tensor([[predicted]]), torch.tensor([[slots]]))
    assert found.tolist() == [[expected]]
