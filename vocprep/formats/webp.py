"""WebP containers: what a file states of itself, and whether its chunks are whole.

Layout: RFC 9649.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from vocprep.formats.errors import FormatError, UnreadError

ANIMATION = "an animation, where one still picture is expected; save one of its pictures alone"
MAX_CHUNKS = 1000
"""Chunks of one file: encoders write up to six of a still picture."""
_ANIMATED = 2
"""Bit of the flags of an extended header."""
_STILL = (b"VP8 ", b"VP8L")


class WebpError(FormatError):
    """A defect of a file, without the file's name."""


class Chunk(NamedTuple):
    """A chunk's name, and where its content begins and ends."""

    name: bytes
    start: int
    stop: int


def chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the chunks of a WebP file; WebpError for one that is cut off."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise WebpError("its header is damaged")
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise WebpError(f"the file ends after {len(data):,} of {end:,} bytes")
    position = 12
    for _ in range(MAX_CHUNKS):
        if position + 8 > end:
            return
        name, size = struct.unpack_from("<4sI", data, position)
        start = position + 8
        if start + size > end:
            raise WebpError(f"a chunk of {size:,} bytes at byte {position:,} is cut off")
        yield Chunk(name, start, start + size)
        position = start + size + size % 2
    raise WebpError(f"more than {MAX_CHUNKS:,} chunks")


def webp_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) of a still WebP picture; FormatError for any other."""
    canvas: tuple[int, int] | None = None
    stated: list[tuple[int, int]] = []
    for name, start, stop in chunks(data):
        if name in (b"ANIM", b"ANMF"):
            raise UnreadError(ANIMATION)
        if name == b"VP8X" and stop - start >= 10:
            if data[start] & _ANIMATED:
                raise UnreadError(ANIMATION)
            width, height = (
                1 + int.from_bytes(data[place : place + 3], "little")
                for place in (start + 4, start + 7)
            )
            canvas = height, width
        if name in _STILL:
            stated.append(_frame_size(data[start : min(stop, start + 10)], name))
    if len(stated) != 1 or canvas not in (None, stated[0]):
        raise WebpError("its header is damaged")
    return stated[0]


def _frame_size(head: bytes, name: bytes) -> tuple[int, int]:
    """Return (height, width) as the first bytes of pixel data state them."""
    if name == b"VP8L":
        if len(head) < 5 or head[0] != 0x2F:
            raise WebpError("its header is damaged")
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    if len(head) < 10 or head[3:6] != b"\x9d\x01\x2a":
        raise WebpError("its header is damaged")
    width, height = struct.unpack_from("<HH", head, 6)
    return height & 0x3FFF, width & 0x3FFF
