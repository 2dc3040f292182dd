"""TIFF: every layout is read as Pillow and NumPy read it, everything else is refused."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from builders.tiff import tiff_file, tiff_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from vocprep.formats.errors import FormatError
from vocprep.formats.tiff import read_page, read_samples
from vocprep.formats.tiff_codecs import unpack_lzw

GREY = (np.arange(60 * 70) % 251).astype(np.uint8).reshape(60, 70)


def read(data: bytes) -> NDArray[np.generic]:
    return read_samples(data, read_page(data))


def by_pillow(picture: NDArray[np.generic], **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "TIFF", **options)
    return stream.getvalue()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("kind", ["noise", "steps", "flat", "colour", "deep"])
def test_what_pillow_writes_is_read(compression: str, predictor: int, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    picture = {
        "noise": noise[..., 0],
        "steps": (np.arange(90 * 130) // 37 % 9).astype(np.uint8).reshape(90, 130),
        "flat": np.full((90, 130), 7, np.uint8),
        "colour": noise,
        "deep": noise[..., 0].astype(np.uint16) * 257 + noise[..., 1],
    }[kind]
    is_differing = predictor == 2 and compression in ("tiff_lzw", "tiff_adobe_deflate")
    options = {"tiffinfo": {317: 2}} if is_differing else {}
    data = by_pillow(picture, compression=compression, **options)
    np.testing.assert_array_equal(read(data).squeeze(), picture)


@given(st.data())
def test_whole_numbers_and_floats_of_either_byte_order_survive(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8"]))
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4)))
    samples = data.draw(arrays.arrays(np.dtype(dtype), shape))
    for order in "<>":
        found = read(tiff_of(samples, order=order))
        np.testing.assert_array_equal(found, samples)
        assert found.dtype == samples.dtype


@given(st.binary(min_size=1, max_size=3000), st.booleans())
def test_lzw_is_read_as_libtiff_writes_it(plain: bytes, is_repeated: bool) -> None:
    plain *= 9 if is_repeated else 1
    picture = np.frombuffer(plain, np.uint8).reshape(1, -1)
    data = by_pillow(picture, compression="tiff_lzw")
    np.testing.assert_array_equal(read(data)[..., 0], picture)


def lzw(codes: list[int], width: int = 9) -> memoryview:
    """Pack codes of one width."""
    bits = "".join(f"{code:0{width}b}" for code in codes)
    bits += "0" * (-len(bits) % 8)
    return memoryview(int(bits, 2).to_bytes(len(bits) // 8))


def test_lzw_codes_mean_what_the_specification_says() -> None:
    # TIFF 6.0, section 13, and a code that stands for the string it makes
    assert unpack_lzw(lzw([256, 7, 258, 8, 8, 258, 6, 257]), 99) == bytes([7, 7, 7, 8, 8, 7, 7, 6])
    assert unpack_lzw(lzw([256, 1, 2, 258, 260, 256, 5, 258, 257]), 99) == bytes(
        [1, 2, 1, 2, 1, 2, 1, 5, 5, 5]
    )
    assert unpack_lzw(lzw([256, 1, 2, 3]), 2) == bytes([1, 2])


@pytest.mark.parametrize("codes", [[256, 258], [258], [256, 1, 259], [256, 1, 2, 300]])
def test_lzw_codes_of_no_string_are_refused(codes: list[int]) -> None:
    with pytest.raises(FormatError, match="a code that stands for nothing"):
        unpack_lzw(lzw(codes), 99)


def test_lzw_bombs_take_no_time() -> None:
    begin = time.process_time()
    with pytest.raises(FormatError, match="too often"):
        unpack_lzw(memoryview(bytes(lzw([256] * 8)) * 12_500), 1 << 19)
    with pytest.raises(FormatError, match="do not clear"):
        unpack_lzw(memoryview(bytes(1 << 20)), 1 << 20)
    assert time.process_time() - begin < 1


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("compression", [1, 8])
def test_tiles_and_planes_are_put_in_their_places(planes: int, compression: int) -> None:
    samples = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    padded = np.zeros((48, 64, 3), np.uint8)
    padded[:40, :50] = samples
    parts = [padded] if planes == 1 else [padded[..., channel] for channel in range(3)]
    pieces = [
        np.ascontiguousarray(part[top : top + 16, left : left + 32]).tobytes()
        for part in parts
        for top in (0, 16, 32)
        for left in (0, 32)
    ]
    if compression == 8:
        pieces = [zlib.compress(piece) for piece in pieces]
    tags = {258: [8] * 3, 259: [compression], 262: [2], 277: [3], 284: [planes]}
    data = tiff_file(pieces, (40, 50), {**tags, 322: [32], 323: [16]}, offset_tag=324)
    np.testing.assert_array_equal(read(data), samples)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_narrow_values_are_unpacked(bits: int) -> None:
    values = np.random.default_rng(2).integers(0, 1 << bits, (5, 11))
    rows = []
    for row in values.tolist():
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(int(text, 2).to_bytes(len(text) // 8))
    data = tiff_file([b"".join(rows)], (5, 11), {258: [bits]})
    np.testing.assert_array_equal(read(data)[..., 0], values)


def test_smaller_copies_of_the_page_are_no_pages() -> None:
    data = tiff_file([GREY.tobytes()], GREY.shape, {254: [1]}, pages=3)
    np.testing.assert_array_equal(read(data)[..., 0], GREY)


PLAIN = GREY.tobytes()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (tiff_file([PLAIN], GREY.shape, pages=2), "2 pages, where one is expected; save one page"),
        (tiff_file([PLAIN], GREY.shape, {259: [7]}), "compressed as JPEG, which loses detail"),
        (tiff_file([PLAIN], GREY.shape, {259: [4]}), "compressed as a fax"),
        (tiff_file([PLAIN], GREY.shape, {259: [34925]}), "compressed by method 34925"),
        (tiff_file([PLAIN], GREY.shape, {262: [6]}), "a TIFF of YCbCr pixels, .* save it as RGB"),
        (tiff_file([PLAIN], GREY.shape, {262: [32844]}), "photometry 32844"),
        (tiff_file([PLAIN], GREY.shape, {258: [12]}), "12-bit samples"),
        (tiff_file([PLAIN], GREY.shape, {266: [2]}), "an uncommon order of bits"),
        (tiff_file([PLAIN], GREY.shape, {317: [2], 259: [8]}), "do not inflate"),
        (tiff_file([zlib.compress(PLAIN)], GREY.shape, {317: [3], 259: [8]}), "predictor 3"),
        (tiff_file([PLAIN], GREY.shape, {262: []}), "it lacks the tag 262"),
        (tiff_file([PLAIN], GREY.shape, {262: [3]}), "its palette is damaged"),
        (tiff_file([PLAIN], GREY.shape, {258: [8, 16], 277: [2]}), "its channels differ"),
        (tiff_file([PLAIN], (61, 70)), "its pixel data end after 4,200 of 4,270 bytes"),
        (tiff_file([PLAIN], GREY.shape, {278: [30]}), "its list of pieces does not fit"),
        (tiff_file([PLAIN], GREY.shape, {278: [0]}), "its list of pieces does not fit"),
        (tiff_file([PLAIN], (0, 70)), "it has no pixels"),
        (tiff_file([zlib.compress(PLAIN)[:-9]], GREY.shape, {259: [8]}), "pixel data"),
        (tiff_file([zlib.compress(PLAIN + b"more")], GREY.shape, {259: [8]}), "go on after"),
        (b"II+\0" + bytes(20), "a BigTIFF"),
        (b"II*\0" + bytes(4), "directory is cut off"),
        (b"II*\0\4\0\0\0", "its directory is cut off"),
        (b"II", "its header is damaged"),
    ],
)
def test_other_files_are_refused_in_one_sentence(data: bytes, complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint):
        read(data)


def test_every_truncation_is_refused() -> None:
    data = by_pillow(GREY, compression="tiff_lzw")
    for length in range(0, len(data) - 1, 3):
        with pytest.raises(FormatError):
            read(data[:length])


def test_pages_that_follow_in_a_circle_end() -> None:
    data = bytearray(tiff_file([PLAIN], GREY.shape, {254: [1]}))
    (start,) = struct.unpack_from("<I", data, 4)
    data[-4:] = struct.pack("<I", start)
    with pytest.raises(FormatError, match="its pages do not end"):
        read_page(bytes(data))
