"""Rows of legends: order, names, colours and shares that sum to 100."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from vocprep.drawing.legend import MOST_ROWS, legend_rows, rounded_shares
from vocprep.drawing.palette import ClassStyle

VOID = 255
STYLE = ClassStyle.of({key: f"class {key}" for key in range(200)}, VOID, lambda key: f"name {key}")


def label_map_of(**areas: int) -> NDArray[np.uint16]:
    """Return a label map [1, N] with pixels per class id: ``_3=10`` for ten of class 3."""
    ids = [int(key[1:]) for key in areas]
    return np.repeat(np.array(ids, dtype=np.uint16), list(areas.values()))[np.newaxis]


def test_the_largest_class_is_first_ties_by_id_and_void_is_last() -> None:
    rows = legend_rows(label_map_of(_7=20, _255=50, _9=30, _2=20), STYLE)
    assert [row.id for row in rows] == [9, 2, 7, VOID]
    assert [row.name for row in rows] == ["name 9", "name 2", "name 7", "name 255"]
    assert [row.is_void for row in rows] == [False, False, False, True]
    assert rows[0].colour == STYLE.colour(9)


def test_classes_that_are_not_listed_are_one_row() -> None:
    areas = {f"_{key}": 100 - key for key in range(MOST_ROWS + 2)}
    rows = legend_rows(label_map_of(**areas, _255=5), STYLE)
    assert len(rows) == MOST_ROWS + 2
    other = rows[-2]
    assert (other.id, other.name) == (None, "2 other classes")
    assert other.pixels == ((100 - MOST_ROWS) + (100 - MOST_ROWS - 1),)
    assert rows[-1].is_void


def test_a_single_class_more_is_listed_itself() -> None:
    rows = legend_rows(label_map_of(_1=5, _2=4, _3=3), STYLE, most=2)
    assert [row.id for row in rows] == [1, 2, 3]
    assert [row.id for row in legend_rows(label_map_of(_1=5, _2=4, _3=3, _4=1), STYLE, most=2)] == [
        1,
        2,
        None,
    ]


@pytest.mark.parametrize("seed", range(20))
def test_shares_of_every_label_map_sum_to_100(seed: int) -> None:
    generator = np.random.default_rng(seed)
    maps = [
        generator.integers(0, 40, (17, 13)).astype(np.uint16),
        np.where(generator.random((9, 31)) < 0.3, VOID, 3).astype(np.uint16),
    ]
    rows = legend_rows(maps, STYLE)
    for column, label_map in enumerate(maps):
        assert sum(round(10 * row.percents[column]) for row in rows) == 1000
        assert sum(row.pixels[column] for row in rows) == label_map.size
    for row in rows:
        for pixels, percent, label_map in zip(row.pixels, row.percents, maps, strict=True):
            assert abs(percent - 100 * pixels / label_map.size) < 0.1


def test_rounded_shares_are_those_of_exact_fractions() -> None:
    counts = [123_456_789, 5, 987_654_321, 0, 7]
    exact = [Fraction(1000 * count, sum(counts)) for count in counts]
    shares = rounded_shares(counts)
    assert sum(Fraction(str(share)) for share in shares) == 100
    assert all(abs(Fraction(str(s)) * 10 - e) < 1 for s, e in zip(shares, exact, strict=True))
    assert rounded_shares([0, 0]) == (0.0, 0.0)


def test_shares_as_text_tell_nothing_from_little() -> None:
    rows = legend_rows([label_map_of(_1=99_999, _2=1), label_map_of(_1=4)], STYLE)
    assert [row.shares for row in rows] == [("100.0", "100.0"), ("<0.1", "-")]


def test_a_label_map_of_void_alone_has_one_row() -> None:
    (row,) = legend_rows(np.full((4, 4), VOID, dtype=np.uint16), STYLE)
    assert (row.id, row.percents, row.is_void) == (VOID, (100.0,), True)
