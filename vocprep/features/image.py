"""Image files → uint8 RGB arrays.

A grey image becomes RGB with three equal channels; CMYK is converted by Pillow; progressive JPEG is
read like any other; 16-bit PNG is scaled down to 8 bits. In builds an EXIF orientation is ignored,
because label maps belong to the stored pixels.

The words of the errors are stored as reasons in ``quarantine.jsonl``, whose bytes lock files pin:
other words would need another format version.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from vocprep.errors import ImageDecodeError

MAX_PIXELS = 1 << 26
"""An image with more pixels than this is refused as a decompression bomb."""
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that are opened: none whose reader starts another program."""
_BEGINNINGS = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*", b"MM\0*", b"P")
"""First bytes of those formats."""
_LIBJPEG_COLOURS = ("Gray", "YCbCr", "RGB")
"""Colour spaces that libjpeg-turbo itself converts to RGB."""


def read_image_file(path: Path) -> bytes:
    """Return an image file's bytes; ImageDecodeError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageDecodeError(f"{path}: picture cannot be read: {error.strerror}") from error


def jpeg_size(data: bytes, where: str) -> tuple[int, int]:
    """Return (height, width) from a JPEG's header, without decoding it."""
    height, width, _ = _jpeg_header(data, where)
    return height, width


def is_plain_jpeg(data: bytes, where: str) -> bool:
    """Return whether a JPEG is grey, YCbCr or RGB, whose colours all decoders agree on.

    Raises ImageDecodeError when its header cannot be read or has too many pixels.
    """
    return _jpeg_header(data, where)[2] in _LIBJPEG_COLOURS


def decode_jpeg(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode a JPEG strictly: RGB uint8 [H, W, 3].

    Raises ImageDecodeError naming ``where`` for damage that the decoder detects.
    """
    if not is_plain_jpeg(data, where):
        return _decode_with_pillow(data, where)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    except ValueError as error:
        raise image_decode_error(where, data, error) from error
    return pixels


def decode_image(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode an image of any common format, upright as viewers show it: RGB uint8 [H, W, 3]."""
    with warnings.catch_warnings():
        # Pillow warns of flaws in images that it can read.
        warnings.simplefilter("ignore")
        return _decode_with_pillow(data, where, upright=True)


def _jpeg_header(data: bytes, where: str) -> tuple[int, int, str]:
    """Return height, width and colour space; ImageDecodeError when too large or not a JPEG."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise image_decode_error(where, data, error) from error
    _check_size(height, width, where)
    return height, width, colours


def _decode_with_pillow(data: bytes, where: str, *, upright: bool = False) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            _check_size(opened.height, opened.width, where)
            turned = ImageOps.exif_transpose(opened) if upright else opened
            return np.asarray(_eight_bits(turned).convert("RGB"))
    except ImageDecodeError:
        raise
    # Pillow raises many types of exceptions on damaged data.
    except Exception as error:
        raise image_decode_error(where, data, error) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey down; Pillow's own conversion would clip all above 255 to white."""
    if not image.mode.startswith("I"):
        return image
    wide = np.clip(np.asarray(image), 0, 0xFFFF)
    return Image.fromarray((wide >> 8).astype(np.uint8))


def _check_size(height: int, width: int, where: str) -> None:
    if height * width > MAX_PIXELS:
        raise ImageDecodeError(
            f"{where}: picture of {width}×{height} pixels: expected at most {MAX_PIXELS} pixels"
        )


def image_decode_error(where: str, data: bytes, error: Exception) -> ImageDecodeError:
    """Return the error for an image whose decoder failed with ``error``."""
    if isinstance(error, UnidentifiedImageError) or not data.startswith(_BEGINNINGS):
        return ImageDecodeError(
            f"{where}: picture does not decode: {len(data)} bytes that begin with {data[:12]!r} "
            "are no picture of a known kind; fetch the file again"
        )
    return ImageDecodeError(f"{where}: picture does not decode: {error}; fetch the file again")
