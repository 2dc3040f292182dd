"""Pictures: what each kind of file becomes, and what damage is told."""

from __future__ import annotations

import io
import itertools
import os
import re
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from builders.fuzzing import fuzz
from builders.jpeg import exif_of, scan_bomb, with_segments
from builders.png import chunk, header, png_file
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vocprep.errors import ImageDecodeError
from vocprep.features.image import (
    decode_image,
    decode_jpeg,
    is_plain_jpeg,
    jpeg_size,
    read_image_file,
)

pytestmark = pytest.mark.usefixtures("no_warning_escapes")

HEIGHT, WIDTH = 40, 56


def scene() -> NDArray[np.uint8]:
    """A smooth picture, so that JPEG changes little, with a corner that shows any turn."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    picture = np.stack([rows * 4, columns * 4, 255 - rows * 2 - columns], axis=2).astype(np.uint8)
    picture[:10, :10] = 255
    return picture


def saved(
    picture: NDArray[np.uint8], kind: str = "JPEG", mode: str = "RGB", **options: object
) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    return saved(scene(), "JPEG", mode, quality=95, **options)


def with_size(data: bytes, height: int, width: int) -> bytes:
    """Return a baseline JPEG whose header states another size."""
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


def assert_close(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    assert (found.dtype, found.shape) == (np.uint8, expected.shape)
    assert np.abs(found.astype(int) - expected).mean() < 4


DECODERS = pytest.mark.parametrize("decode", [decode_jpeg, decode_image])


@DECODERS
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}]
)
def test_jpeg_of_any_layout_is_read(decode: object, options: dict[str, object]) -> None:
    assert_close(decode(jpeg(**options), "x"), scene())  # type: ignore[operator]


def test_both_decoders_give_the_same_pixels() -> None:
    np.testing.assert_array_equal(decode_jpeg(jpeg(), "x"), decode_image(jpeg(), "x"))


@DECODERS
def test_grey_becomes_three_equal_channels(decode: object) -> None:
    found = decode(jpeg("L"), "x")  # type: ignore[operator]
    assert_close(found, np.asarray(Image.fromarray(scene()).convert("L").convert("RGB")))
    assert (found == found[..., :1]).all()


@DECODERS
def test_cmyk_is_converted_as_pillow_does(decode: object) -> None:
    data = jpeg("CMYK")
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.mode == "CMYK"
        expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(decode(data, "x"), expected)  # type: ignore[operator]


def test_orientation_is_ignored_in_builds_and_followed_for_viewing() -> None:
    data = jpeg(exif=exif_of(6))
    assert jpeg_size(data, "x") == (HEIGHT, WIDTH)
    assert_close(decode_jpeg(data, "x"), scene())
    assert_close(decode_image(data, "x"), np.rot90(scene(), k=-1))


def test_the_size_is_read_from_the_header_alone() -> None:
    data = jpeg()
    assert jpeg_size(data[: data.index(b"\xff\xda") + 16], "x") == (HEIGHT, WIDTH)


def sixteen_bit_png(grey: NDArray[np.uint16]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "PNG")
    return stream.getvalue()


def test_16_bit_grey_is_scaled_down() -> None:
    grey = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    found = decode_image(sixteen_bit_png(grey), "x")
    assert found[0].tolist() == [[value >> 8] * 3 for value in grey[0].tolist()]


def test_16_bit_colour_is_scaled_down() -> None:
    values = struct.pack(">6H", 0, 256, 65535, 300, 32768, 1000)
    data = png_file(header(2, 1, depth=16, colour=2), zlib.compress(b"\0" + values))
    assert decode_image(data, "x").tolist() == [[[0, 1, 255], [1, 128, 3]]]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "PPM"])
def test_common_kinds_of_picture_are_read(kind: str) -> None:
    assert_close(decode_image(saved(scene(), kind), "x"), scene())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "1", "L"])
def test_png_of_any_mode_becomes_rgb(mode: str) -> None:
    with Image.open(io.BytesIO(saved(scene(), "PNG", mode))) as picture:
        expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(decode_image(saved(scene(), "PNG", mode), "x"), expected)


def test_a_palette_with_transparency_is_read_without_a_warning() -> None:
    data = saved(scene(), "PNG", "P", transparency=bytes(range(16)))
    assert decode_image(data, "x").shape == scene().shape


def refuse(data: bytes, complaint: str, *decoders: object) -> None:
    for decode in decoders or (decode_jpeg, decode_image):
        with pytest.raises(ImageDecodeError, match=complaint) as caught:
            decode(data, "some/file.jpg")  # type: ignore[operator]
        assert str(caught.value).startswith("some/file.jpg: ")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncation_is_refused(mode: str, progressive: bool) -> None:
    data = jpeg(mode, progressive=progressive)
    for length in [0, 1, 2, 20, 200, *range(300, len(data) - 2, 97)]:
        refuse(data[:length], "does not decode|an empty file|no picture: 1 bytes", decode_jpeg)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "an empty file, where a .*picture is expected.*; replace it by a sound copy"),
        (b"<html>404</html>" * 9, "a web page, .* get the file itself"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer, .* run git lfs pull"),
        (
            b"0123",
            "no picture: 4 bytes that begin with 30 31 32 33 .*, where a .*picture is expected",
        ),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "a macOS resource file, .*copy the file itself"),
        (b"\xff\xd8\xff\xe0", "picture does not decode: its header is damaged"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_kind(data: bytes, complaint: str) -> None:
    refuse(data, complaint, decode_jpeg, jpeg_size)
    if not data.startswith(b"\xff\xd8"):
        refuse(data, complaint, decode_image)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_other_pictures_are_refused_in_builds_with_what_to_do(kind: str) -> None:
    complaint = f"(?i)a {kind} picture, where a JPEG picture is expected; .*convert it to JPEG"
    refuse(saved(scene(), kind), complaint, decode_jpeg, jpeg_size)


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"avif"])
def test_kinds_that_are_not_opened_are_named(brand: bytes) -> None:
    data = b"\0\0\0\x1cftyp" + brand + bytes(40)
    refuse(data, "a(n AVIF| HEIC) picture, .* convert it to JPEG or PNG", decode_image)
    refuse(data, "a(n AVIF| HEIC) picture, .* convert it to JPEG", decode_jpeg)


@pytest.mark.parametrize("stated", range(1, 9))
def test_pictures_are_turned_for_viewing_as_pillow_turns_them(stated: int) -> None:
    data = jpeg(exif=exif_of(stated))
    with Image.open(io.BytesIO(data)) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    np.testing.assert_array_equal(decode_image(data, "x"), expected)
    np.testing.assert_array_equal(decode_jpeg(data, "x"), decode_jpeg(jpeg(), "x"))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_pixel_data_that_end_before_their_end_mark_are_refused(
    mode: str, progressive: bool
) -> None:
    """Pillow, and viewers, fill what is missing with grey."""
    data = jpeg(mode, progressive=progressive)
    scans = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    longest = max(itertools.pairwise([*scans, len(data)]), key=lambda ends: ends[1] - ends[0])
    cut = data[: sum(longest) // 2] + b"\xff\xd9"
    refuse(cut, "does not decode: its pixel data end early; replace it by a sound copy")


def test_flaws_that_viewers_pass_over_are_refused_in_builds_only() -> None:
    data = jpeg()
    end = data.index(b"\xff\xda")
    flawed = data[:end] + b"\0\1\2" + data[end:]
    refuse(flawed, "extraneous bytes", decode_jpeg)
    np.testing.assert_array_equal(decode_image(flawed, "x"), decode_image(data, "x"))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (scan_bomb(5000), "does not decode: more than 100 scans, .*; save it again as JPEG"),
        (with_segments(jpeg(), 5000), "does not decode: more than 500 segments before its first"),
        (with_segments(jpeg("CMYK"), 5000, 0xE1, b"Exif\0\0"), "more than 500 segments"),
    ],
    ids=["scans", "segments", "metadata"],
)
def test_work_is_bounded_before_a_decoder_begins(data: bytes, complaint: str) -> None:
    begin = time.process_time()
    refuse(data, complaint, decode_jpeg, decode_image, jpeg_size, is_plain_jpeg)
    assert time.process_time() - begin < 1


def test_profiles_of_a_png_are_not_unpacked() -> None:
    data = png_file(header(2, 1), zlib.compress(b"\0ab"))
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 20)))
    begin = time.process_time()
    assert decode_image(data[:33] + profile * 3000 + data[33:], "x").shape == (1, 2, 3)
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    "data",
    [b"P3\n9 9\n255\n" + b"1 " * 600_000, b"GIF89a" + bytes(7) + b"!\xfe\0" * 100_001],
    ids=["PPM as text", "GIF of blocks"],
)
def test_pictures_that_take_too_long_to_read_are_refused(data: bytes) -> None:
    refuse(data, "does not decode: .*; save it again as PNG", decode_image)


@pytest.mark.parametrize(
    "data", [b"\xff\xd8\xff\xe0", b"II*\0" + bytes(9), b"GIF89a"], ids=["JPEG", "TIFF", "GIF"]
)
def test_no_message_names_an_object_of_the_program(data: bytes) -> None:
    refuse(data, "picture does not decode: its header is damaged", decode_image)


@pytest.mark.parametrize(
    ("marker", "bits", "kind"), [(0xC3, 8, "lossless"), (0xC1, 12, "of 12 bits per colour")]
)
def test_kinds_of_jpeg_that_are_not_read_are_named(marker: int, bits: int, kind: str) -> None:
    data = bytearray(jpeg())
    start = data.index(b"\xff\xc0")
    data[start + 1], data[start + 4] = marker, bits
    refuse(bytes(data), f"a JPEG that is {kind}, which is not read; save it again", decode_jpeg)


def test_pixel_data_of_a_png_that_end_early_are_refused() -> None:
    rows = bytes(range(1, 31)) * 10
    head = header(29, 10)
    assert decode_image(png_file(head, zlib.compress(b"\0" * 300)), "x").shape == (10, 29, 3)
    refuse(png_file(head, zlib.compress(rows[:180])), "end after 6 of 10 rows", decode_image)
    refuse(png_file(head, zlib.compress(rows + rows)), "are more than 29×10", decode_image)
    refuse(png_file(header(9000, 9000), b""), "expected at most 67108864 pixels", decode_image)


def test_the_still_picture_of_an_animated_png_is_read() -> None:
    stream = io.BytesIO()
    frames = [Image.fromarray(scene()), Image.fromarray(255 - scene())]
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:])
    assert b"acTL" in stream.getvalue()
    np.testing.assert_array_equal(decode_image(stream.getvalue(), "x"), scene())


@pytest.mark.parametrize("size", [(65500, 65500), (9500, 9500), (8193, 8192)])
def test_bomb_headers_are_refused(size: tuple[int, int]) -> None:
    refuse(with_size(jpeg(), *size), "pixels|does not decode", decode_jpeg, decode_image)
    refuse(with_size(jpeg("CMYK"), *size), "pixels|does not decode")
    refuse(with_size(jpeg(), *size), f"picture of {size[1]}×{size[0]} pixels", decode_jpeg)


def test_a_wrong_height_is_refused() -> None:
    refuse(with_size(jpeg(), HEIGHT * 4, WIDTH), "picture does not decode", decode_jpeg)


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(5 << 30)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (Path.mkdir, "a folder, no regular file"),
        (lambda path: None, "No such file"),
        (os.mkfifo, "a pipe, no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "a character device, no regular file"),
        (sparse, "5,368,709,120 bytes, where at most 268,435,456 are expected"),
    ],
    ids=["folder", "missing", "pipe", "device", "sparse"],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, make: object, complaint: str) -> None:
    path = tmp_path / "a.jpg"
    make(path)  # type: ignore[operator]
    message = re.escape(f"{path}: picture cannot be read: {complaint}")
    with pytest.raises(ImageDecodeError, match=message):
        read_image_file(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["decode_jpeg", "decode_image"])
def test_damaged_pictures_decode_or_are_refused(name: str) -> None:
    seeds = [
        jpeg(),
        jpeg(progressive=True),
        jpeg("L"),
        jpeg("CMYK"),
        jpeg(exif=exif_of(6), restart_marker_blocks=2),
        saved(scene()[:9], "PNG", "P"),
    ]
    decoded, refused = fuzz(name, seeds, 1500, seed=0)
    assert decoded + refused == 1500
    assert min(decoded, refused) > 100


def test_real_pictures_decode_alike_in_both_decoders(shared_data: Path) -> None:
    folder = shared_data / "pascal-context" / "VOCdevkit" / "VOC2010" / "JPEGImages"
    paths = sorted(folder.glob("*.jpg"))
    if not paths:
        pytest.skip("no real pictures there")
    for path in paths:
        data = read_image_file(path)
        found = decode_jpeg(data, str(path))
        assert found.shape == (*jpeg_size(data, str(path)), 3)
        np.testing.assert_array_equal(found, decode_image(data, str(path)))
