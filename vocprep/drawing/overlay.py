"""Overlays: the image, its label map laid over it, and a legend, side by side."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

LEGEND_ROWS = 12
_SWATCH = 14
_LEGEND_WIDTH = 190


@cache
def palette(count: int = 256) -> NDArray[np.uint8]:
    """Return the colour map of the VOC development kit: uint8 [count, 3].

    The bits of an id are assigned to red, green and blue in turn, to their high bits first, so that
    neighbouring ids have different colours. Ids above 255 repeat the colours in another order.

    >>> palette()[:3].tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    """
    labels = np.arange(count)
    labels = np.where(labels < 256, labels, (labels * 37 + 91) % 256)
    colours = np.zeros((count, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            value = (labels >> (3 * bit + channel)) & 1 if 3 * bit + channel < 8 else 0 * labels
            colours[:, channel] |= (value << (7 - bit)).astype(np.uint8)
    return colours


def overlay(
    image: NDArray[np.uint8],
    label_map: NDArray[np.uint16],
    class_name: Callable[[int], str],
    *,
    unpainted: Collection[int] = (),
    opacity: float = 0.55,
) -> Image.Image:
    """Return a picture of an image [H, W, 3], its label map [H, W] over it, and a legend.

    The legend lists the largest classes with their shares of the pixels. Where the class is one of
    ``unpainted``, such as void and a background, the image stays as it is.
    """
    colours = palette(65536)[label_map]
    painted = np.where(np.isin(label_map, list(unpainted)), 0, opacity)[..., np.newaxis]
    mixed = (image * (1 - painted) + colours * painted).astype(np.uint8)
    height, width = label_map.shape
    legend = _legend(label_map, class_name, unpainted)
    sheet = Image.new("RGB", (2 * width + legend.width, max(height, legend.height)), "white")
    sheet.paste(Image.fromarray(image), (0, 0))
    sheet.paste(Image.fromarray(mixed), (width, 0))
    sheet.paste(legend, (2 * width, 0))
    return sheet


def png_bytes(picture: Image.Image) -> bytes:
    """Return a picture as PNG."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _legend(
    label_map: NDArray[np.uint16], class_name: Callable[[int], str], unpainted: Collection[int]
) -> Image.Image:
    ids, pixels = np.unique(label_map, return_counts=True)
    areas = sorted(zip(ids.tolist(), pixels.tolist(), strict=True), key=lambda item: -item[1])
    rows = areas[:LEGEND_ROWS]
    line = _SWATCH + 4
    legend = Image.new("RGB", (_LEGEND_WIDTH, line * (len(rows) + 1) + 8), "white")
    draw = ImageDraw.Draw(legend)
    font = ImageFont.load_default(size=12)
    colours = palette(65536)
    for number, (class_id, area) in enumerate(rows):
        top = 6 + number * line
        colour = (
            tuple(int(channel) for channel in colours[class_id])
            if class_id not in unpainted
            else None
        )
        draw.rectangle((8, top, 8 + _SWATCH, top + _SWATCH), fill=colour, outline="black")
        percent = 100 * area / label_map.size
        share = f"{class_name(class_id)}  " + (f"{percent:.0f} %" if percent >= 1 else "< 1 %")
        draw.text((14 + _SWATCH, top), share, fill="black", font=font)
    if len(areas) > len(rows):
        text = f"and {len(areas) - len(rows)} more"
        draw.text((14 + _SWATCH, 6 + len(rows) * line), text, fill="black", font=font)
    return legend
