"""Resizing pictures together on a device: the bits of each alone in Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vocprep.features.on_device import resizing
from vocprep.features.on_device.resizing import resize_together
from vocprep.resampling import COLUMNS, ROWS, Filter, Resize, resize_with_pillow

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SIDES = st.integers(1, 80)


def picture(resize: Resize) -> NDArray[np.uint8]:
    shape = (resize.rows.source, resize.columns.source, 3)
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@st.composite
def together(draw: st.DrawFn) -> list[Resize]:
    """Resizes of pictures of any sizes that keep as many rows and columns."""
    kept = draw(SIDES), draw(SIDES)
    made = []
    for _ in range(draw(st.integers(1, 5))):
        filters = []
        for count in kept:
            target = draw(st.integers(count, 120))
            start = draw(st.integers(0, target - count))
            filters.append(Filter(draw(SIDES), target, start, start + count))
        made.append(Resize(*filters))
    return made


def needed_pixels(resize: Resize) -> NDArray[np.uint8]:
    return picture(resize)[resize.needed].reshape(-1, 3)


def check(resizes: list[Resize], device: str) -> None:
    pixels = np.concatenate([needed_pixels(resize) for resize in resizes])
    found = resize_together(torch.from_numpy(pixels).to(device), resizes)
    assert found.dtype == torch.uint8
    for resize, image in zip(resizes, found.cpu().numpy(), strict=True):
        np.testing.assert_array_equal(image, resize_with_pillow(picture(resize), resize))


@pytest.mark.parametrize("device", DEVICES)
@given(resizes=together())
@settings(deadline=None)
def test_pictures_of_any_sizes_have_the_bits_of_pillow(device: str, resizes: list[Resize]) -> None:
    check(resizes, device)


@pytest.mark.parametrize("device", DEVICES)
def test_pictures_beyond_what_is_computed_at_once(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resizing, "TOGETHER", 2000)
    wide, tall = (Resize.whole(size, (30, 20)) for size in ((40, 60), (90, 21)))
    assert (wide.order[0], tall.order[0]) == (COLUMNS, ROWS)
    check([wide, tall, wide, tall, tall], device)
