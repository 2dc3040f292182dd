"""PNG chunks: their checksums, and whether the pixel data are as many as the header says.

Decoders fill rows that are missing with zeros, without a word. Layout: PNG, third edition.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vocprep.formats.errors import FormatError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 100_000
"""Chunks of one file: encoders write a chunk per 8 kB or more of pixel data."""
GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
"""Colour types."""
_CHANNELS = {GREY: 1, COLOUR: 3, PALETTE: 1, GREY_ALPHA: 2, COLOUR_ALPHA: 4}
_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
"""Of Adam7: first column and row, steps of columns and rows."""
_STEP = 1 << 16
"""Packed bytes that are inflated at a time."""
_PIECE = 1 << 20
"""Inflated bytes that are kept at a time."""


class PngError(FormatError):
    """A defect of a file, without the file's name."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a PNG states of its pixels."""

    width: int
    height: int
    depth: int
    """Bits per channel."""
    colour: int
    """Colour type."""
    methods: bytes
    """Of compression, filters and interlacing; decoders know one, one and two."""

    @property
    def interlaced(self) -> bool:
        """Whether the rows are those of Adam7's passes."""
        return self.methods[2:] != b"\0"

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, its filter type included."""
        return self._row_bytes(self.width)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all rows, their filter types included, before compression."""
        if not self.interlaced:
            return self.height * self.row_bytes
        passes = [
            (_ceil(self.width - left, across), _ceil(self.height - top, down))
            for left, top, across, down in _PASSES
        ]
        return sum(rows * self._row_bytes(columns) for columns, rows in passes if columns > 0)

    def _row_bytes(self, width: int) -> int:
        return 1 + _ceil(width * self.depth * _CHANNELS[self.colour], 8)


def _ceil(number: int, by: int) -> int:
    return max(0, -(-number // by))


@dataclass(frozen=True, kw_only=True)
class Png:
    """A PNG whose checksums are right."""

    header: Header
    data: bytes
    """The file, of the chunks that were to be kept."""
    packed: tuple[memoryview, ...]
    """The compressed pixel data, in pieces."""
    is_in_one_place: bool
    """Whether no other chunk stands between the pixel data's."""


def read_png(data: bytes, left_out: Callable[[bytes], bool]) -> Png:
    """Return a PNG up to its end mark, without the kinds of chunks that are ``left_out``.

    Raises PngError for a chunk that is cut off, damaged or out of place.
    """
    view, kept, packed = memoryview(data), [SIGNATURE], []
    position, kind, count, gaps, last = len(SIGNATURE), b"", 0, 0, b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise PngError(f"the file ends after {len(data)} bytes without an end mark")
        length, kind = struct.unpack_from(">I4s", data, position)
        stop = position + 12 + length
        if stop > len(data):
            raise PngError(f"a chunk of {length} bytes at byte {position} is cut off")
        if zlib.crc32(view[position + 4 : stop - 4]) != int.from_bytes(view[stop - 4 : stop]):
            raise PngError(f"checksum of the chunk at byte {position} is wrong")
        if (kind == b"IHDR") != (count == 0):
            raise PngError("expected one header, before all else")
        if count == MAX_CHUNKS:
            raise PngError(f"more than {MAX_CHUNKS:,} chunks")
        if kind == b"IDAT":
            packed.append(view[position + 8 : stop - 4])
            gaps += last != kind
        if not left_out(kind):
            kept.append(data[position:stop])
        position, last, count = stop, kind, count + 1
    return Png(
        header=_header(data),
        data=b"".join(kept),
        packed=tuple(packed),
        is_in_one_place=gaps <= 1,
    )


def chunk_body(data: bytes, kind: bytes) -> bytes:
    """Return the content of the first chunk of a kind in a PNG whose chunks are whole."""
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        length, found = struct.unpack_from(">I4s", data, position)
        if found == kind:
            return data[position + 8 : position + 8 + length]
        position += 12 + length
    return b""


def png_header(data: bytes) -> Header:
    """Return what a PNG states of its pixels, of its first bytes alone; PngError for no PNG."""
    if not data.startswith(SIGNATURE) or len(data) < 33 or data[12:16] != b"IHDR":
        raise PngError("its header is damaged")
    if zlib.crc32(data[12:29]) != int.from_bytes(data[29:33]):
        raise PngError("checksum of the chunk at byte 8 is wrong")
    return _header(data)


def _header(data: bytes) -> Header:
    width, height, depth, colour = struct.unpack_from(">IIBB", data, len(SIGNATURE) + 8)
    return Header(
        width=width, height=height, depth=depth, colour=colour, methods=bytes(data[26:29])
    )


def check_pixel_data(png: Png) -> None:
    """Raise PngError where the pixel data are not exactly as many as the header says."""
    for _ in _inflated(png):
        pass


def inflate_pixel_data(png: Png) -> bytes:
    """Return all rows of a PNG, each with its filter type first; PngError for too few or many."""
    return b"".join(_inflated(png))


def _inflated(png: Png) -> Iterator[bytes]:
    """Yield the pixel data in pieces of bounded size; PngError where they are too few or many."""
    if not png.is_in_one_place:
        raise PngError("other chunks stand between its pixel data")
    if png.header.colour not in _CHANNELS:
        raise PngError(f"colour type {png.header.colour} does not exist")
    expected, found, inflater = png.header.pixel_bytes, 0, zlib.decompressobj()
    for rest in _steps(png.packed):
        most = size = 1
        while (rest or size == most) and not inflater.eof:
            most = min(expected - found, _PIECE) + 1
            try:
                piece = inflater.decompress(rest, most)
            except zlib.error as error:
                raise PngError(f"its pixel data do not inflate: {error}") from error
            rest, size = inflater.unconsumed_tail, len(piece)  # noqa: PLW2901  # what is left of it
            found += size
            if found > expected:
                raise PngError(f"its pixel data are more than {_size(png.header)} take")
            yield piece
    if found < expected:
        raise PngError(f"its pixel data end after {_progress(png.header, found)}")
    if not inflater.eof:
        raise PngError("its pixel data are cut off before their checksum")


def _steps(packed: Sequence[memoryview]) -> Iterator[bytes | memoryview]:
    for part in packed:
        for start in range(0, len(part), _STEP):
            yield part[start : start + _STEP]


def _progress(header: Header, found: int) -> str:
    if header.interlaced:
        return f"{found:,} of {header.pixel_bytes:,} bytes"
    return f"{found // header.row_bytes:,} of {header.height:,} rows"


def _size(header: Header) -> str:
    return f"{header.width}×{header.height} pixels"
