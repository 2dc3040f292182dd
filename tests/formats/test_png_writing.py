"""Grey PNGs as vocprep writes them: any decoder gets the very pixels, and bytes do not vary."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from builders.png import END, SIGNATURE
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from vocprep.formats.png import check_pixel_data, chunk_body, read_png
from vocprep.formats.png_writing import encode_grey_png
from vocprep.labels.png import decode_png

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def regions(height: int, width: int, dtype: type[np.unsignedinteger]) -> Pixels:
    """Pixels [height, width] of some large regions and a few odd ones, up to the largest value."""
    rows, columns = np.indices((height, width))
    largest = np.iinfo(dtype).max
    pixels = ((rows // 97) * 7 + columns // 61).astype(dtype)
    pixels[::53, ::31] = largest
    return pixels


def assert_decodes(pixels: Pixels) -> None:
    data = encode_grey_png(pixels)
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert picture.mode == ("L" if pixels.itemsize == 1 else "I;16")
        np.testing.assert_array_equal(np.asarray(picture), pixels)
    np.testing.assert_array_equal(decode_png(data, "x"), pixels)
    png = read_png(data, lambda _: False)
    assert png.data == data
    check_pixel_data(png)


@given(st.sampled_from([np.uint8, np.uint16]).flatmap(lambda dtype: arrays.arrays(dtype, SIZES)))
def test_any_pixels_come_back_from_pillow_and_from_the_reader_of_label_maps(
    pixels: Pixels,
) -> None:
    assert_decodes(pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(224, 224), (1, 300_000), (300_000, 1), (700, 801)])
def test_pixels_of_many_blocks_of_rows_come_back(
    size: tuple[int, int], dtype: type[np.unsignedinteger]
) -> None:
    assert_decodes(regions(*size, dtype))


def test_the_bytes_follow_from_the_pixels_alone() -> None:
    pixels = regions(500, 600, np.uint16)
    data = encode_grey_png(pixels)
    apart = np.zeros((1000, 1200), dtype=np.uint16)
    apart[::2, ::2] = pixels
    for same in (pixels.copy(order="F"), pixels.astype(">u2"), apart[::2, ::2]):
        assert encode_grey_png(same) == data


def test_rows_are_filtered_by_the_one_above_in_one_chunk_of_pixel_data() -> None:
    data = encode_grey_png(np.array([[3, 459], [3, 458]], dtype=np.uint16))
    rows = zlib.decompress(chunk_body(data, b"IDAT"))
    assert rows == bytes([2, 0, 3, 1, 203, 2, 0, 0, 0, 255])
    assert data.startswith(SIGNATURE)
    assert data.endswith(END)
    assert data.count(b"IDAT") == 1
