"""TIFF: a strict reader of plain pictures, in integers.

General readers take a hundred kinds of TIFF, fill what is missing, and report damage on the
standard error output. This one reads strips and tiles of whole numbers or floats, uncompressed or
compressed without loss, and nothing else; every value is checked before it is used. Layout: TIFF
6.0.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vocprep.formats.errors import UnreadError
from vocprep.formats.tiff_codecs import COMPRESSIONS, WITH_PREDICTOR, TiffError, decompress

__all__ = ["TiffError", "TiffPage", "read_page", "read_samples"]

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
"""Values of ``TiffPage.photometric``."""
_OTHER_COLOURS = {4: "a transparency mask", 6: "YCbCr", 8: "CIE L*a*b*", 9: "ICC L*a*b*"}
_LOSSY = {6: "JPEG", 7: "JPEG", 34712: "JPEG 2000", 50001: "WebP", 50002: "JPEG XL", 34887: "LERC"}
_FAX = {2, 3, 4}
_MOST_PAGES = 1000
_MOST_SAMPLES = 64
_TYPES = {1: "B", 3: "H", 4: "I"}
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_FILL_ORDER, _STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES = 266, 273, 277, 278, 279
_PLANES, _PREDICTOR, _COLOUR_MAP, _TILE_WIDTH, _TILE_HEIGHT = 284, 317, 320, 322, 323
_TILE_OFFSETS, _TILE_BYTES, _FORMAT, _SUBFILE = 324, 325, 339, 254
_REDUCED = 1
"""Bit of the subfile type of pages that are smaller copies of another."""
_NO_COLOURS = np.empty((0, 3), dtype=np.uint16)
_KINDS = {1: "u", 2: "i", 3: "f"}
_DIFFERENCES = 2
"""The predictor that stores each sample's difference from its left neighbour."""
Tags = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class TiffPage:
    """What a TIFF states of its one page."""

    width: int
    height: int
    samples: int
    """Numbers per pixel."""
    dtype: np.dtype[Any]
    """Of the samples; uint8 where they have fewer bits."""
    bits: int
    photometric: int
    colour_map: NDArray[np.uint16]
    """Colours uint16 [n, 3] of a palette; [0, 3] without one."""
    order: Literal["<", ">"]
    tags: Tags

    @property
    def is_grey(self) -> bool:
        """Whether the first sample of a pixel is its brightness."""
        return self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)


def read_page(data: bytes) -> TiffPage:
    """Return what the header of a TIFF states; FormatError for several pages, or odd values."""
    orders: dict[bytes, Literal["<", ">"]] = {b"II": "<", b"MM": ">"}
    order = orders.get(data[:2])
    if order is None or len(data) < 8:
        raise TiffError("its header is damaged")
    version, start = struct.unpack_from(order + "HI", data, 2)
    if version == 43:
        raise UnreadError("a BigTIFF, which is not read; save it as a plain TIFF")
    if version != 42:
        raise TiffError("its header is damaged")
    pages = list(_pages(data, order, start))
    tags = pages[0]
    if any(not _one(page, _SUBFILE, 0) & _REDUCED for page in pages[1:]):
        raise UnreadError(f"{len(pages)} pages, where one is expected; save one page alone")
    return _page(tags, order)


def _pages(data: bytes, order: str, start: int) -> Iterator[Tags]:
    """Yield the tags of each page."""
    seen: set[int] = set()
    while start or not seen:
        if start in seen or len(seen) == _MOST_PAGES:
            raise TiffError("its pages do not end")
        seen.add(start)
        if start + 2 > len(data):
            raise TiffError("its directory is cut off")
        (count,) = struct.unpack_from(order + "H", data, start)
        stop = start + 2 + 12 * count
        if stop + 4 > len(data):
            raise TiffError("its directory is cut off")
        yield _tags(data, order, start + 2, count)
        (start,) = struct.unpack_from(order + "I", data, stop)


_WANTED = {
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIP_OFFSETS, _SAMPLES),
    *(_ROWS_PER_STRIP, _STRIP_BYTES, _PLANES, _PREDICTOR, _COLOUR_MAP, _TILE_WIDTH, _TILE_HEIGHT),
    *(_TILE_OFFSETS, _TILE_BYTES, _FORMAT, _SUBFILE),
}


def _tags(data: bytes, order: str, start: int, count: int) -> Tags:
    """Return the values of the tags that decide pixels."""
    found: dict[int, tuple[int, ...]] = {}
    for place in range(start, start + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, place)
        if tag not in _WANTED:
            continue
        if kind not in _TYPES or not number:
            raise TiffError(f"its tag {tag} is of no fitting type")
        form = f"{order}{number}{_TYPES[kind]}"
        size = number * struct.calcsize(order + _TYPES[kind])
        position = place + 8
        if size > 4:
            (position,) = struct.unpack_from(order + "I", data, place + 8)
        if position + size > len(data):
            raise TiffError(f"its tag {tag} is cut off")
        found[tag] = struct.unpack_from(form, data, position)
    return found


def _one(tags: Tags, tag: int, default: int | None = None) -> int:
    """Return a tag's value, which all samples must share."""
    values = tags.get(tag, () if default is None else (default,))
    if not values:
        raise TiffError(f"it lacks the tag {tag}")
    if any(value != values[0] for value in values):
        raise TiffError("its channels differ in kind or bits")
    return values[0]


def _page(tags: Tags, order: Literal["<", ">"]) -> TiffPage:
    bits, samples = _one(tags, _BITS, 1), _one(tags, _SAMPLES, 1)
    kind, compression = _one(tags, _FORMAT, 1), _one(tags, _COMPRESSION, 1)
    photometric = _one(tags, _PHOTOMETRIC)
    if compression in _LOSSY:
        raise UnreadError(
            f"a TIFF compressed as {_LOSSY[compression]}, which loses detail and is not read; save "
            "it without compression, or with LZW or Deflate"
        )
    if compression not in COMPRESSIONS:
        name = "as a fax" if compression in _FAX else f"by method {compression}"
        raise UnreadError(
            f"a TIFF compressed {name}, which is not read; save it without compression, or with "
            "LZW or Deflate"
        )
    if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK):
        name = _OTHER_COLOURS.get(photometric, f"photometry {photometric}")
        raise UnreadError(f"a TIFF of {name} pixels, which is not read; save it as RGB")
    allowed = {1: (1, 2, 4, 8, 16, 32, 64), 2: (8, 16, 32, 64), 3: (16, 32, 64)}
    if bits not in allowed.get(kind, ()):
        raise UnreadError(
            f"a TIFF of {bits}-bit samples of kind {kind}, which is not read; save 8 or 16 bits"
        )
    if _one(tags, _FILL_ORDER, 1) != 1 or not 1 <= samples <= _MOST_SAMPLES:
        raise UnreadError(
            "a TIFF of an uncommon order of bits or number of channels, which is not read; save it "
            "as RGB"
        )
    colours = np.array(tags.get(_COLOUR_MAP, ()), dtype=np.uint16)
    if photometric == PALETTE and (samples != 1 or kind != 1 or len(colours) != 3 << bits):
        raise TiffError("its palette is damaged")
    return TiffPage(
        width=_one(tags, _WIDTH),
        height=_one(tags, _HEIGHT),
        samples=samples,
        dtype=np.dtype(f"{_KINDS[kind]}{max(1, bits // 8)}"),
        bits=bits,
        photometric=photometric,
        colour_map=colours.reshape(3, -1).T
        if photometric == PALETTE
        else colours[:0].reshape(0, 3),
        order=order,
        tags=tags,
    )


@dataclass(frozen=True)
class _Layout:
    """How a page is cut into pieces, strips or tiles."""

    rows: int
    columns: int
    is_tiled: bool
    planes: int
    """Planes that are stored apart from each other."""
    offsets: tuple[int, ...]
    counts: tuple[int, ...]


def _layout(page: TiffPage) -> _Layout:
    tags = page.tags
    is_tiled = _TILE_OFFSETS in tags
    if is_tiled:
        rows, columns = _one(tags, _TILE_HEIGHT), _one(tags, _TILE_WIDTH)
        places = tags[_TILE_OFFSETS], tags.get(_TILE_BYTES, ())
        # Padding of tiles takes memory too.
        if not 0 < rows <= page.height + 1024 or not 0 < columns <= page.width + 1024:
            raise TiffError("its tiles are of an impossible size")
    else:
        rows, columns = min(_one(tags, _ROWS_PER_STRIP, page.height), page.height), page.width
        places = tags.get(_STRIP_OFFSETS, ()), tags.get(_STRIP_BYTES, ())
    planes = page.samples if _one(tags, _PLANES, 1) == 2 else 1
    expected = planes * math.ceil(page.height / max(rows, 1)) * math.ceil(page.width / columns)
    if not rows or not len(places[0]) == len(places[1]) == expected:
        raise TiffError("its list of pieces does not fit its size")
    return _Layout(rows, columns, is_tiled, planes, *places)


def read_samples(data: bytes, page: TiffPage) -> NDArray[Any]:
    """Return the samples [H, W, S] of a page, as they are stored; FormatError for damage.

    The caller bounds the pixels of the page first.
    """
    if not page.width or not page.height:
        raise TiffError("it has no pixels")
    layout = _layout(page)
    samples = np.zeros((page.height, page.width, page.samples), dtype=page.dtype)
    across = math.ceil(page.width / layout.columns)
    per_plane = len(layout.offsets) // layout.planes
    for number, (offset, count) in enumerate(zip(layout.offsets, layout.counts, strict=True)):
        plane, place = divmod(number, per_plane)
        top, left = place // across * layout.rows, place % across * layout.columns
        height, width = min(layout.rows, page.height - top), min(layout.columns, page.width - left)
        if offset + count > len(data):
            raise TiffError("its pixel data end early")
        packed = memoryview(data)[offset : offset + count]
        rows = layout.rows if layout.is_tiled else height
        piece = _piece(packed, page, (rows, layout.columns, page.samples // layout.planes))
        channels = slice(plane, plane + 1) if layout.planes > 1 else slice(None)
        samples[top : top + height, left : left + width, channels] = piece[:height, :width]
    return samples


def _piece(packed: memoryview, page: TiffPage, shape: tuple[int, int, int]) -> NDArray[Any]:
    """Return the samples [h, w, s] of one strip or tile."""
    rows, columns, samples = shape
    row_bytes = math.ceil(columns * samples * page.bits / 8)
    compression = _one(page.tags, _COMPRESSION, 1)
    plain = decompress(packed, compression, rows * row_bytes)
    if page.bits < 8:
        values = _narrow(np.frombuffer(plain, np.uint8).reshape(rows, row_bytes), page.bits)
        piece: NDArray[Any] = values[:, : columns * samples].reshape(shape)
    else:
        stored = page.dtype.newbyteorder(page.order)
        piece = np.frombuffer(plain, stored).astype(page.dtype).reshape(shape)
    predictor = _one(page.tags, _PREDICTOR, 1)
    if predictor == 1 or compression not in WITH_PREDICTOR:
        return piece
    if predictor != _DIFFERENCES or page.bits < 8 or page.dtype.kind == "f":
        raise UnreadError(f"its predictor {predictor} is not read; save it without a predictor")
    sums: NDArray[Any] = np.cumsum(piece, axis=1, dtype=page.dtype)
    return sums


def _narrow(rows: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return the values of 1, 2 or 4 bits in rows of bytes [h, n]."""
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    values: NDArray[np.uint8] = (rows[:, :, None] >> shifts) & np.uint8((1 << bits) - 1)
    return values.reshape(len(rows), -1)
