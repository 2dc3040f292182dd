"""PNG files made by hand: every chunk of them is the test's choice."""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"\0\0\0\0IEND\xaeB`\x82"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header(width: int, height: int, depth: int = 8, colour: int = 0, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, interlace))


def png_file(head: bytes, *packed: bytes) -> bytes:
    """Return a file of a header and of pixel data in one chunk or several."""
    return SIGNATURE + head + b"".join(chunk(b"IDAT", part) for part in packed) + END
