"""Pixels as PNG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LEVEL = 4
"""Of zlib: a photograph takes a third of the time of level 6, in files a twentieth larger."""


def grey_png(values: NDArray[np.floating]) -> bytes:
    """Return values [H, W] from 0 to 1 as an 8-bit grey PNG of 0 to 255."""
    return png_bytes(np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8))


def png_bytes(picture: Image.Image | NDArray[np.uint8]) -> bytes:
    """Return a picture, or pixels uint8 [H, W, 3] or grey ones [H, W], as PNG."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=_LEVEL)
    return stream.getvalue()
