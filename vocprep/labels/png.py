"""Label maps as PNG: reading palette and grey files, writing 16-bit ones."""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from vocprep.errors import LabelDecodeError
from vocprep.formats.png import (
    GREY,
    PALETTE,
    SIGNATURE,
    Header,
    Png,
    PngError,
    check_pixel_data,
    inflate_pixel_data,
    read_png,
)
from vocprep.formats.png_writing import encode_grey_png
from vocprep.labels.advice import no_ids, no_png, too_large

MAX_PIXELS = 1 << 25
"""A label map with more pixels than this is refused as a decompression bomb."""
_DEPTHS = {GREY: (1, 2, 4, 8, 16), PALETTE: (1, 2, 4, 8)}
"""Bits per pixel by colour type."""
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


def encode_png(label_map: NDArray[np.uint16]) -> bytes:
    """Write a label map [H, W] as a 16-bit grey PNG."""
    return encode_grey_png(label_map)


def decode_png(data: bytes, where: str, *, is_record: bool = False) -> NDArray[np.uint16]:
    """Read a label map uint16 [H, W] from a palette or grey PNG.

    A palette PNG's indices are the ids, and the values of a grey one as they are stored: 0 and 1 of
    1 bit, which programs show as 0 and 255. Its colours, and chunks that no pixel depends on, are
    ignored, but every chunk's checksum must be right, and the pixel data exactly as many as the
    header says; those of a record (``is_record``), which has digests, are not counted. Raises
    LabelDecodeError naming ``where``.

    >>> decode_png(encode_png(np.array([[3, 459]], dtype=np.uint16)), "a.png").tolist()
    [[3, 459]]
    """
    try:
        png = _read(data)
        return _pixels(png) if not is_record else _decode_with_pillow(png)
    except _BadPngError as error:
        raise LabelDecodeError(
            f"{where}: {error}", recorded=f"{where}: {error.recorded}"
        ) from error


class _BadPngError(Exception):
    """A defect of a file, without the file's name; caught in this module."""

    def __init__(self, message: str, recorded: str = "") -> None:
        super().__init__(message)
        self.recorded = recorded


def _read(data: bytes) -> Png:
    """Return a PNG whose checksums are right and whose pixels are label ids."""
    if not data.startswith(SIGNATURE):
        raise _BadPngError(
            no_png(data),
            f"not a PNG file: expected its signature, found {data[:8]!r} in {len(data)} "
            "bytes; fetch the file again",
        )
    try:
        png = read_png(data, lambda kind: kind not in _CRITICAL)
    except (PngError, struct.error) as error:  # struct.error: a header that is too short
        raise _damaged(error) from error
    _check_ids(png.header)
    return png


def _pixels(png: Png) -> NDArray[np.uint16]:
    """Return the label ids [H, W] of a PNG, after counting its pixel data."""
    header = png.header
    try:
        if header.depth != 8 or any(header.methods):
            check_pixel_data(png)
            return _decode_with_pillow(png)
        rows = np.frombuffer(inflate_pixel_data(png), np.uint8)
    except PngError as error:
        raise _damaged(error, recorded=_reason_of_pillow(png)) from error
    rows = rows.reshape(header.height, header.row_bytes)
    if not header.width or rows[:, 0].any():
        return _decode_with_pillow(png)
    return rows[:, 1:].astype(np.uint16)  # without filters, as palette files are mostly written


def _decode_with_pillow(png: Png) -> NDArray[np.uint16]:
    try:
        # Image.open would warn of large sizes, which are checked here already.
        with PngImageFile(io.BytesIO(png.data)) as image:
            image.load()
            values = np.asarray(image).astype(np.uint16)
            # Pillow scales grey of 2 and 4 bits up, as viewers do.
            is_scaled = png.header.colour == GREY and png.header.depth in (2, 4)
            return (
                values // np.uint16(255 // ((1 << png.header.depth) - 1)) if is_scaled else values
            )
    # Pillow raises many types of exceptions on damaged data.
    except Exception as error:
        raise _damaged(error) from error


def _reason_of_pillow(png: Png) -> str | None:
    """Return what has been recorded of a file that Pillow refuses; None when it does not."""
    try:
        _decode_with_pillow(png)
    except _BadPngError as error:
        return error.recorded
    return None


def _damaged(error: Exception, recorded: str | None = "") -> _BadPngError:
    """Return the error of a damaged file; ``recorded`` is None for damage not seen before."""
    message = f"PNG does not decode: {error}; replace it by a sound copy"
    if recorded == "":
        recorded = f"PNG does not decode: {error}; fetch the file again"
    return _BadPngError(message, recorded or message)


def _check_ids(header: Header) -> None:
    """Raise _BadPngError for an image that is too large or whose pixels are not label ids."""
    if header.width * header.height > MAX_PIXELS:
        raise _BadPngError(
            too_large(header.width, header.height, MAX_PIXELS),
            f"PNG does not decode: {header.width}×{header.height} pixels; expected at most "
            f"{MAX_PIXELS}; fetch the file again",
        )
    if header.depth not in _DEPTHS.get(header.colour, ()):
        found = f"{header.colour} of {header.depth} bits"
        raise _BadPngError(
            no_ids(header) or str(_damaged(PngError(f"colour type {found}, which does not exist"))),
            f"PNG does not decode: colour type {found}; expected "
            "palette, 8-bit or 16-bit grey label ids; fetch the file again",
        )
