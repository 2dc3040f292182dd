"""Colours of classes: distinct for all eyes, the same every time, or those that are given."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from vocprep.drawing.palette import (
    BACKGROUND_COLOUR,
    VOID_COLOUR,
    ClassStyle,
    oklab,
    spread_colours,
)
from vocprep.labels.label_space import load_label_space


def test_460_colours_are_different_and_the_first_do_not_depend_on_how_many_there_are() -> None:
    colours = spread_colours(460)
    assert len({tuple(colour) for colour in colours.tolist()}) == 460
    np.testing.assert_array_equal(spread_colours(21), colours[:21])


def test_no_colour_is_grey_black_or_white() -> None:
    for colour in spread_colours(460).tolist():
        _, lightness, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in colour))
        assert saturation > 0.1, colour
        assert 0.15 < lightness < 0.95, colour


@pytest.mark.parametrize("count", [8, 21])
def test_colours_of_few_classes_are_far_apart(count: int) -> None:
    lab = oklab(spread_colours(count))
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1)[~np.eye(count, dtype=np.bool_)]
    # A just noticeable difference is about 0.02.
    assert distances.min() > {8: 0.18, 21: 0.08}[count]


@pytest.mark.parametrize("share_of_red", [0.11238, 0.29275], ids=["protan", "deutan"])
def test_first_colours_differ_for_eyes_without_red_or_green_cones(share_of_red: float) -> None:
    """As Viénot, Brettel and Mollon (1999) simulate it, simplified: red and green become one."""
    light = (spread_colours(8) / 255) ** 2.2
    light[:, :2] = share_of_red * light[:, :1] + (1 - share_of_red) * light[:, 1:2]
    lab = oklab((255 * light ** (1 / 2.2)).round().astype(np.uint8))
    distances = np.linalg.norm(lab[:, None] - lab, axis=-1)[~np.eye(8, dtype=np.bool_)]
    assert distances.min() > 0.06


def test_background_is_quiet_and_visible() -> None:
    style = load_label_space("voc21").style
    assert style.colour(0) == BACKGROUND_COLOUR != VOID_COLOUR
    assert style.colour(15) == tuple(spread_colours(21)[15].tolist())
    assert style.colour(255) == VOID_COLOUR


def test_given_colours_are_taken() -> None:
    names = {0: "background", 1: "cat", 2: "dog"}
    style = ClassStyle.of(names, 255, str, given={0: (1, 2, 3), 2: (4, 5, 6)})
    assert [style.colour(key) for key in (0, 2)] == [(1, 2, 3), (4, 5, 6)]
    label_map = np.array([[0, 2, 255]], dtype=np.uint16)
    assert style.paint(label_map).tolist() == [[[1, 2, 3], [4, 5, 6], list(VOID_COLOUR)]]


def test_other_colours_stay_away_from_the_given_ones() -> None:
    names = {key: str(key) for key in range(8)}
    first = ClassStyle.of(names, 255, str).colour(0)
    style = ClassStyle.of(names, 255, str, given={7: first})
    assert style.colour(7) == first
    lab = oklab(style.colours)
    assert np.linalg.norm(lab[:7] - lab[7], axis=-1).min() > 0.15


def test_given_colours_of_large_ids_are_taken() -> None:
    style = ClassStyle.of({0: "a", 30_000: "b"}, 65535, str, given={30_000: (1, 2, 3)})
    assert style.colour(30_000) == (1, 2, 3)
    assert style.paint(np.array([[30_000]], dtype=np.uint16)).tolist() == [[[1, 2, 3]]]


def test_ids_beyond_the_colours_repeat_them() -> None:
    style = ClassStyle.of({0: "a", 1: "b"}, 65535, str)
    assert style.colour(7) == style.colour(1)
    assert style.paint(np.array([[7]], dtype=np.uint16)).tolist() == [[list(style.colour(1))]]


def test_painting_leaves_the_style_as_it_is() -> None:
    style = ClassStyle.of({0: "a", 1: "b"}, 1, str)
    before = style.colours.copy()
    style.paint(np.ones((2, 2), dtype=np.uint16))[:] = 0
    np.testing.assert_array_equal(style.colours, before)


def test_a_style_without_classes_still_draws() -> None:
    style = ClassStyle.of({}, 0, str)
    assert style.paint(np.array([[0, 7]], dtype=np.uint16)).shape == (1, 2, 3)
