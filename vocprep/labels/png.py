"""Label maps as PNG: reading palette, grey and 16-bit files, writing 16-bit ones."""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vocprep.errors import LabelDecodeError

MAX_PIXELS = 1 << 25
"""A label map with more pixels than this is taken for a decompression bomb."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MODES = {"P": np.uint8, "L": np.uint8, "I;16": np.uint16}


def encode_png(label_map: NDArray[np.uint16]) -> bytes:
    """Write a label map [H, W] as a 16-bit grey PNG."""
    stream = io.BytesIO()
    Image.fromarray(label_map).save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def decode_png(data: bytes, where: str) -> NDArray[np.uint16]:
    """Read a label map uint16 [H, W] from a palette, 8-bit or 16-bit grey PNG.

    A palette PNG's indices are the ids; its colours do not matter. Raises LabelDecodeError naming
    ``where``.
    """
    if not data.startswith(_SIGNATURE) or len(data) < 24:
        raise LabelDecodeError(
            f"{where}: not a PNG file: expected its signature, found {data[:8]!r} in "
            f"{len(data)} bytes; fetch the file again"
        )
    width, height = struct.unpack(">II", data[16:24])
    if width * height > MAX_PIXELS:
        raise LabelDecodeError(
            f"{where}: PNG of {width}×{height} pixels: expected at most {MAX_PIXELS} pixels"
        )
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            mode = picture.mode
            picture.load()
            pixels = np.asarray(picture)
    # Pillow raises half a dozen types on damaged data; whatever it is, the file is bad.
    except Exception as error:
        raise LabelDecodeError(
            f"{where}: PNG does not decode: {error}; fetch the file again"
        ) from error
    if mode not in _MODES:
        raise LabelDecodeError(
            f"{where}: PNG of mode {mode}: expected palette, 8-bit or 16-bit grey label ids"
        )
    return pixels.astype(np.uint16)
