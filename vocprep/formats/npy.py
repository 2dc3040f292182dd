"""NPY arrays: header parsers within bounds, one of the form that this package writes, one of any.

NumPy's own reader parses a header as Python source, which raises whatever a tokenizer raises.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.formats.errors import FormatError, UnreadError

HEADER_BYTES = 128
"""Bytes of the header that NumPy writes for arrays of few dimensions."""
_MAGIC = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
_HEADER = re.compile(
    rb"\{'descr': '([<|][iufS][0-9]{1,3})', 'fortran_order': False, "
    rb"'shape': \(((?:[0-9]{1,12}, ?){0,4}(?:[0-9]{1,12})?)\), \} *\n"
)
_BEGINNING = b"\x93NUMPY"
_LONGEST_HEADER = 1 << 16
_PAIR = re.compile(
    rb"""
    ["'](descr|fortran_order|shape)["']\s*:\s*
    (?:
        ["']([<>|=]?[A-Za-z?][0-9]{0,6})["']
        | (True|False)
        | \(\s*((?:[0-9]{1,12}L?\s*,\s*){0,32}(?:[0-9]{1,12}L?\s*)?)\)
    )
    \s*(?:,\s*|(?=\}))
    """,
    re.VERBOSE,
)
_KINDS = "biuf"
_WIDEST = 8


def read_any_npy(data: bytes) -> NDArray[Any]:
    """Return the array of an NPY file of plain numbers, of any version, type, order and shape.

    The array is a view of ``data``. Raises FormatError for damage, UnreadError for other arrays.
    """
    dtype, shape, is_fortran, start = _any_layout(data)
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise FormatError(f"an array file of {len(data):,} bytes, where {expected:,} are expected")
    return np.ndarray(shape, dtype, data, start, order="F" if is_fortran else "C")


def _any_layout(data: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """Return type, shape, whether columns come first, and where the values begin."""
    if data[:6] != _BEGINNING or data[6:8] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise FormatError("an array file with a damaged header, or of an unknown version")
    start = 10 if data[6] == 1 else 12
    size = int.from_bytes(data[8:start], "little")
    if size > _LONGEST_HEADER or start + size > len(data):
        raise FormatError("an array file with a damaged header")
    header = data[start : start + size].strip()
    found = {pair[1]: pair for pair in _PAIR.finditer(header)}
    if len(found) < 3 and b"descr" in header and b"(" in header.split(b"shape")[0]:
        raise UnreadError("an array of records, where one of numbers is expected; save one field")
    rest = _PAIR.sub(b"", header)
    if len(found) != 3 or re.fullmatch(rb"\{\s*\}", rest) is None:
        raise FormatError("an array file with a damaged header")
    descr, order, shape = (found[key] for key in (b"descr", b"fortran_order", b"shape"))
    if descr[2] is None or order[3] is None or shape[4] is None:
        raise FormatError("an array file with a damaged header")
    sizes = tuple(int(each.strip(b" L")) for each in shape[4].split(b",") if each.strip())
    return _number_type(descr[2].decode()), sizes, order[3] == b"True", start + size


def _number_type(descr: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(descr)
    except TypeError as error:
        raise FormatError("an array file with a damaged header") from error
    if dtype.kind not in _KINDS or dtype.itemsize > _WIDEST:
        name = "objects" if dtype.kind == "O" else dtype.name
        raise UnreadError(f"an array of {name}, where one of whole numbers is expected; save those")
    return dtype


def read_npy(data: NDArray[np.uint8]) -> NDArray[Any]:
    """Return the array of an NPY file uint8 [N] as a view of its bytes; ValueError for any other.

    The file is of version 1.0, with a header of 128 bytes, in C order, of numbers or bytes.

    >>> read_npy(np.frombuffer(npy_bytes(np.array([[1, 2]], dtype=np.int16)), dtype=np.uint8))
    array([[1, 2]], dtype=int16)
    """
    dtype, shape = npy_layout(data[:HEADER_BYTES].tobytes())
    expected = HEADER_BYTES + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(f"an array file of {len(data):,} bytes: expected {expected:,}")
    return np.ndarray(shape, dtype, data, HEADER_BYTES)


@lru_cache(maxsize=64)
def npy_layout(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return dtype and shape of the header of a file that ``read_npy`` reads; ValueError else.

    Cached: the headers of a shard are the same few.
    """
    found = _HEADER.fullmatch(header, len(_MAGIC))
    if not header.startswith(_MAGIC) or found is None:
        raise ValueError("not an NPY 1.0 file of numbers in C order with a header of 128 bytes")
    try:
        dtype = np.dtype(found[1].decode())
    except TypeError as error:
        raise ValueError(f"an array file of type {found[1].decode()!r}, which is none") from error
    return dtype, tuple(int(size) for size in found[2].replace(b" ", b"").split(b",") if size)


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Return an array as an NPY 1.0 file, little-endian and in C order."""
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    descr = array.dtype.str
    shape = ", ".join(map(str, array.shape)) + ("," if array.ndim == 1 else "")
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}"
    header = _MAGIC + text.encode().ljust(HEADER_BYTES - len(_MAGIC) - 1) + b"\n"
    return header + array.tobytes()
