"""GIF and PNM files that take long to read are refused at once."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from vocprep.formats.headers import HeaderError, check_header

GIF = b"GIF89a\x0a\0\x0a\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (GIF + b"\x21\xfe\x01a\0" * 2_000_000, "more than 100,000 blocks"),
        (GIF + b"\x21\xfe" + b"\x01a" * 2_000_000, "more than 100,000 blocks"),
        (GIF + b"x" * 2_000_000, "more than 100,000 blocks"),
        (b"P3\n800 800\n255\n" + b"1 " * 2_000_000, "pixels written as text"),
        (b"P1\n800 800\n" + b"1" * 2_000_000, "pixels written as text"),
        (b"P6\n" + b"#a\n" * 2_000_000 + b"8 8\n255\n" + bytes(192), "no size in its first"),
        (b"P5\n" + b" " * 2_000_000 + b"8 8\n255\n" + bytes(64), "no size in its first"),
    ],
    ids=["extensions", "sub-blocks", "other bytes", "P3", "P1", "comments", "blanks"],
)
def test_headers_of_millions_of_pieces_are_refused_at_once(data: bytes, complaint: str) -> None:
    begin = time.process_time()
    with pytest.raises(HeaderError, match=complaint):
        check_header(data)
    assert time.process_time() - begin < 1


def test_usual_files_pass() -> None:
    scene = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8))
    for kind, options in (
        ("GIF", {"comment": b"words " * 900}),
        ("GIF", {"save_all": True, "append_images": [scene.rotate(90)]}),
        ("PPM", {}),
        ("PNG", {}),
    ):
        stream = io.BytesIO()
        scene.save(stream, kind, **options)  # type: ignore[arg-type]
        check_header(stream.getvalue())
    check_header(b"P3\n# a comment\n2 2\n255\n" + b"1 2 3 " * 4)
    for data in (b"", b"GIF89a", GIF, GIF + b"!", GIF + b"!\xfe", GIF + b"!\xfe\x09", b"P", b"P6"):
        check_header(data)
