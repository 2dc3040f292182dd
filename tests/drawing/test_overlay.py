"""Overlays of labels over an image, their palette and their legend."""

from __future__ import annotations

import numpy as np
import pytest
from builders.images import opened

from vocprep.drawing.overlay import LEGEND_ROWS, overlay, palette, png_bytes

VOC_COLOURS = [
    (0, 0, 0),
    (128, 0, 0),
    (0, 128, 0),
    (128, 128, 0),
    (0, 0, 128),
    (128, 0, 128),
    (0, 128, 128),
    (128, 128, 128),
    (64, 0, 0),
    (192, 0, 0),
    (64, 128, 0),
    (192, 128, 0),
    (64, 0, 128),
    (192, 0, 128),
    (64, 128, 128),
    (192, 128, 128),
    (0, 64, 0),
    (128, 64, 0),
    (0, 192, 0),
    (128, 192, 0),
    (0, 64, 128),
]
"""Background to tvmonitor, as the VOC development kit prints them."""


def test_palette_begins_with_the_colours_of_voc() -> None:
    assert [tuple(colour) for colour in palette()[:21].tolist()] == VOC_COLOURS
    assert tuple(palette()[255].tolist()) == (224, 224, 192)


def test_palette_of_voc_has_256_different_colours() -> None:
    assert palette().shape == (256, 3)
    assert len({tuple(colour) for colour in palette().tolist()}) == 256


def test_larger_palette_begins_with_the_smaller() -> None:
    large = palette(460)
    assert large.shape == (460, 3)
    np.testing.assert_array_equal(large[:256], palette())


def name_of(label: int) -> str:
    return f"class {label}"


def test_overlay_is_the_picture_the_mixture_and_a_legend() -> None:
    image = np.full((96, 64, 3), 200, dtype=np.uint8)
    label_map = np.zeros((96, 64), dtype=np.uint16)
    label_map[:48] = 15
    sheet = overlay(image, label_map, name_of, unpainted=[0], opacity=0.5)
    assert sheet.mode == "RGB"
    assert sheet.height >= 96
    assert sheet.width > 2 * 64
    assert sheet.getpixel((10, 10)) == (200, 200, 200)
    assert sheet.getpixel((64 + 10, 10)) == (196, 164, 164)
    assert sheet.getpixel((64 + 10, 90)) == (200, 200, 200)
    legend = np.asarray(sheet)[:, 128:]
    assert (legend == VOC_COLOURS[15]).all(axis=-1).any()
    assert opened(png_bytes(sheet)).size == sheet.size
    assert overlay(image, label_map, name_of, opacity=0.5).getpixel((64 + 10, 90)) == (100,) * 3


@pytest.mark.parametrize("opacity", [0.0, 1.0])
def test_opacity_goes_from_the_picture_to_the_labels(opacity: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    label_map = np.full((32, 32), 459, dtype=np.uint16)
    mixed = np.asarray(overlay(image, label_map, name_of, opacity=opacity))[:32, 32:64]
    np.testing.assert_array_equal(mixed, palette(460)[label_map] if opacity else image)


def test_legend_lists_the_largest_labels_and_says_how_many_more() -> None:
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    named: list[int] = []

    def name(label: int) -> str:
        named.append(label)
        return str(label)

    label_map = np.repeat(np.arange(32, dtype=np.uint16), 32).reshape(32, 32)
    label_map[:3] = 300
    sheet = overlay(image, label_map, name)
    assert named[0] == 300
    assert len(named) == LEGEND_ROWS
    few = overlay(image, np.zeros((32, 32), dtype=np.uint16), name)
    assert sheet.height > few.height >= 32


def test_overlay_of_void_alone_draws() -> None:
    void = np.full((32, 32), 65535, dtype=np.uint16)
    assert overlay(np.zeros((32, 32, 3), dtype=np.uint8), void, name_of).width > 64
