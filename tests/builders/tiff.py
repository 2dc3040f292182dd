"""TIFF files made by hand: every tag of them is the test's choice."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

TYPES = {"H": 3, "I": 4}
KINDS = {"u": 1, "i": 2, "f": 3}


def tiff_file(  # a test names what is odd
    pieces: Sequence[bytes],
    size: tuple[int, int],
    tags: Mapping[int, Sequence[int]] | None = None,
    *,
    order: str = "<",
    offset_tag: int = 273,
    pages: int = 1,
) -> bytes:
    """Return a file of strips, or of tiles; ``tags`` are added to those of 8-bit grey.

    An empty list of values leaves a tag out.
    """
    height, width = size
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    body, offsets = b"", []
    for piece in pieces:
        offsets.append(8 + len(body))
        body += piece
    values: dict[int, Sequence[int]] = {256: [width], 257: [height], 258: [8], 259: [1], 262: [1]}
    values |= {offset_tag: offsets, {273: 279, 324: 325}[offset_tag]: [len(p) for p in pieces]}
    values |= dict(tags or {})
    found = {tag: each for tag, each in sorted(values.items()) if len(each)}
    body += bytes(len(body) % 2)
    entries, start = b"", 8 + len(body)
    for tag, each in found.items():
        packed = struct.pack(f"{order}{len(each)}I", *each)
        place = packed
        if len(packed) > 4:
            place = struct.pack(order + "I", start)
            body += packed
            start += len(packed)
        entries += struct.pack(order + "HHI", tag, 4, len(each)) + place
    directory = struct.pack(order + "H", len(found)) + entries
    first = start
    for page in range(pages):
        next_page = start + len(directory) + 4 if page < pages - 1 else 0
        body += directory + struct.pack(order + "I", next_page)
        start += len(directory) + 4
    return head + struct.pack(order + "I", first) + body


def tiff_of(
    samples: NDArray[np.generic],
    tags: Mapping[int, Sequence[int]] | None = None,
    *,
    order: str = "<",
) -> bytes:
    """Return a file of samples [H, W] or [H, W, S] in one strip, uncompressed."""
    channels = samples.shape[2] if samples.ndim == 3 else 1
    stored = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    own = {
        258: [samples.dtype.itemsize * 8] * channels,
        262: [2 if channels >= 3 else 1],
        277: [channels],
        339: [KINDS[samples.dtype.kind]] * channels,
    }
    return tiff_file([stored], samples.shape[:2], {**own, **(tags or {})}, order=order)
