"""Pixels near borders, against a search of every pixel's surroundings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocprep.heads.scoring.measures.borders import WIDTHS, border_bands

VOID = 0


def naive_bands(label_map: np.ndarray) -> np.ndarray:
    """Look at all pairs of pixels; void takes the nearest class within the rectangle of all."""
    true = label_map.ravel().astype(int)
    rows, columns = np.indices(label_map.shape).reshape(2, -1)
    known = true != VOID
    inside = np.full(true.shape, known.any())
    if known.any():
        for places in (rows, columns):
            inside &= (places >= places[known].min()) & (places <= places[known].max())
    down, right = abs(rows[:, None] - rows), abs(columns[:, None] - columns)
    square = np.where(known, down**2 + right**2, 10**6)
    nearest = square == square.min(axis=1, keepdims=True)
    labels = np.where(known, true, np.where(nearest, true, -1).max(axis=1))
    other = inside & (labels[:, None] != labels)
    apart = np.where(other, np.maximum(down, right), 99).min(axis=1)
    bands = [next((n for n, width in enumerate(WIDTHS) if near <= width), 2) for near in apart]
    return np.reshape(bands, label_map.shape)


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_bands_equal_those_of_a_search(seed: int):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 22, size=2)
    label_map = np.full((height, width), int(rng.integers(0, 3)), dtype=np.uint16)
    for _ in range(int(rng.integers(0, 5))):
        top, left = rng.integers(0, height), rng.integers(0, width)
        size = rng.integers(1, 9, size=2)
        label_map[top : top + size[0], left : left + size[1]] = rng.integers(0, 4)
    scored = label_map != VOID
    found = border_bands(label_map, VOID)
    assert found[scored].tolist() == naive_bands(label_map)[scored].tolist()
    sides = rng.integers(0, 12, size=(2, 2))
    padded = border_bands(np.pad(label_map, sides, constant_values=VOID), VOID)
    assert padded[np.pad(scored, sides)].tolist() == found[scored].tolist()


@pytest.mark.parametrize("left", [1, 2])
def test_void_below_a_border_makes_no_band_wider(left: int):
    """Neither a gap between the regions, nor what fills the last patches up."""
    picture = np.repeat([[left] * 20 + [3 - left] * 20], 12, axis=0)
    gap = np.pad(picture, ((0, 12), (0, 0)), constant_values=VOID)
    around = np.pad(picture, 16, constant_values=VOID)
    gap[20:] = picture[:4]
    expected = ([2] * 12 + [1] * 5 + [0] * 3) * 2
    expected[20:] = expected[19::-1]
    for bands in (border_bands(gap, VOID)[11], border_bands(around, VOID)[27, 16:-16]):
        assert bands.tolist() == expected


def test_an_outline_left_void_is_a_border_and_the_end_of_the_picture_is_none():
    row = np.array([[1] * 20 + [VOID] * 5 + [2] * 20 + [VOID] * 30])
    bands = border_bands(row.repeat(3, axis=0), VOID)[1]
    # The middle pixel of the outline is as near to either class, and takes the larger id.
    assert bands[:20].tolist() == [2] * 14 + [1] * 5 + [0]
    assert bands[25:45].tolist() == [1] * 5 + [2] * 15
    assert (border_bands(np.full((9, 9), 4), VOID) == 2).all()
    assert (border_bands(np.full((9, 9), VOID), VOID) == 2).all()
