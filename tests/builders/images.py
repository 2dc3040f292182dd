"""What tests look at in pictures."""

from __future__ import annotations

import io

from PIL import Image


def opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        picture.load()
        return picture
