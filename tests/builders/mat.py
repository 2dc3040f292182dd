"""MATLAB 5 files made by hand: every byte of them is the test's choice."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MATRIX, COMPRESSED = 14, 15
INT8, UINT8, INT16, UINT16, INT32, UINT32, SINGLE, DOUBLE = 1, 2, 3, 4, 5, 6, 7, 9
UINT16_CLASS = 11
CODES = {INT8: "i1", UINT8: "u1", INT16: "i2", UINT16: "u2", INT32: "i4", UINT32: "u4"}
CODES |= {SINGLE: "f4", DOUBLE: "f8", 12: "i8", 13: "u8"}


@dataclass(frozen=True, kw_only=True)
class Mat:
    """A file of one variable, and what is odd about it."""

    order: str = "<"
    name: bytes = b"LabelMap"
    class_id: int = UINT16_CLASS
    flags: int = 0
    stored: int = UINT16
    shape: tuple[int, ...] | None = None
    """Dimensions that the file states, the array's own when None."""
    small: bool = True
    """Whether elements of up to four bytes take the small form."""

    def header(self, version: int = 0x0100) -> bytes:
        text = b"MATLAB 5.0 MAT-file".ljust(124)
        mark = b"IM" if self.order == "<" else b"MI"
        return text + struct.pack(self.order + "H", version) + mark

    def element(self, kind: int, data: bytes) -> bytes:
        """Return a tagged element, padded to 8 bytes."""
        if self.small and 0 < len(data) <= 4:
            return struct.pack(self.order + "I", len(data) << 16 | kind) + data.ljust(4, b"\0")
        padding = b"\0" * (-len(data) % 8)
        return struct.pack(self.order + "II", kind, len(data)) + data + padding

    def matrix(self, array: NDArray[np.generic]) -> bytes:
        """Return the variable's element."""
        shape = array.shape if self.shape is None else self.shape
        flags = struct.pack(self.order + "II", self.class_id | self.flags, 0)
        values = array.astype(self.order + CODES[self.stored]).tobytes(order="F")
        body = self.element(UINT32, flags)
        body += self.element(INT32, struct.pack(f"{self.order}{len(shape)}i", *shape))
        body += self.element(INT8, self.name) + self.element(self.stored, values)
        return struct.pack(self.order + "II", MATRIX, len(body)) + body

    def compress(self, matrix: bytes) -> bytes:
        packed = zlib.compress(matrix)
        return struct.pack(self.order + "II", COMPRESSED, len(packed)) + packed

    def file(self, array: NDArray[np.generic], *, compressed: bool = True) -> bytes:
        """Return a whole file that holds ``array``."""
        matrix = self.matrix(array)
        return self.header() + (self.compress(matrix) if compressed else matrix)
