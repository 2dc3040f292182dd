"""JPEG files with markers of the test's choice."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

ORIENTATION = 274


def scan_bomb(scans: int, height: int = 64, width: int = 64) -> bytes:
    """A small progressive picture whose last scan stands there many times."""
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width), 90, np.uint8)).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (scans - data.count(b"\xff\xda")) + data[-2:]


def with_segments(data: bytes, count: int, marker: int = 0xFE, body: bytes = b"") -> bytes:
    """Return a JPEG with so many more segments at its beginning."""
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
    return data[:2] + segment * count + data[2:]


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif
