"""Image files → uint8 RGB arrays.

A grey image becomes RGB with three equal channels; CMYK is converted by Pillow; progressive JPEG is
read like any other; 16-bit pictures are scaled down to 8 bits. In builds an orientation in the
metadata is ignored, because label maps belong to the stored pixels.

Builds use ``decode_picture``, which is strict and takes the format from the file's name;
``decode_image`` is for viewing, and takes it from the content.

Before pixels are decoded, the work that a file asks for is bounded: its pixels, scans, segments and
chunks.
"""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vocprep.errors import ImageDecodeError
from vocprep.features.image_errors import (
    MAX_PIXELS,
    check_pixels,
    describe_failure,
    image_decode_error,
    is_cut,
)
from vocprep.features.picture_formats import FORMATS, PictureFormat
from vocprep.files.reading import system_reason
from vocprep.formats.headers import HeaderError, check_header
from vocprep.formats.jpeg import JPEG_BEGINNING, JpegError, check_work, frame_kind, orientation
from vocprep.formats.png import SIGNATURE, PngError, check_pixel_data, read_png
from vocprep.storage.places import Place
from vocprep.storage.reading import read_source
from vocprep.validation import explain

MAX_BYTES = 1 << 28
"""Of an image file: four per pixel."""
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that are opened: none whose reader starts another program."""
_LIBJPEG_COLOURS = ("Gray", "YCbCr", "RGB")
"""Colour spaces that libjpeg-turbo itself converts to RGB."""
_NOT_NEEDED = (b"acTL", b"fcTL", b"fdAT", b"iCCP")
"""Chunks of PNG that are left out: animation, and a profile, which Pillow would only unpack."""


def read_image_file(path: Place) -> bytes:
    """Return an image file's bytes; ImageDecodeError when it cannot be read."""
    try:
        return read_source(path, MAX_BYTES)
    except OSError as error:
        problem = f"{path}: picture cannot be read: {explain(error)}"
        recorded = f"{path}: picture cannot be read: {system_reason(error)}"
        raise ImageDecodeError(problem, recorded=recorded) from error


def decode_picture(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode a picture of a dataset strictly, in the format that its suffix names.

    ``where`` is the file's path or name. Returns the stored pixels as RGB uint8 [H, W, 3]. Raises
    ImageDecodeError naming it for a picture of another format, or one that is damaged, animated,
    or partly transparent.
    """
    found = picture_format(where)
    return decode_jpeg(data, where) if found is None else found.decode(data, where)


def picture_size(data: bytes, where: str) -> tuple[int, int]:
    """Return (height, width) of a picture of a dataset from its header, without decoding it."""
    found = picture_format(where)
    return jpeg_size(data, where) if found is None else found.size(data, where)


def picture_format(where: str) -> PictureFormat | None:
    """Return the format that a file's suffix names; None for JPEG, and for suffixes of none."""
    return FORMATS.get(where[where.rfind(".") :].lower())


def jpeg_size(data: bytes, where: str) -> tuple[int, int]:
    """Return (height, width) from a JPEG's header, without decoding it."""
    height, width, _ = _jpeg_header(data, where)
    return height, width


def is_plain_jpeg(data: bytes, where: str) -> bool:
    """Return whether all decoders agree on a JPEG: grey, YCbCr or RGB in 8 bits, Huffman codes.

    Raises ImageDecodeError when its header cannot be read, or it asks for too much work.
    """
    return _jpeg_header(data, where)[2] in _LIBJPEG_COLOURS and frame_kind(data) is None


def decode_jpeg(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode a JPEG strictly: RGB uint8 [H, W, 3].

    Raises ImageDecodeError naming ``where`` for damage that the decoder detects.
    """
    is_plain = _jpeg_header(data, where)[2] in _LIBJPEG_COLOURS
    colours = "RGB" if is_plain else "CMYK"
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace=colours, strict=True)
    except ValueError as error:
        if is_plain:
            raise image_decode_error(where, data, error) from error
        pixels = _decode_with_pillow(data, where)
        if is_cut(error):  # Pillow fills what is missing
            raise ImageDecodeError(f"{where}: {describe_failure(data, error)}") from error
        return pixels
    return pixels if is_plain else _decode_with_pillow(data, where)


def decode_image(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode an image of any common format, upright as viewers show it: RGB uint8 [H, W, 3].

    Flaws of a JPEG that viewers pass over are no error, but pixel data that end early are.
    """
    with warnings.catch_warnings():
        # Pillow warns of flaws in images that it can read.
        warnings.simplefilter("ignore")
        if data.startswith(JPEG_BEGINNING):
            return turned_upright(_decode_with_flaws(data, where), orientation(data))
        if data.startswith(SIGNATURE):
            data = _checked_png(data, where)
        try:
            check_header(data)
        except HeaderError as error:
            raise ImageDecodeError(
                f"{where}: picture does not decode: {error}; save it again as PNG"
            ) from error
        return _decode_with_pillow(data, where, upright=True)


def turned_upright(pixels: NDArray[np.uint8], stated: int) -> NDArray[np.uint8]:
    """Return pixels [H, W, 3] as they are to be shown by an orientation of 1 to 8.

    >>> turned_upright(np.array([[[1], [2]]], dtype=np.uint8), 6)[..., 0].tolist()
    [[1], [2]]
    """
    if stated in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if stated in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if stated in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _jpeg_header(data: bytes, where: str) -> tuple[int, int, str]:
    """Return height, width and colour space; ImageDecodeError for too much work or no JPEG."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise image_decode_error(where, data, error) from error
    check_pixels(height, width, where)
    _check_work(data, height * width, where)
    return height, width, colours


def _check_work(data: bytes, pixels: int, where: str) -> None:
    try:
        check_work(data, pixels)
    except JpegError as error:
        raise ImageDecodeError(
            f"{where}: picture does not decode: {error}; save it again as JPEG"
        ) from error


def _decode_with_flaws(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode a JPEG as viewers do, which pass over flaws; an early end stays an error."""
    try:
        return decode_jpeg(data, where)
    except ImageDecodeError as error:
        flaw = error.__cause__
        if not isinstance(flaw, ValueError) or is_cut(flaw):
            raise
    _check_work(data, MAX_PIXELS, where)
    return _decode_with_pillow(data, where)


def _checked_png(data: bytes, where: str) -> bytes:
    """Return a PNG of the chunks that are needed, after counting its pixel data."""
    try:
        png = read_png(data, lambda kind: kind in _NOT_NEEDED)
        check_pixels(png.header.height, png.header.width, where)
        check_pixel_data(png)
    except (PngError, struct.error) as error:
        raise image_decode_error(where, data, error, is_any_format=True) from error
    return png.data


def _decode_with_pillow(data: bytes, where: str, *, upright: bool = False) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            check_pixels(opened.height, opened.width, where)
            turned = ImageOps.exif_transpose(opened) if upright else opened
            return np.asarray(_eight_bits(turned).convert("RGB"))
    except ImageDecodeError:
        raise
    # Pillow raises many types of exceptions on damaged data.
    except Exception as error:
        raise image_decode_error(where, data, error, is_any_format=upright) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey down; Pillow's own conversion would clip all above 255 to white."""
    if not image.mode.startswith("I"):
        return image
    wide = np.clip(np.asarray(image), 0, 0xFFFF)
    return Image.fromarray((wide >> 8).astype(np.uint8))
