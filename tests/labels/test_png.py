"""Label maps as PNG: exact both ways, damage and foreign kinds refused with the file's name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from builders.fuzzing import fuzz
from builders.png import SIGNATURE, chunk, header, png_file
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from vocprep.errors import LabelDecodeError
from vocprep.labels.png import decode_png, encode_png

pytestmark = pytest.mark.usefixtures("no_warning_escapes")

IDS = np.array([[0, 1, 15, 20], [255, 3, 3, 16], [7, 0, 255, 9]], dtype=np.uint8)


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
def test_values_of_narrow_grey_are_the_ids_as_they_are_stored(depth: int) -> None:
    """Programs show them scaled to 0..255."""
    values = [[(3 * row + column) % (1 << depth) for column in range(8)] for row in range(3)]
    rows = b""
    for row in values:
        text = "".join(f"{value:0{depth}b}" for value in row)
        rows += b"\0" + int(text, 2).to_bytes(depth)
    found = decode_png(png_file(header(8, 3, depth), zlib.compress(rows)), "x")
    assert found.tolist() == values
    if depth == 1:
        bits = Image.fromarray(np.array(values, dtype=bool))
        np.testing.assert_array_equal(decode_png(png_of(bits), "x"), values)


@pytest.mark.parametrize(
    ("mode", "complaint"),
    [
        ("RGB", r'colour mask \(RGB\), .*; set label_kind = "colours" and give the id of each'),
        ("RGBA", r"colour mask \(RGBA\)"),
        ("LA", "alpha channel, .* save it without alpha"),
    ],
)
def test_colours_are_refused_with_what_to_do(mode: str, complaint: str) -> None:
    refuse(png_of(Image.new(mode, (3, 3))), complaint)


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
    refuse(data, "pixels: expected at most" if position == 8 else "expected one header")


def test_a_bomb_in_a_chunk_that_no_pixel_needs_is_not_opened() -> None:
    bomb = zlib.compress(bytes(1 << 24))
    extra = chunk(b"zTXt", b"Comment\0\0" + bomb) + chunk(b"acTL", bytes(8)) * 2
    data = palette_png()
    np.testing.assert_array_equal(decode_png(data[:33] + extra + data[33:], "x"), IDS)


def test_every_truncation_is_refused() -> None:
    data = palette_png()
    for length in range(len(data)):
        refuse(data[:length], "where a PNG label map|cut off|without an end mark")


def test_every_flipped_bit_is_refused() -> None:
    data = encode_png(IDS.astype(np.uint16))
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            refuse(bytes(changed), "where a PNG label map|PNG does not decode")


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"\xff\xd8\xff\xe0", SIGNATURE, SIGNATURE + chunk(b"IEND", b"")]
)
def test_what_is_no_png_is_refused(data: bytes) -> None:
    refuse(data, "PNG")


# 10 rows of 6 pixels, each with its filter type
ROWS = b"".join(b"\0" + bytes(range(row, row + 6)) for row in range(10))
WIDE_ROWS = b"".join(b"\2" + bytes(12) for _ in range(10))
HEADERS = {1: header(6, 10), 2: header(6, 10, depth=16)}
"""By bytes per pixel."""


@pytest.mark.parametrize(("size", "rows"), [(1, ROWS), (2, WIDE_ROWS)])
def test_pixel_data_that_end_early_are_refused_and_not_filled_with_zeros(
    size: int, rows: bytes
) -> None:
    decode_png(png_file(HEADERS[size], zlib.compress(rows)), "x")
    for length in range(len(rows)):
        data = png_file(HEADERS[size], zlib.compress(rows[:length]))
        refuse(data, f"its pixel data end after {length // (size * 6 + 1)} of 10 rows; replace it")


@pytest.mark.parametrize(("size", "rows"), [(1, ROWS), (2, WIDE_ROWS)])
def test_pixel_data_of_more_rows_are_refused(size: int, rows: bytes) -> None:
    for more in (b"\0", rows, rows * 1000):
        data = png_file(HEADERS[size], zlib.compress(rows + more))
        refuse(data, "its pixel data are more than 6×10 pixels take")


def test_every_cut_of_the_compressed_data_is_refused() -> None:
    packed = zlib.compress(ROWS)
    for length in range(len(packed)):
        refuse(png_file(HEADERS[1], packed[:length]), "its pixel data (end after|are cut off)")
    np.testing.assert_array_equal(
        decode_png(png_file(HEADERS[1], packed + b"more"), "x"),
        np.frombuffer(ROWS, np.uint8).reshape(10, 7)[:, 1:],
    )


def interlaced_bytes(width: int, height: int) -> int:
    """Count the bytes of an 8-bit file in seven passes, pixel by pixel."""
    places = ["16462646", "77777777", "56565656", "77777777", "36463646", "77777777"]
    places += ["56565656", "77777777"]
    rows: dict[tuple[int, str], int] = {}
    for y in range(height):
        for x in range(width):
            key = (y, places[y % 8][x % 8])
            rows[key] = rows.get(key, 0) + 1
    return sum(pixels + 1 for pixels in rows.values())


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (5, 5), (8, 8), (9, 17)])
def test_rows_of_interlaced_files_are_counted_by_pass(size: tuple[int, int]) -> None:
    sound = interlaced_bytes(*size)
    head = header(*size, interlace=1)
    for length in (0, sound - 1, sound + 1):
        refuse(png_file(head, zlib.compress(bytes(length))), "its pixel data (end|are more)")
    assert decode_png(png_file(head, zlib.compress(bytes(sound))), "x").shape == size[::-1]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (png_file(HEADERS[1], b"no zlib"), "do not inflate"),
        (png_file(HEADERS[1], zlib.compress(ROWS)[:-4] + b"abcd"), "incorrect data check"),
        (png_file(HEADERS[1]), "end after 0 of 10 rows"),
        (
            SIGNATURE
            + HEADERS[1]
            + chunk(b"IDAT", zlib.compress(ROWS)[:9])
            + chunk(b"tEXt", b"a\0b")
            + chunk(b"IDAT", zlib.compress(ROWS)[9:])
            + chunk(b"IEND", b""),
            "other chunks stand between its pixel data",
        ),
        (SIGNATURE + HEADERS[1] + chunk(b"tEXt", b"") * 100_001, "more than 100,000 chunks"),
    ],
    ids=["no zlib", "checksum", "none", "apart", "many chunks"],
)
def test_odd_pixel_data_are_refused_in_one_sentence(data: bytes, complaint: str) -> None:
    refuse(data, complaint)


@pytest.mark.parametrize(
    ("data", "recorded"),
    [
        (
            b"\xff\xd8\xff\xe0JFIF",
            "not a PNG file: expected its signature, found b'\\xff\\xd8\\xff\\xe0JFIF' in 8 bytes",
        ),
        (
            png_of(Image.new("RGB", (3, 3))),
            "PNG does not decode: colour type 2 of 8 bits; expected palette, 8-bit or 16-bit grey "
            "label ids",
        ),
        (
            png_file(HEADERS[1], b"no zlib"),
            "PNG does not decode: broken data stream when reading image file",
        ),
        (
            png_file(HEADERS[1], zlib.compress(ROWS[:-1])),
            "PNG does not decode: image file is truncated (0 bytes not processed)",
        ),
    ],
    ids=["jpeg", "rgb", "no zlib", "cut row"],
)
def test_recorded_reasons_keep_the_words_of_the_first_version(data: bytes, recorded: str) -> None:
    with pytest.raises(LabelDecodeError) as caught:
        decode_png(data, "a.png")
    assert caught.value.recorded == f"a.png: {recorded}; fetch the file again"
    assert "fetch" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("JPEG", "a JPEG picture, .* has changed the ids, .* export the label map again, as PNG"),
        ("WEBP", "a WebP picture, .* has changed the ids"),
        ("GIF", "a GIF picture, .* save its ids as PNG"),
        ("BMP", "a BMP picture, .* save its ids as PNG"),
        ("TIFF", 'a TIFF picture, .* name it .tif and set label_kind = "tiff"'),
    ],
)
def test_other_pictures_are_named_with_what_to_do(kind: str, complaint: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(IDS).save(stream, kind)
    refuse(stream.getvalue(), complaint)


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
