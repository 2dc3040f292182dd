"""Resizes: the bits of Pillow's fixed-point filter, in an order that no version of it changes."""

from __future__ import annotations

import hashlib

import numpy as np
import PIL
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vocprep.geometry import Geometry
from vocprep.placement import place_image
from vocprep.resampling import (
    COLUMNS,
    ROWS,
    WEIGHT_BITS,
    Filter,
    Resize,
    bilinear_weights,
    resize_with_pillow,
)

SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))
TALL = Resize(Filter(90, 40, 3, 30), Filter(30, 20, 0, 20))
"""Rows become fewer by 50, columns by 10."""


def picture(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * 1000 + width).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )


@st.composite
def resizes(draw: st.DrawFn) -> Resize:
    filters = []
    for _ in range(2):
        source, target = draw(SIZES)
        target = draw(st.sampled_from([target, 32, 64, source]))
        start = draw(st.integers(0, target - 1))
        filters.append(Filter(source, target, start, draw(st.integers(start + 1, target))))
    return Resize(*filters)


def in_integers(image: NDArray[np.uint8], resize: Resize) -> NDArray[np.uint8]:
    """The definition: sums of pixels times weights, rounded, along one axis after the other."""
    for axis in resize.order:
        along = resize.along(axis)
        first, weights = bilinear_weights(along)
        places = np.minimum(first[:, None] + np.arange(weights.shape[1]), along.source - 1)
        pixels = np.moveaxis(image, axis, 0).astype(np.int64)
        sums = (pixels[places] * weights[:, :, None, None]).sum(axis=1)
        rounded = (sums + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS
        image = np.moveaxis(rounded.astype(np.uint8), 0, axis)
    return image


@given(resizes())
@example(TALL)
def test_filters_of_pillow_are_sums_of_integers(resize: Resize) -> None:
    image = picture(resize.rows.source, resize.columns.source)
    np.testing.assert_array_equal(resize_with_pillow(image, resize), in_integers(image, resize))


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) != 13, reason="another order of its own")
@given(resizes())
@example(TALL)
def test_order_is_that_of_pillow_13(resize: Resize) -> None:
    image = picture(resize.rows.source, resize.columns.source)
    size = resize.columns.target, resize.rows.target
    whole = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    kept = whole[resize.rows.start : resize.rows.stop, resize.columns.start : resize.columns.stop]
    np.testing.assert_array_equal(resize_with_pillow(image, resize), kept)


@pytest.mark.parametrize(
    ("source", "target", "order"),
    [
        ((100, 100), (50, 50), (COLUMNS, ROWS)),
        ((100, 100), (40, 70), (COLUMNS, ROWS)),  # twice as many
        ((100, 100), (40, 71), (ROWS, COLUMNS)),
        ((100, 50), (100, 90), (COLUMNS, ROWS)),
        ((100, 50), (99, 90), (ROWS, COLUMNS)),
        ((50, 50), (90, 20), (COLUMNS, ROWS)),
    ],
)
def test_rows_come_first_where_many_more_of_them_go(
    source: tuple[int, int], target: tuple[int, int], order: tuple[int, int]
) -> None:
    assert Resize.whole(source, target).order == order


def test_order_decides_bits() -> None:
    image = picture(90, 30)
    by_rows = resize_with_pillow(image, TALL)
    pixels = Image.fromarray(image).resize((20, 90), Image.Resampling.BILINEAR)
    other = np.asarray(pixels.resize((20, 40), Image.Resampling.BILINEAR))[3:30]
    assert not np.array_equal(by_rows, other)


@pytest.mark.parametrize(
    ("geometry", "digest"),
    [("crop", "7c880345084160f4"), ("squash", "43e84efb692e7d95")],
)
def test_placed_pictures_have_the_bits_of_all_versions_of_pillow(
    geometry: str, digest: str
) -> None:
    found = hashlib.sha256()
    for height, width in ((500, 375), (375, 500), (900, 300), (301, 97), (224, 800), (40, 31)):
        found.update(place_image(picture(height, width), Geometry(geometry=geometry)).tobytes())  # type: ignore[arg-type]
    assert found.hexdigest()[:16] == digest


@given(SIZES, st.data())
def test_weights_add_up_and_lie_within_the_source(
    size: tuple[int, int], data: st.DataObject
) -> None:
    source, target = size
    start = data.draw(st.integers(0, target - 1))
    along = Filter(source, target, start, target)
    first, weights = bilinear_weights(along)
    assert weights.shape[0] == len(first) == target - start == along.kept
    assert (abs(weights.sum(axis=1, dtype=np.int64) - (1 << WEIGHT_BITS)) < weights.shape[1]).all()
    used = np.arange(weights.shape[1]) * (weights > 0)
    assert (first + used.max(axis=1) < source).all()
    assert along.needed.start == first.min()
    assert along.needed.stop <= source
