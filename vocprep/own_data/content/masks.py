"""Looking into one mask: its size, what kind of pixels it has, and which values or colours.

Shape legend: H, W pixels.
"""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vocprep.drawing.palette import hex_of
from vocprep.errors import LabelDecodeError
from vocprep.formats.errors import FormatError, UnreadError
from vocprep.formats.png import (
    COLOUR,
    COLOUR_ALPHA,
    GREY_ALPHA,
    PALETTE,
    SIGNATURE,
    PngError,
    read_png,
)
from vocprep.labels.colours import packed_colours, read_colour_png, runs
from vocprep.labels.decode import LabelRule, decode_label_map
from vocprep.own_data.layouts.found import suffix_of

BYTE_MODES = frozenset({"palette PNG", *(f"{depth}-bit grey PNG" for depth in (1, 2, 4, 8))})
"""Modes of masks that hold no id above 255."""
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


def look_into(data: bytes, path: Path, rule: LabelRule | None = None) -> MaskContent:
    """Return what a mask holds, by its bytes; without a ``rule`` its suffix is its kind.

    LabelDecodeError naming ``path`` for a file that is damaged or no mask.
    """
    if rule is not None or suffix_of(path.name) != ".png":
        values, size = _counts(decode_label_map(data, path, rule))
        kind = path.suffix[1:].upper()
        mode = kind if rule is None or rule.segments is None else f"panoptic {kind}"
        return MaskContent(size=size, mode=mode, values=values)
    return _of_png(data, path)


def _of_png(data: bytes, path: Path) -> MaskContent:
    try:
        header = read_png(data, lambda _: False).header if data.startswith(SIGNATURE) else None
    except (PngError, struct.error) as error:
        raise LabelDecodeError(f"{path}: PNG does not decode: {error}") from error
    if header is not None and header.colour in _COLOUR_TYPES:
        size = header.width, header.height
        mode = f"{_COLOUR_TYPES[header.colour]} PNG"
        return MaskContent(size=size, mode=mode, colours=_colours(data, path))
    values, size = _counts(decode_label_map(data, path))
    if header is None or header.colour != PALETTE:
        depth = 0 if header is None else header.depth
        return MaskContent(size=size, mode=f"{depth}-bit grey PNG", values=values)
    palette = _palette(data, values)
    colours: Counter[str] = Counter()
    for value, count in values.items():
        colours[palette[value]] += count
    return MaskContent(
        size=size, mode="palette PNG", values=values, colours=colours, palette=palette
    )


def _counts(ids: NDArray[np.uint16]) -> tuple[dict[int, int], tuple[int, int]]:
    """Return the pixels by id of a label map [H, W], and its width and height."""
    counts = np.bincount(ids.ravel())
    size = int(ids.shape[1]), int(ids.shape[0])
    return {int(key): int(counts[key]) for key in np.flatnonzero(counts)}, size


def _palette(data: bytes, values: Mapping[int, int]) -> dict[int, str]:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        levels = image.getpalette("RGB") or []
    levels = [*levels, *[0] * (768 - len(levels))]
    return {v: hex_of((levels[3 * v], levels[3 * v + 1], levels[3 * v + 2])) for v in values}


def _colours(data: bytes, path: Path) -> dict[str, int]:
    """Return the pixels by colour; runs of equal pixels are counted together."""
    try:
        packed = packed_colours(read_colour_png(data))
    except (FormatError, UnreadError) as error:
        raise LabelDecodeError(f"{path}: {error}") from error
    starts, lengths = runs(packed)
    found, where = np.unique(packed[starts], return_inverse=True)
    counts = np.bincount(where, weights=lengths).astype(np.int64)
    return {f"#{int(c):06x}": int(n) for c, n in zip(found, counts, strict=True)}
