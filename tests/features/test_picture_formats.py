"""Pictures of datasets in formats other than JPEG: the rule for each kind of pixel, and damage."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from builders.fuzzing import fuzz
from builders.jpeg import exif_of
from builders.png import chunk, header, png_file
from builders.tiff import tiff_file, tiff_of
from numpy.typing import NDArray
from PIL import Image

from vocprep.errors import ImageDecodeError
from vocprep.features.image import decode_jpeg, decode_picture, jpeg_size, picture_size
from vocprep.formats.orientations import orientation, swaps_sides

pytestmark = pytest.mark.usefixtures("no_warning_escapes")

LOSSY_WEBP = (
    "UklGRo4BAABXRUJQVlA4IIIBAABwCACdASoiABUAPwFsrVArJaQiqqwBYCAJbACdMoR8qSy0+/zgebdXnp9Mg3l3/g"
    "G6BpUGZQSehbLZIF88XzJKX4I7Nzh2p+Bnv4oAAP7bgUwEck9Atercnn/+fmFPD/hquEAiF3CrkqCNJ+lxeAkpcubD"
    "s8ssv8Hy5YMWUm0/3/9iJmBLSoOpzXCVxuyMdWZs8uGjzfQBKroWgJIGX2Npa7rfh7oIybHRNPp6j64B86hKN1qjWx"
    "9hrT2ZTOAO+ot+IJ0QAdZciFFjFfOKHxgCCgaH4ZoSQ4EHbVspSGpwOWEpUdLH672EYk6AnVams4f8n2bWx/k+fQaQ"
    "ZPkj/v7IgTn4qdQoB5ZHxzQuPFr2HfvLpGBLR9qLsnIId/yX/OIMUwuqTnTNDA6cfDcoRS+luLybrhpfx/+prkaWV7"
    "xmTWxiOrBbbw/tUb7ZAUQ0+jf7fYtoIIx0kbtDxEim1zt4yA3XH8U6dhd+pmLTXUJQa4QZ8+9GzFb5yBqsKPoEh7mA"
    "AA=="
)
LOSSY_PIXELS = "687b337dc631db2e5a888eda2c360fc01d87c077803b722038d5cad90b61a2fe"
"""Of a build of libwebp 1.2.4 without SIMD, on x86-64."""
HEIGHT, WIDTH = 21, 34
SUFFIX_OF = {"PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp"}


def scene() -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([rows * 12, columns * 7, 255 - rows * 3 - columns], axis=2).astype(np.uint8)


def saved(kind: str, mode: str = "RGB", **options: object) -> bytes:
    if kind == "WEBP":
        options = {"lossless": True, "exact": True, **options}
    stream = io.BytesIO()
    Image.fromarray(scene()).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def refuse(data: bytes, name: str, complaint: str) -> None:
    with pytest.raises(ImageDecodeError, match=complaint) as caught:
        decode_picture(data, f"some/{name}")
    assert str(caught.value).startswith(f"some/{name}: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", SUFFIX_OF)
def test_colours_are_read_to_the_bit(kind: str) -> None:
    for suffix in (SUFFIX_OF[kind], SUFFIX_OF[kind].upper()):
        found = decode_picture(saved(kind), f"a{suffix}")
        np.testing.assert_array_equal(found, scene())
        assert (found.dtype, found.flags.c_contiguous) == (np.uint8, True)
        assert picture_size(saved(kind), f"a{suffix}") == (HEIGHT, WIDTH)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a", "b.c/a.jpg"])
def test_jpeg_is_read_as_before(name: str) -> None:
    data = saved("JPEG")
    np.testing.assert_array_equal(decode_picture(data, name), decode_jpeg(data, name))
    assert picture_size(data, name) == jpeg_size(data, name) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_and_palettes_become_their_colours(kind: str, mode: str) -> None:
    data = saved(kind, mode)
    with Image.open(io.BytesIO(data)) as picture:
        expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(decode_picture(data, f"a{SUFFIX_OF[kind]}"), expected)


@pytest.mark.parametrize("bits", [2, 4])
def test_narrow_grey_is_scaled_to_white(bits: int) -> None:
    top = (1 << bits) - 1
    row = np.arange(8) % (top + 1)
    text = "".join(f"{value:0{bits}b}" for value in row)
    packed = int(text, 2).to_bytes(len(text) // 8)
    expected = [[value * 255 // top] * 3 for value in row.tolist()]
    png = png_file(header(8, 1, depth=bits), zlib.compress(b"\0" + packed))
    assert decode_picture(png, "a.png")[0].tolist() == expected
    assert decode_picture(tiff_file([packed], (1, 8), {258: [bits]}), "a.tif")[0].tolist() == (
        expected
    )


def test_16_bits_lose_their_lower_half() -> None:
    grey = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    expected = [[value >> 8] * 3 for value in grey[0].tolist()]
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "PNG")
    assert decode_picture(stream.getvalue(), "a.png")[0].tolist() == expected
    for order in "<>":
        assert decode_picture(tiff_of(grey, order=order), "a.tif")[0].tolist() == expected
    colour = np.array([[[0, 256, 65535], [300, 32768, 1000]]], dtype=np.uint16)
    rows = b"\0" + colour.astype(">u2").tobytes()
    png = png_file(header(2, 1, depth=16, colour=2), zlib.compress(rows))
    for data, name in ((png, "a.png"), (tiff_of(colour), "a.tif")):
        assert decode_picture(data, name)[0].tolist() == [[0, 1, 255], [1, 128, 3]]


def test_cmyk_and_white_that_is_zero() -> None:
    data = saved("TIFF", "CMYK")
    with Image.open(io.BytesIO(data)) as picture:
        expected = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(decode_picture(data, "a.tif"), expected)
    inverted = tiff_of(scene()[..., 0], {262: [0]})
    np.testing.assert_array_equal(
        decode_picture(inverted, "a.tif"), np.repeat(255 - scene()[..., :1], 3, axis=2)
    )


def test_palettes_of_8_bits_in_a_tiff_are_not_scaled() -> None:
    colours = [value for channel in range(3) for value in [channel * 20 + 3] * 256]
    data = tiff_of(np.zeros((2, 2), np.uint8), {262: [3], 320: colours})
    assert decode_picture(data, "a.tif")[0, 0].tolist() == [3, 23, 43]


def with_alpha(value: int) -> Image.Image:
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[3, 4] = value
    return Image.fromarray(np.concatenate([scene(), alpha], axis=2))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_left_out_where_all_is_opaque_and_refused_elsewhere(kind: str, mode: str) -> None:
    options: dict[str, object] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    if (kind, mode) == ("WEBP", "LA"):
        return
    for value in (255, 254, 0):
        stream = io.BytesIO()
        with_alpha(value).convert(mode).save(stream, kind, **options)
        name = f"a{SUFFIX_OF[kind]}"
        if value == 255:
            expected = Image.fromarray(scene()).convert(mode[:-1]).convert("RGB")
            np.testing.assert_array_equal(
                decode_picture(stream.getvalue(), name), np.asarray(expected)
            )
        else:
            refuse(stream.getvalue(), name, "transparent pixels, .*; save it without an alpha")


@pytest.mark.parametrize(
    ("colour", "depth", "key", "rows", "is_used"),
    [
        (0, 8, [7], b"\0\5\7", True),
        (0, 8, [9], b"\0\5\7", False),
        (0, 4, [7], b"\0\x57", True),
        (2, 8, [1, 2, 3], b"\0\1\2\3\1\2\4", True),
        (2, 8, [1, 2, 2], b"\0\1\2\3\1\2\4", False),
        (0, 16, [0x0507], b"\0\5\7\5\6", True),
        (0, 16, [0x0707], b"\0\5\7\5\6", False),
    ],
)
def test_a_transparent_colour_counts_where_it_occurs(
    colour: int, depth: int, key: list[int], rows: bytes, is_used: bool
) -> None:
    head = header(2, 1, depth=depth, colour=colour)
    data = png_file(head + chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)), zlib.compress(rows))
    if is_used:
        refuse(data, "a.png", "transparent pixels")
    else:
        assert decode_picture(data, "a.png").shape == (1, 2, 3)


def test_transparent_colours_of_a_palette_count_where_they_occur() -> None:
    picture = Image.fromarray(np.array([[0, 2], [2, 0]], np.uint8))
    picture.putpalette([10, 20, 30] * 3)
    for alphas, is_used in ((b"\xff\0\xff", False), (b"\xff\xff\x80", True)):
        stream = io.BytesIO()
        picture.save(stream, "PNG", transparency=alphas)
        if is_used:
            refuse(stream.getvalue(), "a.png", "transparent pixels")
        else:
            assert decode_picture(stream.getvalue(), "a.png")[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_several_pictures_in_a_file_are_refused(kind: str) -> None:
    stream = io.BytesIO()
    frames = [Image.fromarray(scene()), Image.fromarray(255 - scene())]
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    refuse(stream.getvalue(), f"a{SUFFIX_OF[kind]}", "(an animation|2 pages), where one .*; save")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_found_and_ignored(kind: str) -> None:
    name = f"a{SUFFIX_OF.get(kind, '.jpg')}"
    plain = saved(kind)
    turned = saved(kind, exif=exif_of(6))
    assert (orientation(plain), orientation(turned)) == (1, 6)
    assert (swaps_sides(plain), swaps_sides(turned)) == (False, True)
    assert picture_size(turned, name) == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(decode_picture(turned, name), decode_picture(plain, name))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".bmp"])
def test_the_content_must_be_what_the_suffix_says(kind: str, suffix: str) -> None:
    own = {**SUFFIX_OF, "JPEG": ".jpg", "TIFF": ".tiff", "GIF": ".gif"}[kind]
    if own == suffix:
        return
    advice = "convert it to" if kind == "GIF" else f"give its name the suffix {own[:4]}"
    complaint = f"(?i)a {kind} picture, where a .* picture is expected; {advice}"
    refuse(saved(kind), f"a{suffix}", complaint)
    with pytest.raises(ImageDecodeError, match=complaint):
        picture_size(saved(kind), f"a{suffix}")


@pytest.mark.parametrize("kind", [*SUFFIX_OF, "LOSSY"])
def test_every_truncation_is_refused(kind: str) -> None:
    data = saved("WEBP", lossless=False, quality=60) if kind == "LOSSY" else saved(kind)
    name = f"a{SUFFIX_OF.get(kind, '.webp')}"
    for length in range(0, len(data) - 1, max(1, len(data) // 200)):
        refuse(data[:length], name, "does not decode: |an empty file|no picture|is expected")


@pytest.mark.parametrize(
    ("data", "name", "complaint"),
    [
        (tiff_of(np.zeros((2, 2), np.float32)), "a.tif", "a TIFF of float32 values, .*; save it"),
        (tiff_of(np.zeros((2, 2), np.int16)), "a.tif", "a TIFF of int16 values"),
        (tiff_of(np.zeros((2, 2, 6), np.uint8)), "a.tif", "a TIFF of 6 channels, where 3"),
        (tiff_file([b""], (9000, 9000)), "a.tif", "picture of 9000×9000 pixels: .*; scale it down"),
        (png_file(header(9000, 9000), b""), "a.png", "picture of 9000×9000 pixels"),
    ],
)
def test_pictures_that_mean_nothing_or_too_much_are_refused(
    data: bytes, name: str, complaint: str
) -> None:
    refuse(data, name, complaint)


def test_bombs_are_refused_by_their_headers() -> None:
    data = bytearray(saved("BMP"))
    data[18:26] = struct.pack("<ii", 65535, 65535)
    refuse(bytes(data), "a.bmp", "does not decode: its pixel data end after 0 of 65,535 rows")
    data = bytearray(saved("WEBP"))
    data[21:25] = b"\xff" * 4
    refuse(bytes(data), "a.webp", "picture of 16384×16384 pixels")


def test_lossy_webp_gives_the_same_bits_everywhere() -> None:
    """A decoder that rounded otherwise would have to enter the numerics class."""
    data = base64.b64decode(LOSSY_WEBP)
    digest = hashlib.sha256(decode_picture(data, "a.webp").tobytes()).hexdigest()
    assert digest == LOSSY_PIXELS


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*SUFFIX_OF, "LOSSY"])
def test_damaged_pictures_decode_or_are_refused(kind: str) -> None:
    modes = ["RGB", "RGB"] if kind in ("WEBP", "LOSSY") else ["RGB", "L", "P", "1"]
    seeds = [saved(kind, mode) for mode in modes if kind != "LOSSY"]
    if kind == "LOSSY":
        seeds = [saved("WEBP", lossless=False, quality=quality) for quality in (20, 90)]
    if kind == "TIFF":
        more = ("tiff_lzw", "tiff_adobe_deflate", "packbits")
        seeds += [saved(kind, compression=compression) for compression in more]
    decoded, refused = fuzz(f"picture{SUFFIX_OF.get(kind, '.webp')}", seeds, 800, seed=0)
    assert decoded + refused == 800
    assert refused > 50
