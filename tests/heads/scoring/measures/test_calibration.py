"""Calibration, against a loop over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vocprep.heads.model.tfdet import pixel_confidence, to_label_map, to_segment
from vocprep.heads.scoring.measures.calibration import BINS, STEPS, CalibrationCounter
from vocprep.heads.scoring.measures.pixel_counts import NOT_SCORED


@given(st.integers(0, 10**6))
def test_bins_and_error_equal_a_loop_over_pixels(seed: int):
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, STEPS, size=(2, 3, 40)) / STEPS
    confidence[0, 0, :4] = [0, 1, 0.5, 0.25]  # the borders of bins are their own
    right, valid = rng.random(confidence.shape) < 0.4, rng.random(confidence.shape) < 0.8
    counter = CalibrationCounter()
    for part in range(2):
        outcome = np.where(valid, right, NOT_SCORED)[part].astype(np.uint8)
        counter.add(torch.from_numpy(confidence[part]), torch.from_numpy(outcome))
    found = counter.calibration()

    pixels = [
        (float(c), bool(r))
        for c, r, v in zip(confidence.ravel(), right.ravel(), valid.ravel(), strict=True)
        if v
    ]
    error = 0.0
    assert len(found.bins) == BINS
    for number, item in enumerate(found.bins):
        assert (item.low, item.high) == (number / BINS, (number + 1) / BINS)
        last = number == BINS - 1
        own = [(c, r) for c, r in pixels if item.low <= c < item.high or (last and c == 1)]
        assert item.pixels == len(own)
        if own:
            mean, share = sum(c for c, _ in own) / len(own), sum(r for _, r in own) / len(own)
            assert item.confidence == pytest.approx(mean, abs=1e-6)
            assert item.accuracy == pytest.approx(share)
            error += len(own) * abs(share - mean)
    assert found.expected_error == pytest.approx(error / len(pixels), abs=1e-6)
    assert found.confidence == pytest.approx(sum(c for c, _ in pixels) / len(pixels), abs=1e-6)
    assert found.accuracy == pytest.approx(sum(r for _, r in pixels) / len(pixels))


def test_batches_in_another_order_give_the_same_bits():
    rng = np.random.default_rng(1)
    parts = [
        (torch.from_numpy(rng.random(999)), torch.from_numpy(rng.integers(0, 2, 999)))
        for _ in range(6)
    ]
    one, other = CalibrationCounter(), CalibrationCounter()
    for part in parts:
        one.add(*part)
    for part in reversed(parts):
        other.add(*part)
    assert one.calibration() == other.calibration()


def test_heads_that_are_as_right_as_they_are_confident_have_no_error():
    counter = CalibrationCounter()
    counter.add(torch.full((1000,), 0.75), torch.arange(1000) < 750)
    assert counter.calibration().expected_error == pytest.approx(0, abs=1e-6)


def test_no_pixel_has_no_error():
    found = CalibrationCounter().calibration()
    assert (found.expected_error, found.confidence, found.accuracy) == (0, 0, 0)
    assert sum(item.pixels for item in found.bins) == 0


@pytest.mark.parametrize("classes", [2, 6])
def test_confidence_is_that_of_the_mask_that_is_drawn(classes: int):
    """With fewer classes than slots the last masks are of no class."""
    generator = torch.Generator().manual_seed(0)
    class_logits = torch.randn(3, classes, generator=generator)
    masks = torch.randn(3, 1024, 4, generator=generator)
    found = pixel_confidence(class_logits, masks)
    dense = to_segment(class_logits, masks.sigmoid())
    drawn = to_label_map(class_logits, masks)
    assert torch.allclose(found, dense.gather(-1, drawn.unsqueeze(-1)).squeeze(-1))
