"""Kinds of files by their first bytes."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from vocprep.formats.kinds import advise, describe_kind, kind_of


def test_files_of_pillow_numpy_and_scipy_are_known() -> None:
    picture = Image.new("RGB", (8, 8))
    names = {"JPEG": "JPEG", "PNG": "PNG", "GIF": "GIF", "BMP": "BMP", "TIFF": "TIFF"}
    names |= {"WEBP": "WebP", "AVIF": "AVIF", "PDF": "PDF"}
    Image.init()
    for kind, name in names.items():
        if kind not in Image.SAVE:  # AVIF in Pillow before 11.3
            continue
        stream = io.BytesIO()
        picture.save(stream, kind)
        assert name in (kind_of(stream.getvalue()) or "")
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    assert kind_of(stream.getvalue()) == "a NumPy array"
    stream = io.BytesIO()
    savemat(stream, {"a": 1})
    assert kind_of(stream.getvalue()) == "a MATLAB 5 file"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "an empty file"),
        (bytes(100), "a file of zeros"),
        (b"\n <!DOCTYPE HTML><html>", "a web page"),
        (b"<?xml version='1.0'?><svg/>", "an XML file"),
        (b"BM", "a BMP picture"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "a macOS resource file"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"MATLAB 7.3 MAT-file, Platform", "a MATLAB 7.3 file"),
        (struct.pack(">5i", 1010, 5, 7, 0, 2) + b"a\0", "a MATLAB 4 file"),
        (struct.pack(">5i", 1010, 5, 7, 0, 2) + b"1\0", None),
        (b"text", None),
        (b"RIFF\0\0\0\0WAVE", None),
    ],
)
def test_kinds_that_are_easily_mistaken(data: bytes, kind: str | None) -> None:
    assert kind_of(data) == kind


def test_what_is_not_known_is_shown_by_its_first_bytes() -> None:
    assert describe_kind(b"\x00\x1btext") == (
        "6 bytes that begin with 00 1b 74 65 78 74 (hexadecimal)"
    )
    assert describe_kind(b"\xfe" * 5000).startswith("5,000 bytes that begin with fe fe ")


def test_advice_is_by_kind_and_has_an_end() -> None:
    assert advise(b"GIF89a", {"a GIF picture": "do this"}) == "do this"
    assert advise(b"version https://git-lfs.github.com", {}) == "run git lfs pull"
    assert advise(b"anything", {}) == "replace it by a sound copy"
