"""MATLAB 5 label maps: a strict reader of the one kind of variable that label maps are.

On damaged files general readers may fail in any way, and scipy's can crash the process. This one
accepts a 2-D, real variable of numbers and nothing else: of class uint16, or of any class where the
manifest names the variable. It checks every tag before it uses it, and
inflates no more than the variable needs, up to a fixed bound. Layout: MathWorks, "MAT-File Format",
Level 5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import LabelDecodeError
from vocprep.formats.errors import UnreadError
from vocprep.formats.kinds import kind_of
from vocprep.labels.advice import (
    VARIABLE,
    hdf5_mat,
    no_mat,
    other_shape,
    other_type,
    other_variables,
    too_large,
    too_many_variables,
)
from vocprep.labels.arrays import label_ids

MAX_PIXELS = 1 << 25
"""A label map with more pixels than this is refused as a decompression bomb."""
MAX_VARIABLES = 1000
"""Variables that are looked at before the label map is found."""

_HEADER_BYTES = 128
_PREFIX_BYTES = 512
"""Flags, dimensions and name of any 2-D variable fit in this much of its element."""
_MATRIX, _COMPRESSED = 14, 15
_INT8, _INT32, _UINT32 = 1, 5, 6
_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
"""Number types that MATLAB may store an array's values in, whatever its class."""
_CLASSES = (
    *("none", "cell", "struct", "object", "char", "sparse", "double", "single"),
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
)
_FIRST_NUMBER = _CLASSES.index("double")
_FITTING = {2, 4}
"""Number types whose every value is a uint16."""
_COMPLEX = 0x0800
_NOT = "not a MATLAB 5 label map:"


class _BadMatError(Exception):
    """A defect of a file, without the file's name; caught in this module."""

    def __init__(self, problem: str, message: str = "", recorded: str = "") -> None:
        super().__init__(problem)
        self.message = message or f"{_NOT} {problem}; replace it by a sound copy"
        self.recorded = recorded or f"{_NOT} {problem}; fetch the file again"
        """The reason that quarantine.jsonl has recorded since the first version."""


@dataclass(frozen=True)
class _Tag:
    """An element's tag: its type, where its data begins and ends, where the next tag is."""

    kind: int
    start: int
    stop: int
    following: int


@dataclass(frozen=True)
class _Variable:
    """The header of a matrix element."""

    name: str
    class_name: str
    is_complex: bool
    shape: tuple[int, ...]
    values: int
    """Where the values' tag begins."""


def decode_mat(data: bytes, where: str, variable: str | None = None) -> NDArray[np.uint16]:
    """Read the label map uint16 [H, W] that a variable of a MATLAB 5 file holds.

    Without a ``variable`` it is ``LabelMap``, which must be of class uint16; one that is named may
    be of any class of numbers, of which each must be a label id (``arrays.label_ids``). Raises
    LabelDecodeError naming ``where`` for any other bytes.
    """
    wanted = variable or VARIABLE
    try:
        order = _byte_order(data)
        found: list[_Variable] = []
        for element in _elements(data, order):
            head = _head(element.prefix(_PREFIX_BYTES), order)
            if head.name == wanted:
                return _label_map(element, head, order, is_any_class=variable is not None)
            found.append(head)
            if len(found) == MAX_VARIABLES:
                raise _BadMatError(*3 * [too_many_variables(MAX_VARIABLES, wanted)])
        raise _no_label_map(found, wanted)
    except UnreadError as error:
        raise _located(_BadMatError(str(error), f"{wanted}: {error}"), where) from error
    except (zlib.error, struct.error) as error:
        raise _located(_BadMatError(str(error)), where) from error
    except _BadMatError as error:
        raise _located(error, where) from error


def matrix_names(data: bytes) -> list[str]:
    """Return the names of variables that ``decode_mat`` can be told to read; [] for other files."""
    names: list[str] = []
    try:
        order = _byte_order(data)
        for element in islice(_elements(data, order), MAX_VARIABLES):
            head = _head(element.prefix(_PREFIX_BYTES), order)
            try:
                _check_class(head, is_any_class=True)
            except _BadMatError:
                continue
            names.append(head.name)
    except (_BadMatError, zlib.error, struct.error):
        return names
    return names


def _no_label_map(found: list[_Variable], wanted: str) -> _BadMatError:
    names = [variable.name for variable in found]
    listed = ", ".join(repr(name) for name in names[:5]) or "none"
    message = other_variables(names, found[0].class_name, wanted) if found else ""
    return _BadMatError(f"no variable {wanted}; found {listed}", message)


def _located(error: _BadMatError, where: str) -> LabelDecodeError:
    return LabelDecodeError(f"{where}: {error.message}", recorded=f"{where}: {error.recorded}")


class _Element:
    """A matrix element's data, plain or compressed, inflated only as far as it is read."""

    def __init__(self, data: memoryview, *, compressed: bool) -> None:
        self._rest: bytes | memoryview = data
        self._inflater = zlib.decompressobj() if compressed else None
        self._inflated = b""

    def prefix(self, size: int) -> memoryview:
        """Return the first ``size`` bytes, fewer when the element ends before."""
        if self._inflater is None:
            return memoryview(self._rest)[:size]
        missing = size - len(self._inflated)
        if missing > 0:
            self._inflated += self._inflater.decompress(self._rest, missing)
            self._rest = self._inflater.unconsumed_tail
        return memoryview(self._inflated)[:size]

    def check_end(self) -> None:
        """Check that a compressed element has an end, where zlib compares its checksum."""
        if self._inflater is None or self._inflater.eof:
            return
        self._inflater.decompress(self._rest, 64)
        if not self._inflater.eof:
            raise _BadMatError("compressed data goes on after the variable or has no end")


def _byte_order(data: bytes) -> str:
    """Return the file's byte order as ``struct`` denotes it."""
    if data[:4] == b"\x89HDF" or data[512:516] == b"\x89HDF":
        message = no_mat(data) if data[:4] == b"\x89HDF" else hdf5_mat()
        raise _BadMatError("a MATLAB 7.3 (HDF5) file; expected version 5", message)
    if len(data) < _HEADER_BYTES:
        raise _other_kind(data, f"{len(data)} bytes; expected a header of {_HEADER_BYTES}")
    orders = {b"IM": "<", b"MI": ">"}
    if data[126:128] not in orders:
        raise _other_kind(data, f"byte-order mark {data[126:128]!r}; expected IM or MI")
    order = orders[data[126:128]]
    (version,) = struct.unpack_from(order + "H", data, 124)
    if version != 0x0100:
        raise _BadMatError(f"version {version:#06x}; expected 0x0100")
    return order


def _other_kind(data: bytes, problem: str) -> _BadMatError:
    """Return the error of a file without a header of MATLAB 5."""
    if kind_of(data) != "a MATLAB 5 file":
        return _BadMatError(problem, no_mat(data))
    return _BadMatError(problem, f"{_NOT} its header is damaged or cut; replace it by a sound copy")


def _elements(data: bytes, order: str) -> Iterator[_Element]:
    """Yield the variables of a file, not yet inflated."""
    view = memoryview(data)
    position = _HEADER_BYTES
    while position < len(view):
        tag = _tag(view, position, order)
        body = view[tag.start : tag.stop]
        if tag.kind == _COMPRESSED:
            yield _Element(body, compressed=True)
            # Compressed elements are the only ones that are not padded to 8 bytes.
            position = tag.stop
        elif tag.kind == _MATRIX:
            yield _Element(view[position : tag.stop], compressed=False)
            position = tag.following
        else:
            raise _BadMatError(
                f"element of type {tag.kind} at byte {position}; expected a variable"
            )


def _tag(view: memoryview, position: int, order: str, *, within: bool = True) -> _Tag:
    """Read a tag; with ``within`` its data must lie inside ``view``."""
    if position + 8 > len(view):
        raise _BadMatError(f"the file ends inside a tag at byte {position}")
    first, second = struct.unpack_from(order + "II", view, position)
    if first >> 16:  # the small form: size and type share four bytes, data follows in four
        kind, size, start = first & 0xFFFF, first >> 16, position + 4
        if size > 4:
            raise _BadMatError(f"a small element of {size} bytes at byte {position}")
        following = position + 8
    else:
        kind, size, start = first, second, position + 8
        following = start + -(-size // 8) * 8
    if within and start + size > len(view):
        raise _BadMatError(
            f"an element of {size} bytes at byte {position}; {len(view) - start} are there"
        )
    return _Tag(kind, start, start + size, following)


def _head(prefix: memoryview, order: str) -> _Variable:
    """Read a variable's class, shape and name from the beginning of its element."""
    matrix = _tag(prefix, 0, order, within=False)
    if matrix.kind != _MATRIX:
        raise _BadMatError(f"a compressed element of type {matrix.kind}; expected a variable")
    flags = _tag(prefix, matrix.start, order)
    if flags.kind != _UINT32 or flags.stop - flags.start != 8:
        raise _BadMatError("array flags of the wrong type or size")
    (bits,) = struct.unpack_from(order + "I", prefix, flags.start)
    shape = _tag(prefix, flags.following, order)
    size = shape.stop - shape.start
    if shape.kind != _INT32 or size < 8 or size % 4:
        raise _BadMatError("array dimensions of the wrong type or size")
    name = _tag(prefix, shape.following, order)
    if name.kind != _INT8:
        raise _BadMatError("a variable name of the wrong type")
    return _Variable(
        name=bytes(prefix[name.start : name.stop]).decode("latin-1"),
        class_name=_CLASSES[bits & 0x0F],
        is_complex=bool(bits & _COMPLEX),
        shape=struct.unpack_from(f"{order}{size // 4}i", prefix, shape.start),
        values=name.following,
    )


def _label_map(
    element: _Element, variable: _Variable, order: str, *, is_any_class: bool
) -> NDArray[np.uint16]:
    """Return the label map [H, W] of a variable that must be a real matrix of numbers."""
    _check_class(variable, is_any_class=is_any_class)
    flat, kind = _values(element, variable, order)
    if is_any_class:
        return label_ids(flat.reshape(variable.shape, order="F"))
    values = flat.astype(np.uint16) if kind in _FITTING else _checked(flat)
    return np.ascontiguousarray(values.reshape(variable.shape, order="F"))


def _check_class(variable: _Variable, *, is_any_class: bool) -> None:
    """Raise _BadMatError for a variable of another class or shape, or with too many values."""
    name, shape = variable.name, variable.shape
    kind = ("complex " if variable.is_complex else "") + variable.class_name
    is_number = kind in _CLASSES[_FIRST_NUMBER:]
    if not (is_number if is_any_class else kind == "uint16"):
        is_matrix = not is_number or len(shape) == 2
        raise _BadMatError(
            f"{name} is of type {kind}; expected uint16",
            other_type(kind, name, is_number=is_number) if is_matrix else other_shape(shape, name),
        )
    if len(shape) != 2 or min(shape) < 1:
        raise _BadMatError(
            f"{name} has shape {shape}; expected two sizes above 0", other_shape(shape, name)
        )
    pixels = shape[0] * shape[1]
    if pixels > MAX_PIXELS:
        raise _BadMatError(
            f"{name} has {pixels} pixels; expected at most {MAX_PIXELS}",
            too_large(shape[1], shape[0], MAX_PIXELS),
        )


def _values(element: _Element, variable: _Variable, order: str) -> tuple[NDArray[Any], int]:
    """Return the values [H·W] of a matrix, column by column, and the type of their storage."""
    name, pixels = variable.name, variable.shape[0] * variable.shape[1]
    tag = _tag(element.prefix(variable.values + 8), variable.values, order, within=False)
    if tag.kind not in _STORED:
        raise _BadMatError(f"{name} holds values of type {tag.kind}; expected numbers")
    stored = np.dtype(order + _STORED[tag.kind])
    if tag.stop - tag.start != pixels * stored.itemsize:
        raise _BadMatError(
            f"{name} has {tag.stop - tag.start} bytes of values; expected "
            f"{pixels * stored.itemsize} for shape {variable.shape}"
        )
    body = element.prefix(tag.stop)
    if len(body) < tag.stop:
        raise _BadMatError(f"{name} is cut off after {len(body)} of {tag.stop} bytes")
    element.check_end()
    return np.frombuffer(body[tag.start : tag.stop], dtype=stored), tag.kind


def _checked(flat: NDArray[Any]) -> NDArray[np.uint16]:
    """Return stored numbers as uint16; _BadMatError unless each is one."""
    with np.errstate(invalid="ignore"):  # signalling NaNs
        fits = bool(((flat >= 0) & (flat <= 0xFFFF)).all())
    values = flat.astype(np.uint16) if fits else np.empty(0, np.uint16)
    if not fits or not np.array_equal(values, flat):
        problem = f"{VARIABLE} holds values that are no uint16"
        raise _BadMatError(problem, f"{problem}; expected label ids, whole numbers of 0 to 65535")
    return values
