"""BMP and WebP headers: sizes as Pillow reads them, damage told."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from vocprep.formats.bmp import bmp_size
from vocprep.formats.errors import FormatError
from vocprep.formats.webp import webp_size

SIZES = [(1, 1), (40, 56), (300, 7)]


def saved(kind: str, height: int, width: int, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).convert(mode).save(
        stream, kind, **options
    )
    return stream.getvalue()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}]
)
def test_the_size_of_a_webp_stands_in_its_header(
    size: tuple[int, int], options: dict[str, object]
) -> None:
    data = saved("WEBP", *size, **options)
    assert webp_size(data) == size
    with pytest.raises(FormatError, match=r"the file ends after|header is damaged"):
        webp_size(data[:-3])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA"])
def test_the_size_of_a_bmp_stands_in_its_header(size: tuple[int, int], mode: str) -> None:
    data = saved("BMP", *size, mode)
    assert bmp_size(data) == size
    with pytest.raises(FormatError, match=f"end after {size[0] - 1} of {size[0]} rows"):
        bmp_size(data[:-1])


def test_rows_of_a_bmp_may_begin_at_the_top() -> None:
    data = bytearray(saved("BMP", 4, 5))
    data[22:26] = struct.pack("<i", -4)
    assert bmp_size(bytes(data)) == (4, 5)


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (30, 1, "compressed pixels, which is not read"),
        (30, 9, "its header is damaged"),
        (28, 7, "its header is damaged"),
        (18, 0, "its header is damaged"),
        (18, 1 << 30, "end after 0 of 4 rows"),
        (10, 1 << 31, "end after 0 of 4 rows"),
        (14, 1 << 31, "its header is damaged"),
    ],
)
def test_odd_headers_of_a_bmp_are_refused(place: int, value: int, complaint: str) -> None:
    data = bytearray(saved("BMP", 4, 5))
    data[place : place + 4] = struct.pack("<I", value)
    with pytest.raises(FormatError, match=complaint):
        bmp_size(bytes(data))


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
        for name, content in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


LOSSY = (b"VP8 ", b"\x10\0\0\x9d\x01\x2a\x05\0\x04\0")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (riff(), "its header is damaged"),
        (riff(LOSSY, LOSSY), "its header is damaged"),
        (riff((b"VP8X", bytes(4) + b"\7\0\0\7\0\0"), LOSSY), "its header is damaged"),
        (riff((b"VP8X", b"\2" + bytes(9)), (b"ANIM", bytes(6))), "an animation, .*; save one"),
        (riff((b"ANMF", bytes(16))), "an animation"),
        (riff((b"VP8L", b"\x2e1234")), "its header is damaged"),
        (riff(*[(b"abcd", b"")] * 1001), "more than 1,000 chunks"),
        (riff((b"VP8 ", b"12345678"))[:16] + b"\xff" * 12, "a chunk of .* is cut off"),
    ],
)
def test_odd_chunks_of_a_webp_are_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint):
        webp_size(data)
    assert webp_size(riff(LOSSY)) == (4, 5)
