"""Pixels near borders, against a search of every pixel's surroundings."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vocprep.heads.scoring.measures.borders import WIDTHS, border_bands

VOID = 0


def naive_bands(label_map: np.ndarray) -> list[list[int]]:
    """Look at all pairs of pixels; the distance is the larger one of rows and columns."""
    rows, columns = np.indices(label_map.shape).reshape(2, -1)
    apart = np.maximum(
        abs(rows[:, None] - rows[None]), abs(columns[:, None] - columns[None])
    ).tolist()
    true = label_map.ravel().tolist()
    known = [i for i, label in enumerate(true) if label != VOID]
    labels = []
    for i, label in enumerate(true):
        if label == VOID and known:
            nearest = min(apart[i][k] for k in known)
            labels.append(max(true[k] for k in known if apart[i][k] == nearest))
        else:
            labels.append(label)
    bands = []
    for i, label in enumerate(labels):
        others = [apart[i][k] for k, other in enumerate(labels) if other != label]
        nearest = min(others, default=99)
        bands.append(next((n for n, width in enumerate(WIDTHS) if nearest <= width), len(WIDTHS)))
    return np.reshape(bands, label_map.shape).tolist()


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
    found, expected = border_bands(label_map, VOID).tolist(), naive_bands(label_map)
    scored = label_map != VOID
    assert (np.array(found)[scored] == np.array(expected)[scored]).all()


def test_an_outline_left_void_is_a_border_and_the_end_of_the_picture_is_none():
    row = np.array([[1] * 20 + [VOID] * 5 + [2] * 20 + [VOID] * 30])
    bands = border_bands(row.repeat(3, axis=0), VOID)[1]
    # The middle pixel of the outline is as near to either class, and takes the larger id.
    assert bands[:20].tolist() == [2] * 14 + [1] * 5 + [0]
    assert bands[25:45].tolist() == [1] * 5 + [2] * 15
    assert (border_bands(np.full((9, 9), 4), VOID) == 2).all()
    assert (border_bands(np.full((9, 9), VOID), VOID) == 2).all()
