"""NPY arrays: a header parser of one fixed form, within bounds.

NumPy's own reader parses a header as Python source, which raises whatever a tokenizer raises.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 128
"""Bytes of the header that NumPy writes for arrays of few dimensions."""
_MAGIC = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
_HEADER = re.compile(
    rb"\{'descr': '([<|][iufS][0-9]{1,3})', 'fortran_order': False, "
    rb"'shape': \(((?:[0-9]{1,12}, ?){0,4}(?:[0-9]{1,12})?)\), \} *\n"
)


def read_npy(data: NDArray[np.uint8]) -> NDArray[Any]:
    """Return the array of an NPY file uint8 [N] as a view of its bytes; ValueError for any other.

    The file is of version 1.0, with a header of 128 bytes, in C order, of numbers or bytes.

    >>> read_npy(np.frombuffer(npy_bytes(np.array([[1, 2]], dtype=np.int16)), dtype=np.uint8))
    array([[1, 2]], dtype=int16)
    """
    dtype, shape = _layout(data[:HEADER_BYTES].tobytes())
    expected = HEADER_BYTES + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(f"an array file of {len(data):,} bytes: expected {expected:,}")
    return np.ndarray(shape, dtype, data, HEADER_BYTES)


@lru_cache(maxsize=64)
def _layout(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return dtype and shape. Cached: the headers of a shard are the same few."""
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
