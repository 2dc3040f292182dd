"""JPEG markers: what a file states of itself, and how much work it asks of a decoder.

A decoder passes over all pixels once per scan, whatever the scan holds, so that a small file of
many scans takes minutes. Layout: ITU-T T.81, annex B; Exif 2.3; TIFF 6.0.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

JPEG_BEGINNING = b"\xff\xd8"
MAX_SCANS = 100
"""Scans of one picture: encoders write 1 for baseline and 10 to 18 for progressive files."""
MAX_SCANNED = 3 << 29
"""Pixels of a picture times its scans: 24 scans for the largest picture."""
MAX_SEGMENTS = 500
"""Segments before the first scan, of up to 64 kB: cameras write some tens."""
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
"""A marker with a segment behind it, or a start or end: no stuffed byte, no restart."""
_SOI, _EOI, _SOS, _APP1 = 0xD8, 0xD9, 0xDA, 0xE1
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
UPRIGHT = 1
"""The orientation of pictures that are stored as they are shown."""
_ORIENTATION = 0x0112
EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")


class JpegError(Exception):
    """A picture that asks for more work than a decoder is given, without the file's name."""


class Segment(NamedTuple):
    """A marker, and the bytes from its 0xFF to the end of its segment."""

    marker: int
    start: int
    stop: int


def segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments of a JPEG as decoders find them, up to its end mark or its last byte.

    Coded pixels and bytes that belong to no segment are passed over.
    """
    position = 0
    while found := _MARKER.search(data, position):
        marker, start = data[found.start() + 1], found.start()
        position = found.end()
        if marker not in (_SOI, _EOI):
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
        yield Segment(marker, start, min(position, len(data)))
        if marker == _EOI:
            return


def check_work(data: bytes, pixels: int) -> None:
    """Raise JpegError for more scans of so many pixels, or more segments, than encoders write."""
    most = min(MAX_SCANS, MAX_SCANNED // max(pixels, 1))
    if sum(1 for _ in _header(data)) > MAX_SEGMENTS:
        raise JpegError(f"more than {MAX_SEGMENTS} segments before its first scan")
    # Every scan begins with these two bytes; in metadata, as in thumbnails, they may stand too.
    if _count_pairs(data, b"\xff\xda") <= most:
        return
    scans = 0
    for number, segment in enumerate(segments(data)):
        scans += segment.marker == _SOS
        if scans > most or number > 10 * MAX_SEGMENTS:
            raise JpegError(f"more than {most} scans, each of which takes a pass over all pixels")


def frame_kind(data: bytes) -> str | None:
    """Return what is unusual in how a JPEG is coded; None for Huffman codes of 8 bits."""
    frame = next((item for item in _header(data) if item.marker in _FRAMES), None)
    if frame is None or frame.stop - frame.start < 5:
        return None
    if frame.marker in (0xC3, 0xC7, 0xCB, 0xCF):
        return "lossless"
    if frame.marker in (0xC5, 0xC6, 0xCD, 0xCE):
        return "hierarchical"
    bits = data[frame.start + 4]
    if bits != 8:
        return f"of {bits} bits per colour"
    return "coded arithmetically" if frame.marker >= 0xC9 else None


def orientation(data: bytes) -> int:
    """Return the orientation that a JPEG's metadata state, 1 to 8; 1 is upright, also without any.

    Exif counts before XMP.
    """
    stated = 0
    for segment in _header(data):
        if segment.marker != _APP1:
            continue
        body = data[segment.start + 4 : segment.stop]
        if body.startswith(EXIF):
            stated = exif_orientation(body[len(EXIF) :]) or stated
        elif body.startswith(_XMP) and not stated:
            stated = xmp_orientation(body)
    return stated if 1 <= stated <= 8 else UPRIGHT


def xmp_orientation(text: bytes) -> int:
    """Return the orientation that XMP states; 0 where there is none."""
    found = _XMP_ORIENTATION.search(text)
    return int(found[1]) if found else 0


def _header(data: bytes) -> Iterator[Segment]:
    """Yield the segments before the first scan, one more than ``MAX_SEGMENTS`` at most."""
    for segment in islice(segments(data), MAX_SEGMENTS + 1):
        if segment.marker == _SOS:
            return
        yield segment


def _count_pairs(data: bytes, pair: bytes) -> int:
    """Return how often two bytes stand in ``data``; several times faster than ``bytes.count``."""
    (value,) = struct.unpack("<H", pair)
    starts = (0, 1) if len(data) > 1 else ()
    return sum(
        int(np.count_nonzero(np.frombuffer(data, "<u2", (len(data) - start) // 2, start) == value))
        for start in starts
    )


def exif_orientation(tiff: bytes) -> int:
    """Return the orientation in a TIFF header's first directory; 0 where there is none."""
    orders = {b"II": "<", b"MM": ">"}
    order = orders.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 0
    (place,) = struct.unpack_from(order + "I", tiff, 4)
    if place + 2 > len(tiff):
        return 0
    (entries,) = struct.unpack_from(order + "H", tiff, place)
    for start in range(place + 2, min(place + 2 + 12 * entries, len(tiff) - 11), 12):
        tag, kind, _ = struct.unpack_from(order + "HHI", tiff, start)
        if tag == _ORIENTATION:
            width = {1: "B", 3: "H", 4: "I"}.get(kind, "H")
            (value,) = struct.unpack_from(order + width, tiff, start + 8)
            return int(value) if 1 <= value <= 8 else 0
    return 0
