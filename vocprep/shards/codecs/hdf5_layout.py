"""What an HDF5 shard declares of itself, checked before any of its data is used.

Damaged bytes must not reach the parts of the HDF5 library that have no checksums: its global heap,
where texts of variable length are, makes it loop for ever. So the attributes are parsed here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vocprep.shards.record import PATCH_FIELDS

TEXTS = ("image_id", "image_sha256", "label_sha256")
PATCH_NAMES = ("embeddings", *PATCH_FIELDS)
_DTYPES = {
    "grid": "<i4",
    "offsets": "<i8",
    "label_map_offsets": "<i8",
    "label_map": "|u1",
    **{name: np.dtype(dtype).newbyteorder("<").str for name, (dtype, _) in PATCH_FIELDS.items()},
}
_SIZES: dict[str, tuple[int | None, ...]] = {
    **dict.fromkeys((*TEXTS, "offsets", "label_map_offsets", "label_map"), (None,)),
    "grid": (None, 2),
    "embeddings": (None, None),
    **{name: (None, *row) for name, (_, row) in PATCH_FIELDS.items()},
}
"""Sizes of each dataset's dimensions, None for any."""
_MAX_TEXT = 255
_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10
"""Kinds of messages in an object header."""
_FIXED_POINT, _VARIABLE_LENGTH = 0, 9
"""Classes of types."""
_ATTRIBUTE_VERSION = 3
_FREE_SPACE = 0
"""Index of the object that ends a global heap."""
_MAX_MESSAGES = 256
_MAX_HEAP = 1 << 16


PlacedArray = tuple[np.dtype[Any], tuple[int, ...], int]
"""Type, shape and first byte of an array in a file."""


class FileBytes(Protocol):
    """The bytes of a file: a memoryview of them, or what reads those that are needed."""

    def __len__(self) -> int: ...

    def __getitem__(self, span: slice, /) -> bytes | memoryview: ...


def map_datasets(data: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """Return the datasets of an HDF5 file uint8 [N] as views of its bytes.

    ValueError where one is missing or more are there, or where it is anything but an array of the
    documented type and dimensions, in one piece within the file and apart from the others.
    """
    import h5py  # noqa: PLC0415  # only where HDF5 is written or read: it takes long to load

    # Neither copied nor released by the library: ``data`` outlives the file.
    with h5py.File(h5py.h5f.open_file_image(data, 2 | 4)) as file:
        links = file.id.links
        count = file.id.get_num_objs()
        if count != len(_SIZES) or not all(links.exists(name.encode()) for name in _SIZES):
            raise ValueError(f"expected the datasets {', '.join(_SIZES)}, found {count} names")
        for name in _SIZES:
            if links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
                raise ValueError(f"{name} is a link to elsewhere")
            if h5py.h5o.get_info(file.id, name.encode()).type != h5py.h5o.TYPE_DATASET:
                raise ValueError(f"{name} is no dataset")
        places = {name: _place(h5py.h5d.open(file.id, name.encode()), name) for name in _SIZES}
    check_extents(places, len(data))
    arrays = {}
    for name, (dtype, shape, start) in places.items():
        array = np.ndarray(shape, dtype, data, start)
        arrays[name] = np.require(array, requirements=["ALIGNED"])  # what torch wants
    return arrays


def _place(dataset: Any, name: str) -> PlacedArray:
    """Return type, shape and first byte of a dataset; ValueError unless it is a plain array."""
    import h5py  # noqa: PLC0415  # see map_datasets

    properties = dataset.get_create_plist()
    if properties.get_layout() != h5py.h5d.CONTIGUOUS:
        raise ValueError(f"{name} is not contiguous")
    if properties.get_nfilters():
        raise ValueError(f"{name} is filtered")
    if properties.get_external_count():
        raise ValueError(f"{name} is stored in other files")
    if dataset.get_type().committed():
        raise ValueError(f"{name} has a named type")
    dtype, shape, start = dataset.dtype, dataset.shape, dataset.get_offset()
    check_type(name, dtype, shape)
    if start is None:
        raise ValueError(f"{name} has no data")
    return dtype, shape, start


def check_type(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Raise ValueError where an array is not of the documented type and dimensions."""
    if name not in _SIZES:
        raise ValueError(f"expected the datasets {', '.join(_SIZES)}, found another name")
    if not _is_expected(dtype, name):
        raise ValueError(f"{name} is of type {dtype}")
    wanted = _SIZES[name]
    if len(shape) != len(wanted) or any(
        size is not None and size != found for size, found in zip(wanted, shape, strict=True)
    ):
        raise ValueError(f"{name} has the shape {shape}")


def _is_expected(dtype: np.dtype[Any], name: str) -> bool:
    if name in TEXTS:
        return dtype.kind == "S" and 1 <= dtype.itemsize <= _MAX_TEXT and dtype.fields is None
    if name == "embeddings":
        return dtype.str in ("<f2", "<f4")
    return dtype.str == _DTYPES[name]


def check_extents(places: Mapping[str, PlacedArray], size: int) -> None:
    """Raise ValueError unless all arrays are there, within the file, none of them over another."""
    if places.keys() != _SIZES.keys():
        raise ValueError(f"expected the datasets {', '.join(_SIZES)}, found {len(places)} names")
    extents = []
    for name, (dtype, shape, start) in places.items():
        count = dtype.itemsize
        for length in shape:
            count *= length
        if start + count > size:
            raise ValueError(f"{name} declares {count:,} bytes from byte {start:,} of {size:,}")
        extents.append((start, start + count, name))
    for (_, stop, one), (start, _, other) in pairwise(sorted(extents)):
        if start < stop:
            raise ValueError(f"{one} and {other} overlap")


def read_attributes(data: NDArray[np.uint8]) -> dict[str, str | int]:
    """Return the root group's attributes, which are texts and whole numbers, by name.

    ValueError where the file uint8 [N] is no HDF5 file of the documented form.
    """
    view = data.data
    return dict(
        _attribute(view, start, stop)
        for kind, start, stop in messages(view, root_group(view))
        if kind == _ATTRIBUTE
    )


def root_group(view: FileBytes) -> int:
    """Return where the root group's object header is; ValueError where it is no such HDF5 file."""
    if bytes(view[:8]) != b"\x89HDF\r\n\x1a\n":
        raise ValueError("it does not begin as HDF5 files do")
    version, offsets, lengths = unpack("<BBB", view, 8)
    base, _, end, root = unpack("<QQQQ", view, 12)
    if (offsets, lengths, base) != (8, 8, 0) or version not in (2, 3):
        raise ValueError(f"its superblock is of version {version}, where 2 or 3 is expected")
    if end != len(view):
        raise ValueError(f"it declares {end:,} bytes, and has {len(view):,}")
    return root


def unpack(form: str, view: FileBytes, start: int) -> tuple[int, ...]:
    """Return the numbers at a place; ValueError where it is not within the file."""
    stop = start + struct.calcsize(form)
    if stop > len(view):
        raise ValueError(f"it ends before byte {start:,}, where its structure continues")
    return struct.unpack(form, view[start:stop])


def messages(view: FileBytes, root: int) -> Iterator[tuple[int, int, int]]:
    """Yield kind, first byte and end of the messages in an object header of version 2."""
    if bytes(view[root : root + 5]) != b"OHDR\2":
        raise ValueError("its root group has no object header of version 2")
    (flags,) = unpack("<B", view, root + 5)
    sizes = root + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    (length,) = unpack("<" + "BHIQ"[flags & 3], view, sizes)
    first = sizes + (1 << (flags & 3))
    chunks, count = [(first, first + length)], 0
    header = 6 if flags & 4 else 4
    for place, stop in chunks:  # which grow by continuations
        start = place
        while start + header <= stop:
            kind, size = unpack("<BH", view, start)
            start, count = start + header + size, count + 1
            if count > _MAX_MESSAGES:
                raise ValueError(f"its root group has more than {_MAX_MESSAGES} messages")
            if start > min(stop, len(view)):
                raise ValueError(f"a message at byte {start - size:,} leaves its object header")
            if kind == _CONTINUATION:
                more, length = unpack("<QQ", view, start - size)
                # Between a signature and a checksum, of 4 bytes each.
                chunks.append((more + 4, more + length - 4))
            yield kind, start - size, start


def _attribute(view: FileBytes, start: int, stop: int) -> tuple[str, str | int]:
    """Return name and value of an attribute message of version 3."""
    version, _, name_size, type_size, space_size, _ = unpack("<BBHHHB", view, start)
    type_at = start + 9 + name_size
    value_at = type_at + type_size + space_size
    name = bytes(view[start + 9 : type_at]).rstrip(b"\0").decode("utf-8", "replace")[:_MAX_TEXT]
    kind, bits, _, _, size = unpack("<BBBBI", view, type_at)
    rank = unpack("<BB", view, type_at + type_size)[1]
    if version == _ATTRIBUTE_VERSION and rank == 0 and value_at + size <= stop:
        if kind & 15 == _VARIABLE_LENGTH and bits & 15 == 1 and size == 16:
            return name, _heap_text(view, *unpack("<IQI", view, value_at))
        if kind & 15 == _FIXED_POINT and not bits & 1 and size in (1, 2, 4, 8):
            value = bytes(view[value_at : value_at + size])
            return name, int.from_bytes(value, "little", signed=bool(bits & 8))
    raise ValueError(f"its attribute {name!r} is neither a text nor a whole number")


def _heap_text(view: FileBytes, length: int, heap: int, wanted: int) -> str:
    """Return a text of variable length from the global heap at a place."""
    version, size = unpack("<B3xQ", view, heap + 4)
    end = heap + min(size, _MAX_HEAP)
    if bytes(view[heap : heap + 4]) != b"GCOL" or version != 1 or end > len(view):
        raise ValueError(f"there is no global heap at byte {heap:,}")
    start = heap + 16
    while start + 16 <= end:
        index, _, size = unpack("<HHxxxxQ", view, start)
        start += 16
        if index == wanted and length <= size and start + size <= end:
            try:
                return bytes(view[start : start + min(length, _MAX_TEXT)]).decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"a text in its global heap is not UTF-8: {error}") from error
        if index == _FREE_SPACE:
            break
        start += -(-size // 8) * 8
    raise ValueError(f"its global heap at byte {heap:,} has no text {wanted}")
