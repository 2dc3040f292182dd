"""Mask quality, against counts by hand and slot by slot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vocprep.heads.scoring.measures.masks import NOT_DRAWN, MaskCounter


def by_state(drawn: Tensor, states: Tensor) -> Tensor:
    """Return the pixels of patches [N, 1024] by state and drawn slot: int64 [N, 6, 5]."""
    counts = torch.zeros(len(drawn), 6, 5, dtype=torch.int64)
    for patch, (slots, own) in enumerate(zip(drawn.tolist(), states.tolist(), strict=True)):
        for slot, state in zip(slots, own, strict=True):
            counts[patch, state, slot] += 1
    return counts


def test_mask_iou_by_hand():
    states = torch.full((1, 1024), 5, dtype=torch.uint8)
    states[0, :600], states[0, 600:900], states[0, 900:1000] = 0, 1, 4
    drawn = torch.zeros(1, 1024, dtype=torch.int64)
    drawn[0, 500:700] = 1
    counter = MaskCounter()
    counter.add(by_state(drawn, states), torch.tensor([2]))
    # Drawn as slot 0: 500 of its 600 pixels, 200 of slot 1 and all 100 of other labels.
    zero, one = 500 / (600 + 200 + 100), 100 / (300 + 200 - 100)
    assert counter.iou() == counter.iou(2) == pytest.approx((zero + one) / 2)
    assert (counter.slots(), counter.slots(2), counter.slots(3), counter.iou(3)) == (2, 2, 0, 0)


def test_mask_iou_equals_that_of_slots_one_by_one():
    rng = np.random.default_rng(0)
    counter, ious = MaskCounter(), {2: [], 3: [], 4: []}
    for _ in range(2):
        slots = rng.integers(2, 5, size=6)
        states = rng.choice(6, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1], size=(6, 1024))
        states[(states < 4) & (states >= slots[:, None])] = 4
        drawn = rng.integers(0, slots[:, None] + 1, size=states.shape)
        drawn[drawn == slots[:, None]] = NOT_DRAWN
        counter.add(
            by_state(torch.from_numpy(drawn), torch.from_numpy(states)), torch.tensor(slots)
        )
        for patch, number in enumerate(slots.tolist()):
            for slot in range(number):
                true = states[patch] == slot
                said = (drawn[patch] == slot) & (states[patch] != 5)
                ious[number].append((true & said).sum() / (true | said).sum())
    for number, values in ious.items():
        assert counter.iou(number) == pytest.approx(np.mean(values))
        assert counter.slots(number) == len(values)
    assert counter.iou() == pytest.approx(np.mean([iou for each in ious.values() for iou in each]))


def test_masks_of_nothing_are_worth_nothing():
    assert (MaskCounter().iou(), MaskCounter().slots()) == (0, 0)
