"""The kind of a file by its first bytes, whatever its name says."""

from __future__ import annotations

import re
from collections.abc import Mapping

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (rb"\xff\xd8", "a JPEG picture"),
    (rb"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (rb"GIF8[79]a", "a GIF picture"),
    (rb"RIFF....WEBP", "a WebP picture"),
    (rb"BM", "a BMP picture"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "a TIFF picture"),
    (rb"....ftyp(?:hei|hev|mif1|msf1)", "a HEIC picture"),
    (rb"....ftypavi", "an AVIF picture"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL picture"),
    (rb"\x89HDF\r\n", "an HDF5 file"),
    (rb"MATLAB 7\.3", "a MATLAB 7.3 file"),
    (rb"MATLAB 5\.0 MAT-file", "a MATLAB 5 file"),
    # Type, rows, columns and 0 or 1 for complex values, then the size of a name and the name.
    (rb"[\0-\x34]\0{3}.{8}[\0\x01]\0{3}[\x02-\x40]\0{3}[A-Za-z]\w*\0", "a MATLAB 4 file"),
    (rb"\0\0[\x03\x04].{9}\0{3}[\0\x01]\0{3}[\x02-\x40][A-Za-z]\w*\0", "a MATLAB 4 file"),
    (rb"\0\x05\x16[\0\x07]", "a macOS resource file"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"%PDF-", "a PDF document"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\x1f\x8b", "a gzip file"),
    (rb"version https://git-lfs", "a Git LFS pointer"),
    (rb"\s*<(?:!doctype html|html|head|!--)", "a web page"),
    (rb"\s*<(?:\?xml|svg)", "an XML file"),
)
_KINDS = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE if b"html" in pattern else re.DOTALL), kind)
    for pattern, kind in _BEGINNINGS
)
_ADVICE = {
    "a Git LFS pointer": "run git lfs pull",
    "a web page": "a download that failed is often saved so: get the file itself",
    "a macOS resource file": (
        "macOS writes such files beside the real ones, often named ._NAME: copy the file itself"
    ),
}
_LONGEST = 256
"""Bytes that are looked at."""


def kind_of(data: bytes) -> str | None:
    """Return the kind of a file with its article, for people; None when it is not known.

    >>> kind_of(b"GIF89a..."), kind_of(b""), kind_of(b"123")
    ('a GIF picture', 'an empty file', None)
    """
    if not data:
        return "an empty file"
    head = data[:_LONGEST]
    if not any(head):
        return "a file of zeros"
    return next((kind for pattern, kind in _KINDS if pattern.match(head)), None)


def describe_kind(data: bytes) -> str:
    """Return the kind of a file, or its size and first bytes where it is not known.

    >>> describe_kind(b"123")
    '3 bytes that begin with 31 32 33 (hexadecimal)'
    """
    return kind_of(data) or f"{len(data):,} bytes that begin with {data[:8].hex(' ')} (hexadecimal)"


def advise(data: bytes, advice: Mapping[str, str]) -> str:
    """Return what to do about a file of another kind than expected.

    ``advice`` is by kind; of the others, some have the same remedy everywhere.
    """
    kind = kind_of(data) or ""
    return advice.get(kind) or _ADVICE.get(kind) or "replace it by a sound copy"
