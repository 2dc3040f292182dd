"""Looking into one mask: its size, what kind of pixels it has, and which values or colours.

Shape legend: H, W pixels.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vocprep.drawing.palette import hex_of
from vocprep.errors import LabelDecodeError
from vocprep.formats.kinds import describe_kind
from vocprep.formats.png import (
    COLOUR,
    COLOUR_ALPHA,
    GREY,
    GREY_ALPHA,
    PALETTE,
    SIGNATURE,
    PngError,
    check_pixel_data,
    read_png,
)
from vocprep.labels.decode import decode_label_map, read_label_file
from vocprep.labels.png import MAX_PIXELS
from vocprep.own_data.layouts.found import suffix_of

_COLOUR_TYPES = {COLOUR: "RGB", COLOUR_ALPHA: "RGBA", GREY_ALPHA: "grey with alpha"}


@dataclass(frozen=True, kw_only=True)
class MaskContent:
    """What one mask holds."""

    size: tuple[int, int]
    """Width and height."""
    mode: str
    """Kind of its pixels, for people."""
    values: Mapping[int, int] = field(default_factory=dict)
    """Pixels by value; empty for a mask of colours."""
    colours: Mapping[str, int] = field(default_factory=dict)
    """Pixels by colour ``#rrggbb``; empty for a mask of values without a palette."""
    palette: Mapping[int, str] = field(default_factory=dict)
    """Colours of the values that occur, where the file has a palette."""


def look_into(data: bytes, path: str) -> MaskContent:
    """Return what a mask holds, by its bytes; its suffix is its kind.

    LabelDecodeError naming ``path`` for a file that is damaged or no mask.
    """
    if suffix_of(path) == ".png":
        return _of_png(data, path)
    values = _counts(decode_values(data, path))
    return MaskContent(size=values[1], mode=suffix_of(path)[1:], values=values[0])


def _of_png(data: bytes, path: str) -> MaskContent:
    if not data.startswith(SIGNATURE):
        what = describe_kind(data)
        lossy = "; its compression has changed the ids: export the masks again, as PNG"
        raise LabelDecodeError(
            f"{path}: {what}, where a PNG mask is expected{lossy if 'JPEG' in what else ''}"
        )
    try:
        png = read_png(data, lambda kind: kind in (b"iCCP", b"acTL", b"fcTL", b"fdAT"))
        header = png.header
        if header.width * header.height > MAX_PIXELS:
            raise PngError(
                f"{header.width}×{header.height} pixels: at most {MAX_PIXELS:,} are read"
            )
        check_pixel_data(png)
    except (PngError, struct.error) as error:
        raise LabelDecodeError(f"{path}: PNG does not decode: {error}") from error
    size = header.width, header.height
    if header.colour in (GREY, PALETTE):
        values, _ = _counts(decode_values(data, path))
        if header.colour == GREY:
            return MaskContent(size=size, mode=f"{header.depth}-bit grey PNG", values=values)
        palette = _palette(png.data, values)
        colours: dict[str, int] = {}
        for value, count in values.items():
            colours[palette[value]] = colours.get(palette[value], 0) + count
        return MaskContent(
            size=size, mode="palette PNG", values=values, colours=colours, palette=palette
        )
    mode = f"{_COLOUR_TYPES.get(header.colour, 'unknown')} PNG"
    return MaskContent(size=size, mode=mode, colours=_colours(png.data, path))


def decode_values(data: bytes, path: str) -> NDArray[np.uint16]:
    """Return the ids [H, W] of a mask of values."""
    return decode_label_map(data, Path(path))


def read_ids(path: Path, table: Mapping[str, int]) -> NDArray[np.uint16]:
    """Return the ids [H, W] of a mask, where colours stand for them by a table of those.

    LabelDecodeError where it does not decode or holds another colour.
    """
    data = read_label_file(path)
    if not table:
        return decode_values(data, str(path))
    packed = _packed(data, str(path))
    found, where = np.unique(packed, return_inverse=True)
    colours = [f"#{int(colour):06x}" for colour in found]
    unknown = next((colour for colour in colours if colour not in table), None)
    if unknown is not None:
        raise LabelDecodeError(f"{path}: colour {unknown} stands for no id")
    ids = np.array([table[colour] for colour in colours], dtype=np.uint16)
    return ids[where].reshape(packed.shape)


def _counts(ids: NDArray[np.uint16]) -> tuple[dict[int, int], tuple[int, int]]:
    counts = np.bincount(ids.ravel())
    size = int(ids.shape[1]), int(ids.shape[0])
    return {int(key): int(counts[key]) for key in np.flatnonzero(counts)}, size


def _palette(data: bytes, values: Mapping[int, int]) -> dict[int, str]:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        levels = image.getpalette("RGB") or []
    levels = [*levels, *[0] * (768 - len(levels))]
    return {v: hex_of((levels[3 * v], levels[3 * v + 1], levels[3 * v + 2])) for v in values}


def _colours(data: bytes, path: str) -> dict[str, int]:
    """Return the pixels by colour; runs of equal pixels are counted together."""
    packed = _packed(data, path).ravel()
    starts = np.flatnonzero(np.concatenate([[True], packed[1:] != packed[:-1]]))
    lengths = np.diff(np.concatenate([starts, [len(packed)]]))
    found, where = np.unique(packed[starts], return_inverse=True)
    counts = np.bincount(where, weights=lengths).astype(np.int64)
    return {f"#{int(c):06x}": int(n) for c, n in zip(found, counts, strict=True)}


def _packed(data: bytes, path: str) -> NDArray[np.uint32]:
    """Return the colours [H, W] of a PNG, each as one number."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            rgb = np.asarray(image.convert("RGB")).astype(np.uint32)
    except Exception as error:  # Pillow raises many types of exceptions on damaged data
        raise LabelDecodeError(f"{path}: PNG does not decode: {error}") from error
    packed: NDArray[np.uint32] = (
        rgb[..., 0] << np.uint32(16) | rgb[..., 1] << np.uint32(8) | rgb[..., 2]
    )
    return packed
