"""The orientation that a picture's metadata state, in any format."""

from __future__ import annotations

import re
import struct

from vocprep.formats.jpeg import EXIF, JPEG_BEGINNING, UPRIGHT, exif_orientation, xmp_orientation
from vocprep.formats.jpeg import orientation as jpeg_orientation
from vocprep.formats.png import MAX_CHUNKS, SIGNATURE
from vocprep.formats.webp import WebpError, chunks

__all__ = ["UPRIGHT", "orientation", "swaps_sides"]

_LAST_OF_SAME_SIDES = 4
_XMP_KEYWORD = b"XML:com.adobe.xmp\0"
_TIFF = re.compile(rb"II\*\0|MM\0\*")


def orientation(data: bytes) -> int:
    """Return the orientation that a picture's metadata state, 1 to 8; upright, 1, without any.

    Exif counts before XMP. What cannot be read states none.

    >>> orientation(b"GIF89a"), orientation(b"")
    (1, 1)
    """
    if data.startswith(JPEG_BEGINNING):
        return jpeg_orientation(data)
    if data.startswith(SIGNATURE):
        stated = _of_png(data)
    elif data.startswith(b"RIFF"):
        stated = _of_webp(data)
    else:
        stated = exif_orientation(data) if _TIFF.match(data) else 0
    return stated or UPRIGHT


def swaps_sides(data: bytes) -> bool:
    """Return whether a picture's metadata state an orientation that swaps width and height."""
    return orientation(data) > _LAST_OF_SAME_SIDES


def _of_png(data: bytes) -> int:
    position, stated = len(SIGNATURE), 0
    for _ in range(MAX_CHUNKS):
        if position + 12 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length] if kind in (b"eXIf", b"iTXt") else b""
        if kind == b"eXIf" and (found := exif_orientation(body)):
            return found
        if body.startswith(_XMP_KEYWORD):
            stated = xmp_orientation(body)
        position += 12 + length
    return stated


def _of_webp(data: bytes) -> int:
    stated = 0
    try:
        for name, start, stop in chunks(data):
            if name == b"EXIF" and (found := exif_orientation(data[start:stop].removeprefix(EXIF))):
                return found
            if name == b"XMP ":
                stated = xmp_orientation(data[start:stop])
    except WebpError:
        return 0
    return stated
