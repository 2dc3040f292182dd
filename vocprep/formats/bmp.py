"""BMP headers: what a file states of itself, and whether its pixels are all there.

Layout: Microsoft, "Bitmap Storage".
"""

from __future__ import annotations

import struct

from vocprep.formats.errors import FormatError, UnreadError

_BITS = {0: (1, 4, 8, 16, 24, 32), 3: (16, 32)}
"""Bits per pixel by compression: none, and channels by masks."""
_CORE, _LEAST = 12, 40
"""Bytes of the oldest header, and of all others at least."""


class BmpError(FormatError):
    """A defect of a file, without the file's name."""


def bmp_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) of a BMP whose pixels are all there; FormatError for any other."""
    if len(data) < 26 or data[:2] != b"BM":
        raise BmpError("its header is damaged")
    start, header = struct.unpack_from("<II", data, 10)
    if header == _CORE:
        width, height, planes, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    elif _LEAST <= header <= len(data) - 14:
        width, height, planes, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    else:
        raise BmpError("its header is damaged")
    if compression in (1, 2, 4, 5):
        raise UnreadError("a BMP with compressed pixels, which is not read; save it as PNG")
    height = abs(height)  # negative where the first row is the top one
    if width < 1 or height < 1 or planes != 1 or bits not in _BITS.get(compression, ()):
        raise BmpError("its header is damaged")
    row_bytes = -(-width * bits // 32) * 4
    if start < 14 + header or start + row_bytes * height > len(data):
        there = max(0, len(data) - start) // row_bytes
        raise BmpError(f"its pixel data end after {there:,} of {height:,} rows")
    return height, width
