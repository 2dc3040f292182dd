"""Pictures of datasets that are no JPEG: PNG, WebP, TIFF and BMP, read strictly.

What becomes of each kind of pixel is a rule, the same for all formats: grey gets three equal
channels, a palette its colours, 16 bits become 8 by dropping the lower ones. Transparency is
refused unless every pixel is opaque, because nothing says which colours lie behind it; animations
and several pages are refused; profiles and orientation are ignored. All of it is arithmetic of
integers, so that the pixels are the same on every machine.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vocprep.errors import ImageDecodeError
from vocprep.features.image_errors import check_pixels, of_other_kind
from vocprep.formats import tiff
from vocprep.formats.bmp import bmp_size
from vocprep.formats.errors import FormatError, UnreadError
from vocprep.formats.kinds import kind_of
from vocprep.formats.png import (
    COLOUR,
    PALETTE,
    Png,
    check_pixel_data,
    chunk_body,
    png_header,
    read_png,
)
from vocprep.formats.webp import ANIMATION, webp_size

Pixels = NDArray[np.uint8]
_NEEDED = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
"""Chunks of PNG that decide the pixels."""
_ANIMATED, _TRANSPARENCY = b"acTL", b"tRNS"
_TRANSPARENT = (
    "a picture with transparent pixels, whose colours nothing states; save it without an alpha "
    "channel, or with every pixel opaque"
)


@dataclass(frozen=True, kw_only=True)
class PictureFormat:
    """How pictures of one format are read."""

    kind: str
    """As ``kind_of`` names it."""
    read_size: Callable[[bytes], tuple[int, int]]
    """Returns (height, width) of the header; FormatError."""
    read_pixels: Callable[[bytes], Pixels]
    """Returns RGB [H, W, 3] of a picture whose size is not too large."""

    def size(self, data: bytes, where: str) -> tuple[int, int]:
        """Return (height, width) of a picture; ImageDecodeError naming ``where`` for any other."""
        if kind_of(data) != self.kind:
            raise ImageDecodeError(f"{where}: {of_other_kind(data, self.kind)}")
        try:
            height, width = self.read_size(data)
        except FormatError as error:
            raise _located(error, where) from error
        check_pixels(height, width, where)
        return height, width

    def decode(self, data: bytes, where: str) -> Pixels:
        """Return the pixels [H, W, 3] of a picture; ImageDecodeError naming ``where``."""
        size = self.size(data, where)
        try:
            pixels = self.read_pixels(data)
            if pixels.shape != (*size, 3):
                raise FormatError("its header is damaged")
        except MemoryError:
            raise
        # Pillow raises many types of exceptions on damaged data.
        except Exception as error:
            raise _located(error, where) from error
        return pixels


def _located(error: Exception, where: str) -> ImageDecodeError:
    if isinstance(error, UnreadError):
        return ImageDecodeError(f"{where}: {error}")
    problem = str(error) if isinstance(error, FormatError) else "its pixel data are damaged"
    return ImageDecodeError(
        f"{where}: picture does not decode: {problem}; replace it by a sound copy"
    )


def _with_pillow(data: bytes, kind: str) -> Pixels:
    """Decode with Pillow: RGB [H, W, 3] of a picture without transparent pixels."""
    with Image.open(io.BytesIO(data), formats=[kind]) as opened:
        opened.load()
        if opened.mode.startswith("I"):
            return _grey(np.asarray(opened) >> 8)
        if "A" in opened.getbands() and opened.getchannel("A").getextrema() != (255, 255):
            raise UnreadError(_TRANSPARENT)
        return np.asarray(opened.convert("RGB"))


def _grey(values: NDArray[Any]) -> Pixels:
    """Return brightness [H, W] as three equal channels."""
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)


def _png_size(data: bytes) -> tuple[int, int]:
    header = png_header(data)
    return header.height, header.width


def _png_pixels(data: bytes) -> Pixels:
    """Decode a PNG from the chunks that decide pixels."""
    seen: set[bytes] = set()

    def left_out(kind: bytes) -> bool:
        seen.add(kind)
        return kind not in _NEEDED

    png = read_png(data, left_out)
    if _ANIMATED in seen:
        raise UnreadError(ANIMATION)
    check_pixel_data(png)
    pixels = _with_pillow(png.data, "PNG")
    if _TRANSPARENCY in seen:
        _check_colour_key(png, chunk_body(data, _TRANSPARENCY), pixels)
    return pixels


def _check_colour_key(png: Png, key: bytes, pixels: Pixels) -> None:
    """Raise UnreadError where the chunk that makes colours transparent names one that occurs."""
    if png.header.colour == PALETTE:
        with Image.open(io.BytesIO(png.data), formats=["PNG"]) as opened:
            used = np.unique(np.asarray(opened))
        alpha = np.frombuffer(key.ljust(256, b"\xff")[:256], np.uint8)
        if (alpha[used] < 255).any():
            raise UnreadError(_TRANSPARENT)
        return
    values = np.frombuffer(key[: len(key) // 2 * 2], ">u2").astype(np.int64)
    if len(values) != (3 if png.header.colour == COLOUR else 1):
        raise FormatError("its chunk of transparency is damaged")
    depth = png.header.depth
    scaled = values >> 8 if depth == 16 else values * 255 // ((1 << depth) - 1)
    if (pixels == scaled).all(axis=2).any():
        raise UnreadError(_TRANSPARENT)


def _tiff_size(data: bytes) -> tuple[int, int]:
    page = tiff.read_page(data)
    return page.height, page.width


def _tiff_pixels(data: bytes) -> Pixels:
    page = tiff.read_page(data)
    if page.dtype.kind != "u" or page.bits > 16:
        raise UnreadError(
            f"a TIFF of {page.dtype.name} values, of which none is white; save it with 8 or 16 "
            "bits per channel"
        )
    channels = {tiff.RGB: 3, tiff.CMYK: 4}.get(page.photometric, 1)
    if page.samples not in (channels, channels + 1):
        raise UnreadError(
            f"a TIFF of {page.samples} channels, where {channels} are expected, and an alpha "
            "channel at most; save those of red, green and blue alone"
        )
    samples = tiff.read_samples(data, page)
    if page.samples > channels and samples[..., channels].min() < (1 << page.bits) - 1:
        raise UnreadError(_TRANSPARENT)
    return _tiff_colours(samples[..., :channels], page)


def _tiff_colours(samples: NDArray[Any], page: tiff.TiffPage) -> Pixels:
    """Return the colours [H, W, 3] of samples [H, W, S]."""
    if page.photometric == tiff.PALETTE:
        colours = page.colour_map
        # Some programs write colours of 8 bits.
        narrow = colours if colours.max(initial=0) < 256 else colours >> 8
        found: Pixels = narrow.astype(np.uint8)[samples[..., 0]]
        return found
    if page.bits > 8:
        samples = samples >> 8
    elif page.bits < 8:
        samples = samples * np.uint8(255 // ((1 << page.bits) - 1))
    values = samples.astype(np.uint8)
    if page.photometric == tiff.CMYK:
        return np.asarray(Image.fromarray(values, mode="CMYK").convert("RGB"))
    if page.photometric == tiff.RGB:
        return np.ascontiguousarray(values)
    grey = values[..., 0]
    return _grey(255 - grey if page.photometric == tiff.WHITE_IS_ZERO else grey)


PNG = PictureFormat(kind="a PNG picture", read_size=_png_size, read_pixels=_png_pixels)
WEBP = PictureFormat(
    kind="a WebP picture",
    read_size=webp_size,
    read_pixels=lambda data: _with_pillow(data, "WEBP"),
)
TIFF = PictureFormat(kind="a TIFF picture", read_size=_tiff_size, read_pixels=_tiff_pixels)
BMP = PictureFormat(
    kind="a BMP picture",
    read_size=bmp_size,
    read_pixels=lambda data: _with_pillow(data, "BMP"),
)
FORMATS = {".png": PNG, ".webp": WEBP, ".tif": TIFF, ".tiff": TIFF, ".bmp": BMP}
"""By the suffix of the file, in small letters; JPEG has none here."""
