"""What JPEG files state before they are decoded, and how much work they may ask for."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from builders.jpeg import exif_of, scan_bomb, with_segments
from PIL import Image, ImageOps

from vocprep.formats.jpeg import (
    MAX_SCANS,
    MAX_SEGMENTS,
    JpegError,
    check_work,
    frame_kind,
    orientation,
    segments,
)

PIXELS = 64 * 64


def jpeg(**options: object) -> bytes:
    stream = io.BytesIO()
    scene = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(scene).save(stream, "JPEG", **options)
    return stream.getvalue()


def test_segments_are_found_without_the_coded_pixels() -> None:
    data = jpeg(progressive=True, restart_marker_blocks=1)
    assert data.count(b"\xff\xd0") > 3
    found = list(segments(data))
    assert (found[0].marker, found[-1].marker) == (0xD8, 0xD9)
    assert sum(item.marker == 0xDA for item in found) == data.count(b"\xff\xda") == 10
    assert all(data[item.start] == 0xFF and item.start < item.stop for item in found)
    assert found[-1].stop == len(data)
    assert list(segments(data + jpeg())) == found  # as of several pictures in one file


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_files_of_usual_encoders_pass(options: dict[str, object]) -> None:
    check_work(jpeg(**options), 1 << 26)


def test_scans_are_bounded_and_fewer_for_large_pictures() -> None:
    check_work(scan_bomb(MAX_SCANS), PIXELS)
    with pytest.raises(JpegError, match="more than 100 scans"):
        check_work(scan_bomb(MAX_SCANS + 1), PIXELS)
    check_work(scan_bomb(24), 1 << 26)
    with pytest.raises(JpegError, match="more than 24 scans"):
        check_work(scan_bomb(25), 1 << 26)


def test_what_looks_like_scans_in_metadata_is_not_counted() -> None:
    check_work(with_segments(jpeg(), 3, body=b"\xff\xda" * 500), PIXELS)


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xED, 0xFE, 0xDB])
def test_segments_are_bounded(marker: int) -> None:
    own = sum(1 for item in segments(jpeg()) if item.marker != 0xDA) - 1
    check_work(with_segments(jpeg(), MAX_SEGMENTS - own, marker), PIXELS)
    for count in (MAX_SEGMENTS - own + 1, 500_000):
        begin = time.process_time()
        with pytest.raises(JpegError, match="more than 500 segments"):
            check_work(with_segments(jpeg(), count, marker), PIXELS)
        assert time.process_time() - begin < 1


def test_segments_between_scans_are_bounded_too() -> None:
    data = scan_bomb(9)
    end = with_segments(data[-2:], 300_000, body=b"\xff\xda")[2:]
    begin = time.process_time()
    with pytest.raises(JpegError, match="scans"):
        check_work(data[:-2] + end, PIXELS)
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    ("marker", "bits", "kind"),
    [
        (0xC0, 8, None),
        (0xC1, 8, None),
        (0xC2, 8, None),
        (0xC1, 12, "of 12 bits per colour"),
        (0xC3, 8, "lossless"),
        (0xC6, 8, "hierarchical"),
        (0xC9, 8, "coded arithmetically"),
        (0xCA, 8, "coded arithmetically"),
    ],
)
def test_unusual_coding_is_named(marker: int, bits: int, kind: str | None) -> None:
    data = bytearray(jpeg())
    start = data.index(b"\xff\xc0")
    data[start + 1], data[start + 4] = marker, bits
    assert frame_kind(bytes(data)) == kind
    assert frame_kind(bytes(data[: start + 3])) is None


@pytest.mark.parametrize("stated", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_read_as_pillow_reads_it(stated: int, order: str) -> None:
    exif = exif_of(stated)
    exif[272] = "a camera"
    body = exif.tobytes()
    data = jpeg(exif=body)
    if order == ">":
        tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, stated, 0, 0)
        data = with_segments(jpeg(), 1, 0xE1, b"Exif\0\0" + tiff)
    assert orientation(data) == stated
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.getexif()[274] == stated


def test_orientation_in_xmp_counts_where_exif_states_none() -> None:
    def xmp(stated: int) -> bytes:
        name = b"http://ns.adobe.com/xap/1.0/\0"
        return name + b'<x:xmpmeta tiff:Orientation="%d"/>' % stated

    data = with_segments(jpeg(), 1, 0xE1, xmp(6))
    assert orientation(data) == 6
    with Image.open(io.BytesIO(data)) as opened:
        assert ImageOps.exif_transpose(opened).getexif().get(274) in (None, 1)
    assert orientation(with_segments(jpeg(exif=exif_of(3)), 1, 0xE1, xmp(6))) == 3


@pytest.mark.parametrize(
    "tiff",
    [
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff\x12\x01",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0\0\0\0\0",
        b"XX*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0",
    ],
)
def test_damaged_metadata_state_no_orientation(tiff: bytes) -> None:
    assert orientation(with_segments(jpeg(), 1, 0xE1, b"Exif\0\0" + tiff)) == 1
    assert orientation(b"\xff\xd8\xff\xe1\x00\x40Exif\0\0" + tiff) == 1


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff\xda", b"Exif\0\0" * 9])
def test_what_is_no_jpeg_has_no_segments_to_speak_of(data: bytes) -> None:
    check_work(data, 1)
    assert orientation(data) == 1
    assert frame_kind(data) is None


def test_real_pictures_pass(shared_data: Path) -> None:
    paths = sorted(shared_data.glob("**/JPEGImages/*.jpg"))
    if not paths:
        pytest.skip("no real pictures there")
    for path in paths:
        data = path.read_bytes()
        check_work(data, 1 << 26)
        assert frame_kind(data) is None
