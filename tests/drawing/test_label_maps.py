"""Label maps, errors and values as pixels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vocprep.drawing.label_maps import (
    ERROR_COLOUR,
    HATCH_COLOUR,
    RIGHT_COLOUR,
    paint_confidence,
    paint_errors,
    paint_label_map,
    paint_values,
)
from vocprep.drawing.palette import VOID_COLOUR, ClassStyle

VOID = 255
STYLE = ClassStyle.of({key: str(key) for key in range(12)}, VOID, str)


def halves(left: int, right: int, side: int = 64) -> NDArray[np.uint16]:
    label_map = np.full((side, side), left, dtype=np.uint16)
    label_map[:, side // 2 :] = right
    return label_map


def grey(side: int, level: int = 128) -> NDArray[np.uint8]:
    return np.full((side, side, 3), level, dtype=np.uint8)


def test_plain_label_maps_have_the_colours_of_the_legend() -> None:
    painted = paint_label_map(halves(3, 7), STYLE)
    assert tuple(painted[32, 5].tolist()) == STYLE.colour(3)
    assert tuple(painted[32, 60].tolist()) == STYLE.colour(7)


def test_every_class_is_seen_over_an_image_the_first_too() -> None:
    image = grey(64)
    painted = paint_label_map(halves(0, 5), STYLE, image)
    assert not (painted == image).all(axis=-1).any()
    towards = np.array(STYLE.colour(0), dtype=np.int64) - 128
    moved = painted[32, 5].astype(np.int64) - 128
    assert (np.sign(moved[towards != 0]) == np.sign(towards[towards != 0])).all()
    # What the image shows stays visible below.
    lighter = paint_label_map(halves(0, 5), STYLE, grey(64, 200))
    assert (lighter[32, 5] > painted[32, 5]).all()


def test_a_contour_of_a_dark_and_a_light_line_separates_classes() -> None:
    painted = paint_label_map(halves(3, 4), STYLE).sum(axis=-1, dtype=np.int64)
    row = painted[10]
    changes = np.flatnonzero(np.diff(row)) + 1
    assert changes.tolist() == [31, 32, 33]
    assert abs(row[31] - row[32]) > 200
    assert min(row[31:33]) < min(row[30], row[33])
    assert max(row[31:33]) > max(row[30], row[33])


def test_one_pixel_of_a_class_is_still_seen() -> None:
    label_map = np.zeros((32, 32), dtype=np.uint16)
    label_map[10, 10] = 5
    painted = paint_label_map(label_map, STYLE)
    assert (painted[10, 10] != painted[10, 9]).any()
    assert (painted[10, 10] != painted[20, 20]).any()


def test_contours_of_noise_do_not_cover_it() -> None:
    label_map = np.random.default_rng(0).integers(0, 6, (96, 96)).astype(np.uint16)
    np.testing.assert_array_equal(paint_label_map(label_map, STYLE), STYLE.paint(label_map))
    squares = np.kron(label_map[:12, :12], np.ones((8, 8), dtype=np.uint16))
    painted = paint_label_map(squares, STYLE)
    assert 0.2 < (painted != STYLE.paint(squares)).any(axis=-1).mean() < 0.5


@pytest.mark.parametrize("image", [None, grey(64)], ids=["plain", "image"])
def test_void_is_hatched_and_has_no_contour(image: NDArray[np.uint8] | None) -> None:
    painted = paint_label_map(halves(3, VOID), STYLE, image)
    stripes = (painted == HATCH_COLOUR).all(axis=-1)
    assert not stripes[:, :32].any()
    assert 0.2 < stripes[:, 32:].mean() < 0.5
    np.testing.assert_array_equal(stripes[1:-1, 34:-2], stripes[2:, 33:-3])  # at 45°
    assert (painted[:, :32] == painted[0, 0]).all()
    if image is None:
        assert (painted[:, 32:][~stripes[:, 32:]] == VOID_COLOUR).all()


def test_errors_are_red_right_pixels_pale_and_void_hatched() -> None:
    truth, predicted = np.full((64, 64), 3, dtype=np.uint16), np.full((64, 64), 3, dtype=np.uint16)
    predicted[:20] = 4
    truth[40:] = VOID  # which no prediction is
    painted = paint_errors(truth, predicted, STYLE)
    assert (painted[:20] == ERROR_COLOUR).all()
    assert (painted[20:40] == RIGHT_COLOUR).all()
    stripes = (painted[40:] == HATCH_COLOUR).all(axis=-1)
    assert stripes.any()
    assert (painted[40:][~stripes] == RIGHT_COLOUR).all()
    over = paint_errors(truth, predicted, STYLE, grey(64, 100)).astype(np.int64)
    assert (over[:20, :, 0] - over[:20, :, 1] > 60).all()
    assert (np.ptp(over[20:40], axis=-1) < 30).all()


def test_true_contours_are_in_errors() -> None:
    truth = halves(3, 4)
    painted = paint_errors(truth, truth, STYLE)
    apart = (painted != RIGHT_COLOUR).any(axis=-1)
    assert np.flatnonzero(apart.all(axis=0)).tolist() == [31, 32]


def test_values_go_from_dark_to_light_within_their_limits() -> None:
    values = np.linspace(-1, 2, 31, dtype=np.float32)[np.newaxis]
    painted = paint_values(values, 0.0, 1.0)[0].astype(np.int64)
    lightness = painted @ [0.2126, 0.7152, 0.0722]
    assert (painted[:11] == painted[10]).all()
    assert (painted[20:] == painted[20]).all()
    assert (np.diff(lightness[10:21]) > 0).all()
    np.testing.assert_array_equal(
        paint_confidence(values.clip(0, 1)), paint_values(values, 0.0, 1.0)
    )


def test_values_without_a_range_or_a_number_draw() -> None:
    values = np.array([[np.nan, 1.0, np.inf, -np.inf]], dtype=np.float32)
    assert len({tuple(pixel) for pixel in paint_values(values, 1.0, 1.0)[0].tolist()}) == 1
    assert paint_values(values, 0.0, 1.0).shape == (1, 4, 3)


@pytest.mark.parametrize("shape", [(1, 1), (32, 32), (1, 700), (1500, 40)])
def test_pictures_of_any_size_draw_and_the_arguments_stay(shape: tuple[int, int]) -> None:
    label_map = np.random.default_rng(0).integers(0, 12, shape).astype(np.uint16)
    label_map[0, 0] = VOID
    image = np.full((*shape, 3), 77, dtype=np.uint8)
    before = label_map.copy(), image.copy()
    for painted in (
        paint_label_map(label_map, STYLE),
        paint_label_map(label_map, STYLE, image),
        paint_errors(label_map, label_map[::-1], STYLE, image),
    ):
        assert painted.shape == (*shape, 3)
        assert painted.dtype == np.uint8
    np.testing.assert_array_equal(label_map, before[0])
    np.testing.assert_array_equal(image, before[1])
