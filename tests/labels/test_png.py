"""Label maps as PNG: exact both ways, damage and foreign kinds refused with the file's name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from builders.fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from vocprep.errors import LabelDecodeError
from vocprep.labels.png import decode_png, encode_png

pytestmark = pytest.mark.usefixtures("no_warning_escapes")

IDS = np.array([[0, 1, 15, 20], [255, 3, 3, 16], [7, 0, 255, 9]], dtype=np.uint8)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0))


def png_of(picture: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", **options)
    return stream.getvalue()


def palette_png(**options: object) -> bytes:
    picture = Image.fromarray(IDS)
    picture.putpalette([value for n in range(256) for value in (n, 255 - n, n // 2)])
    assert picture.mode == "P"
    return png_of(picture, **options)


def refuse(data: bytes, complaint: str) -> None:
    with pytest.raises(LabelDecodeError, match=complaint) as caught:
        decode_png(data, "some/file.png")
    assert str(caught.value).startswith("some/file.png: ")


@given(arrays.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_sixteen_bit_maps_survive_writing_and_reading(label_map: NDArray[np.uint16]) -> None:
    found = decode_png(encode_png(label_map), "x")
    np.testing.assert_array_equal(found, label_map)
    assert found.dtype == np.uint16


def test_encoding_gives_the_same_bytes_each_time() -> None:
    label_map = np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50
    assert encode_png(label_map) == encode_png(label_map.copy(order="F"))
    with Image.open(io.BytesIO(encode_png(label_map))) as picture:
        assert picture.mode == "I;16"


def test_palette_indices_are_the_ids_and_colours_do_not_matter() -> None:
    np.testing.assert_array_equal(decode_png(palette_png(), "x"), IDS)
    np.testing.assert_array_equal(decode_png(palette_png(transparency=bytes(range(9))), "x"), IDS)


def test_eight_bit_grey_values_are_the_ids() -> None:
    np.testing.assert_array_equal(decode_png(png_of(Image.fromarray(IDS)), "x"), IDS)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_narrow_palette_indices_are_the_ids(depth: int) -> None:
    ids = np.arange(12).reshape(3, 4) % (1 << depth)
    picture = Image.fromarray(ids.astype(np.uint8))
    picture.putpalette([200, 100, 50] * 16)
    data = png_of(picture, bits=depth)
    assert data[24] == depth
    np.testing.assert_array_equal(decode_png(data, "x"), ids)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_narrow_grey_is_refused_because_readers_scale_it(depth: int) -> None:
    rows = zlib.compress(b"\0\x1b" * 2)
    data = SIGNATURE + header(2, 2, depth) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    refuse(data, f"colour type 0 of {depth} bits; expected palette, 8-bit or 16-bit grey")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_refused(mode: str) -> None:
    refuse(png_of(Image.new(mode, (3, 3))), "colour type .* expected palette")


def test_interlaced_and_split_data_is_read() -> None:
    whole = png_of(Image.fromarray(IDS))
    start = whole.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", whole, start)
    packed = whole[start + 8 : start + 8 + length]
    parts = chunk(b"IDAT", packed[:7]) + chunk(b"IDAT", b"") + chunk(b"IDAT", packed[7:])
    np.testing.assert_array_equal(decode_png(whole[:start] + parts + chunk(b"IEND", b""), "x"), IDS)


@pytest.mark.parametrize("size", [(1 << 16, 1 << 10), (2**31 - 1,) * 2, (2**32 - 1,) * 2])
@pytest.mark.parametrize("position", [8, 33])
def test_bomb_headers_are_refused(size: tuple[int, int], position: int) -> None:
    sound = palette_png()
    rest = sound[33:]
    data = sound[:position] + header(*size, colour=3) + rest
    refuse(data, "pixels; expected at most" if position == 8 else "expected one header")


def test_a_bomb_in_a_chunk_that_no_pixel_needs_is_not_opened() -> None:
    bomb = zlib.compress(bytes(1 << 24))
    extra = chunk(b"zTXt", b"Comment\0\0" + bomb) + chunk(b"acTL", bytes(8)) * 2
    data = palette_png()
    np.testing.assert_array_equal(decode_png(data[:33] + extra + data[33:], "x"), IDS)


def test_every_truncation_is_refused() -> None:
    data = palette_png()
    for length in range(len(data)):
        refuse(data[:length], "not a PNG|cut off|without an end mark")


def test_every_flipped_bit_is_refused() -> None:
    data = encode_png(IDS.astype(np.uint16))
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            refuse(bytes(changed), "not a PNG|PNG does not decode")


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"\xff\xd8\xff\xe0", SIGNATURE, SIGNATURE + chunk(b"IEND", b"")]
)
def test_what_is_no_png_is_refused(data: bytes) -> None:
    refuse(data, "PNG")


def test_too_little_data_for_the_stated_size_is_refused() -> None:
    short = chunk(b"IDAT", zlib.compress(b"\0" * 20)) + chunk(b"IEND", b"")
    refuse(SIGNATURE + header(50, 50) + short, "does not decode")


@pytest.mark.parametrize("name", ["png", "rechecked_png"])
def test_damaged_files_decode_or_are_refused(name: str) -> None:
    big = np.random.default_rng(0).integers(0, 460, (40, 50), dtype=np.uint16)
    decoded, refused = fuzz(name, [palette_png(), encode_png(big), palette_png(bits=8)], 1000, 0)
    assert decoded + refused == 1000
    assert refused > 100
    assert decoded > 0 or name == "png"


def test_real_palette_masks_decode_to_the_ids_of_voc(shared_data: Path) -> None:
    folder = shared_data / "voc2012-real" / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    paths = sorted(folder.glob("*.png"))[:20]
    if not paths:
        pytest.skip("no real masks there")
    for path in paths:
        found = decode_png(path.read_bytes(), str(path))
        with Image.open(path) as picture:
            np.testing.assert_array_equal(found, np.asarray(picture))
        assert set(np.unique(found).tolist()) <= {*range(21), 255}
