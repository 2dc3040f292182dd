"""Pictures: what each kind of file becomes, and what damage is told."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from builders.fuzzing import fuzz
from numpy.typing import NDArray
from PIL import Image

from vocprep.errors import ImageDecodeError
from vocprep.features.image import decode_image, decode_jpeg, jpeg_size, read_image_file

pytestmark = pytest.mark.usefixtures("no_warning_escapes")

HEIGHT, WIDTH = 40, 56
ORIENTATION = 274


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


def rotated_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the top of the picture is on its right
    return exif


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
    data = jpeg(exif=rotated_exif())
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
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    values = struct.pack(">6H", 0, 256, 65535, 300, 32768, 1000)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 2, 1, 16, 2, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(b"\0" + values)) + chunk(b"IEND", b"")
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
        refuse(data[:length], "picture does not decode", decode_jpeg)


@pytest.mark.parametrize("data", [b"", b"<html>404</html>" * 9, b"\xff\xd8\xff\xe0"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    refuse(data, "picture does not decode", decode_jpeg, decode_image, jpeg_size)


def test_a_png_named_jpg_is_refused_in_builds() -> None:
    refuse(saved(scene(), "PNG"), "picture does not decode", decode_jpeg, jpeg_size)


@pytest.mark.parametrize("size", [(65500, 65500), (9500, 9500), (8193, 8192)])
def test_bomb_headers_are_refused(size: tuple[int, int]) -> None:
    refuse(with_size(jpeg(), *size), "pixels|does not decode", decode_jpeg, decode_image)
    refuse(with_size(jpeg("CMYK"), *size), "pixels|does not decode")
    refuse(with_size(jpeg(), *size), f"picture of {size[1]}×{size[0]} pixels", decode_jpeg)


def test_a_wrong_height_is_refused() -> None:
    refuse(with_size(jpeg(), HEIGHT * 4, WIDTH), "picture does not decode", decode_jpeg)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None], ids=["folder", "missing"])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, make: object) -> None:
    path = tmp_path / "a.jpg"
    make(path)  # type: ignore[operator]
    with pytest.raises(ImageDecodeError, match=re.escape(f"{path}: picture cannot be read")):
        read_image_file(path)


@pytest.mark.parametrize("name", ["decode_jpeg", "decode_image"])
def test_damaged_pictures_decode_or_are_refused(name: str) -> None:
    seeds = [
        jpeg(),
        jpeg(progressive=True),
        jpeg("L"),
        jpeg("CMYK"),
        jpeg(exif=rotated_exif(), restart_marker_blocks=2),
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
