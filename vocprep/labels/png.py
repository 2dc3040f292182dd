"""Label maps as PNG: reading palette, grey and 16-bit files, writing 16-bit ones."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from vocprep.errors import LabelDecodeError

MAX_PIXELS = 1 << 25
"""A label map with more pixels than this is refused as a decompression bomb."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE = 0, 3
_DEPTHS = {_GREY: (8, 16), _PALETTE: (1, 2, 4, 8)}
"""Bits per pixel by colour type. Grey of fewer bits is refused: readers scale its values up."""


class _BadPngError(Exception):
    """A defect of a file, without the file's name; caught in this module."""


def encode_png(label_map: NDArray[np.uint16]) -> bytes:
    """Write a label map [H, W] as a 16-bit grey PNG."""
    stream = io.BytesIO()
    Image.fromarray(label_map).save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def decode_png(data: bytes, where: str) -> NDArray[np.uint16]:
    """Read a label map uint16 [H, W] from a palette, 8-bit or 16-bit grey PNG.

    A palette PNG's indices are the ids. Its colours, and chunks that no pixel depends on, are
    ignored, but every chunk's checksum must be right. Raises LabelDecodeError naming ``where``.

    >>> decode_png(encode_png(np.array([[3, 459]], dtype=np.uint16)), "a.png").tolist()
    [[3, 459]]
    """
    if not data.startswith(_SIGNATURE):
        raise LabelDecodeError(
            f"{where}: not a PNG file: expected its signature, found {data[:8]!r} in "
            f"{len(data)} bytes; fetch the file again"
        )
    try:
        critical = _critical_chunks(data)
        _check_header(critical)
        # Image.open would warn of large sizes, which are checked here already.
        with PngImageFile(io.BytesIO(critical)) as image:
            image.load()
            return np.asarray(image).astype(np.uint16)
    # Pillow raises many types of exceptions on damaged data.
    except Exception as error:
        raise LabelDecodeError(
            f"{where}: PNG does not decode: {error}; fetch the file again"
        ) from error


def _critical_chunks(data: bytes) -> bytes:
    """Return a PNG without the chunks that no pixel depends on, after comparing all checksums."""
    kept = [_SIGNATURE]
    position = len(_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise _BadPngError(f"the file ends after {len(data)} bytes without an end mark")
        length, kind = struct.unpack_from(">I4s", data, position)
        stop = position + 12 + length
        if stop > len(data):
            raise _BadPngError(f"a chunk of {length} bytes at byte {position} is cut off")
        body = memoryview(data)[position + 4 : stop - 4]
        if zlib.crc32(body) != int.from_bytes(data[stop - 4 : stop], "big"):
            raise _BadPngError(f"checksum of the chunk at byte {position} is wrong")
        if (kind == b"IHDR") != (len(kept) == 1):
            raise _BadPngError("expected one header, before all else")
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            kept.append(data[position:stop])
        position = stop
    return b"".join(kept)


def _check_header(data: bytes) -> None:
    """Raise _BadPngError for an image that is too large or whose pixels are not label ids."""
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if width * height > MAX_PIXELS:
        raise _BadPngError(f"{width}×{height} pixels; expected at most {MAX_PIXELS}")
    if depth not in _DEPTHS.get(colour, ()):
        raise _BadPngError(
            f"colour type {colour} of {depth} bits; expected palette, 8-bit or 16-bit grey label "
            "ids"
        )
