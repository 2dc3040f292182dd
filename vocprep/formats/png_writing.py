"""Writing grey PNGs of label ids and the like: regions of one value, cheap to compress."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from vocprep.formats.png import GREY, SIGNATURE

_UP = 2
"""Filter type: bytes less those of the row above."""
_BLOCK = 1 << 18
"""Bytes of rows that are filtered at a time, so that memory does not grow with the picture."""
_LEVEL = 1
_MEMORY = 5
"""Levels of zlib: none decides which runs are found, and small tables stay in the caches."""


def encode_grey_png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Return pixels [H, W] as a grey PNG of 8 or 16 bits; H and W are at least 1.

    Each row is filtered by the one above, which leaves zeros but at borders of regions, and zlib
    looks for runs of one byte only: masks of VOC take a fifth of Pillow's time, which chooses a
    filter per row and searches for all repetitions, in as many bytes. The bytes follow from the
    pixels and from the release of zlib, ``zlib.ZLIB_RUNTIME_VERSION``.
    """
    height, width = pixels.shape
    size = pixels.itemsize
    head = struct.pack(">2I5B", width, height, 8 * size, GREY, 0, 0, 0)
    chunks = (b"IHDR", head), (b"IDAT", _packed_rows(pixels)), (b"IEND", b"")
    return SIGNATURE + b"".join(_chunk(kind, body) for kind, body in chunks)


def _packed_rows(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Return the compressed rows of pixels [H, W], each after its filter type."""
    height, width = pixels.shape
    big_endian, row_bytes = pixels.dtype.newbyteorder(">"), width * pixels.itemsize
    together = min(height, max(1, _BLOCK // row_bytes))
    rows = np.full((together, 1 + row_bytes), _UP, dtype=np.uint8)
    above = np.zeros(row_bytes, dtype=np.uint8)
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, _MEMORY, zlib.Z_RLE)
    packed = []
    for start in range(0, height, together):
        part = np.ascontiguousarray(pixels[start : start + together], dtype=big_endian)
        values = part.view(np.uint8)
        filtered = rows[: len(values), 1:]
        np.subtract(values[0], above, out=filtered[0])
        np.subtract(values[1:], values[:-1], out=filtered[1:])
        packed.append(packer.compress(rows[: len(values)].data))
        above = values[-1]
    return b"".join((*packed, packer.flush()))


def _chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk: its length, kind, body and checksum."""
    checksum = zlib.crc32(body, zlib.crc32(kind))
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
