"""Picture files → uint8 RGB arrays.

What the decoders do: a grey picture becomes RGB with three equal channels; CMYK is converted by
Pillow; progressive JPEG is read like any other; 16-bit PNG is scaled down to 8 bits. In builds an
EXIF orientation is ignored, because label maps are drawn on the stored pixels.
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
"""A picture with more pixels than this is taken for a decompression bomb."""
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Kinds of pictures that are opened: no kind whose reader starts another program."""
_BEGINNINGS = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*", b"MM\0*", b"P")
"""First bytes of those kinds."""
_LIBJPEG_COLOURS = ("Gray", "YCbCr", "RGB")
"""Colour spaces that libjpeg-turbo itself turns into RGB."""


def read_image_file(path: Path) -> bytes:
    """Return a picture file's bytes; ImageDecodeError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageDecodeError(f"{path}: picture cannot be read: {error.strerror}") from error


def jpeg_size(data: bytes, where: str) -> tuple[int, int]:
    """Return (height, width) from a JPEG's header, without decoding it."""
    height, width, _ = _jpeg_header(data, where)
    return height, width


def is_plain_jpeg(data: bytes, where: str) -> bool:
    """Say whether JPEG decoders agree on a picture's colours: grey, YCbCr or RGB.

    ImageDecodeError when its header cannot be read or tells of too many pixels.
    """
    return _jpeg_header(data, where)[2] in _LIBJPEG_COLOURS


def decode_jpeg(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode a JPEG strictly: RGB uint8 [H, W, 3].

    Damage that the decoder can see, truncation above all, is an ImageDecodeError naming ``where``.
    """
    if not is_plain_jpeg(data, where):
        return _decode_with_pillow(data, where)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    except ValueError as error:
        raise bad_picture(where, data, error) from error
    return pixels


def decode_picture(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode a person's picture of any common kind, upright as a viewer shows it: RGB [H, W, 3]."""
    with warnings.catch_warnings():
        # Pillow's remarks on pictures that it reads all the same are nothing to act on.
        warnings.simplefilter("ignore")
        return _decode_with_pillow(data, where, upright=True)


def _jpeg_header(data: bytes, where: str) -> tuple[int, int, str]:
    """Return height, width and colour space; ImageDecodeError when too large or no JPEG."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise bad_picture(where, data, error) from error
    _check_size(height, width, where)
    return height, width, colours


def _decode_with_pillow(data: bytes, where: str, *, upright: bool = False) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            _check_size(picture.height, picture.width, where)
            turned = ImageOps.exif_transpose(picture) if upright else picture
            return np.asarray(_eight_bits(turned).convert("RGB"))
    except ImageDecodeError:
        raise
    # Pillow raises half a dozen types on damaged data; whatever it is, the file is bad.
    except Exception as error:
        raise bad_picture(where, data, error) from error


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Scale 16-bit grey down; Pillow's own conversion would clip all above 255 to white."""
    if not picture.mode.startswith("I"):
        return picture
    wide = np.clip(np.asarray(picture), 0, 0xFFFF)
    return Image.fromarray((wide >> 8).astype(np.uint8))


def _check_size(height: int, width: int, where: str) -> None:
    if height * width > MAX_PIXELS:
        raise ImageDecodeError(
            f"{where}: picture of {width}×{height} pixels: expected at most {MAX_PIXELS} pixels"
        )


def bad_picture(where: str, data: bytes, error: Exception) -> ImageDecodeError:
    """Return the error of a picture that its decoder refused."""
    if isinstance(error, UnidentifiedImageError) or not data.startswith(_BEGINNINGS):
        return ImageDecodeError(
            f"{where}: picture does not decode: {len(data)} bytes that begin with {data[:12]!r} "
            "are no picture of a known kind; fetch the file again"
        )
    return ImageDecodeError(f"{where}: picture does not decode: {error}; fetch the file again")
