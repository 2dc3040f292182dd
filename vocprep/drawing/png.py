"""Pixels as PNG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def png_bytes(picture: Image.Image | NDArray[np.uint8]) -> bytes:
    """Return a picture, or pixels uint8 [H, W, 3], as PNG."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
