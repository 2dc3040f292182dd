"""Compression of TIFF without loss: Deflate, PackBits, and LZW by arrays, without a dictionary."""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vocprep.formats.errors import FormatError

NONE, LZW, DEFLATE, PACK_BITS, OLD_DEFLATE = 1, 5, 8, 32773, 32946
COMPRESSIONS = (NONE, LZW, DEFLATE, PACK_BITS, OLD_DEFLATE)
WITH_PREDICTOR = (LZW, DEFLATE, OLD_DEFLATE)
"""Methods that the tag of a predictor belongs to; with others it has no meaning."""
_CLEAR, _END, _FIRST = 256, 257, 258
_MOST_CODES = 4096 - _FIRST + 1
"""Codes that may follow each other before the table of strings is full."""
_BYTES_PER_CLEAR = 2048
"""Encoders clear the table once it is full, after 3,837 codes of a byte each at least."""


class TiffError(FormatError):
    """A defect of a TIFF, without the file's name."""


def decompress(packed: memoryview, compression: int, size: int) -> bytes:
    """Return the ``size`` bytes of a strip or tile; TiffError for fewer."""
    if compression == NONE:
        plain = bytes(packed[:size])
    elif compression == LZW:
        plain = unpack_lzw(packed, size)
    elif compression == PACK_BITS:
        plain = _unpack_bits(bytes(packed), size)
    else:
        plain = _inflate(packed, size)
    if len(plain) < size:
        raise TiffError(f"its pixel data end after {len(plain):,} of {size:,} bytes")
    return plain


def _inflate(packed: memoryview, size: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(packed, size)
        inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error as error:
        raise TiffError(f"its pixel data do not inflate: {error}") from error
    if len(plain) == size and not inflater.eof:
        raise TiffError("its pixel data go on after the last row, or lack a checksum")
    return plain


def _unpack_bits(packed: bytes, size: int) -> bytes:
    plain, position = bytearray(), 0
    while len(plain) < size and position < len(packed):
        head = packed[position]
        if head < 128:
            plain += packed[position + 1 : position + 2 + head]
            position += 2 + head
        else:
            if head > 128:
                plain += packed[position + 1 : position + 2] * (257 - head)
            position += 2 if head > 128 else 1
    if len(plain) > size:
        raise TiffError("its pixel data go on after the last row")
    return bytes(plain)


@cache
def _code_places() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each code after a cleared table begins, in bits, and how many bits it has."""
    number = np.arange(_MOST_CODES + 1)
    # After the code of number n the table has entries up to _FIRST + n - 1, and a code gets one
    # more bit before the last entry of its width is there.
    widths = 9 + (number > 253).astype(np.int64) + (number > 765) + (number > 1789)
    return np.cumsum(widths) - widths, widths


def unpack_lzw(packed: memoryview, size: int) -> bytes:
    """Return at most ``size`` bytes of a stream of LZW codes; TiffError for codes of no string.

    The codes between two that clear the table are decoded together: the string of a code repeats
    bytes that came before, so that each byte of the output is a literal one, or a copy of an
    earlier one.
    """
    stored = np.concatenate([np.frombuffer(packed, np.uint8), np.zeros(8, np.uint8)])
    bits, position, found = len(packed) * 8, 0, 0
    parts: list[NDArray[np.uint8]] = []
    for _ in range(16 + size // _BYTES_PER_CLEAR):
        codes, position, is_end = _codes(stored, position, bits)
        if len(codes):
            part = _strings(codes, size - found)
            parts.append(part)
            found += len(part)
        if is_end or found >= size:
            return b"".join(part.tobytes() for part in parts)
    raise TiffError("its pixel data clear their table of strings too often")


def _codes(
    stored: NDArray[np.uint8], position: int, bits: int
) -> tuple[NDArray[np.int64], int, bool]:
    """Return the codes up to one that clears or ends, the bit after it, and whether it ends."""
    places, widths = _code_places()
    count = int(np.searchsorted(places + widths, bits - position, side="right"))
    starts, widths = places[:count] + position, widths[:count]
    first = starts >> 3
    window = (
        (stored[first].astype(np.int64) << 16)
        | (stored[first + 1].astype(np.int64) << 8)
        | stored[first + 2]
    )
    codes = (window >> (24 - (starts & 7) - widths)) & ((1 << widths) - 1)
    stops = np.flatnonzero((codes == _CLEAR) | (codes == _END))
    if not len(stops):
        if count > _MOST_CODES:
            raise TiffError("its pixel data do not clear their table of strings")
        return codes, bits, True
    stop = int(stops[0])
    return codes[:stop], int(starts[stop] + widths[stop]), bool(codes[stop] == _END)


def _strings(codes: NDArray[np.int64], most: int) -> NDArray[np.uint8]:
    """Return the bytes [n] that codes stand for, at most ``most``."""
    number = np.arange(len(codes))
    is_literal = codes < _CLEAR
    parents = np.where(is_literal, number, codes - _FIRST)
    # The entry that a code makes is complete with the first byte of the next string: with its own,
    # where the next is that entry.
    if (parents > np.where(is_literal, number, number - 1)).any():
        raise TiffError("its pixel data are damaged: a code that stands for nothing")
    lengths = 1 + _hops(parents, is_literal)
    starts = np.cumsum(lengths) - lengths
    needed = int(np.searchsorted(starts, most))
    code = np.repeat(number[:needed], lengths[:needed])
    place = np.arange(len(code))
    source = np.where(is_literal[code], place, starts[parents[code]] + place - starts[code])
    values = np.where(is_literal[code], codes[code], 0).astype(np.uint8)
    is_root = source == place
    while not is_root[source].all():
        source = source[source]
    return values[source][:most]


def _hops(parents: NDArray[np.int64], is_literal: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many entries lie between each code and the literal that its string begins with."""
    hops = (~is_literal).astype(np.int64)
    while not is_literal[parents].all():
        hops += hops[parents]
        parents = parents[parents]
    return hops
