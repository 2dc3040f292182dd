"""The WebDataset container: one tar per shard, readable by the stock ``webdataset`` library.

Written and read with the standard library, so that the bytes do not change with a release of
webdataset (docs/decisions/).
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import ShardError
from vocprep.files import canonical_json
from vocprep.recipe import FORMAT_VERSION
from vocprep.shards.record import PATCH_FIELDS, TEXT_FIELDS, Record, check_record
from vocprep.shards.tar_members import own_members, tarfile_members

_ARRAYS = {name: f"{name}.npy" for name in ("embeddings", *PATCH_FIELDS)}
"""The member of each array field, by the part of its name after the record id."""
_LABEL_MAP = "label_map.png"
_JSON = "json"
_IN_ORDER = [*_ARRAYS.values(), _LABEL_MAP, _JSON]
_NPY_HEADER = 128
"""Bytes of the header that NumPy writes for arrays of few dimensions."""


def encode(records: Sequence[Record]) -> bytes:
    """Return the bytes of a tar shard; the same records give the same bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for record in records:
            for suffix, data in _members(record).items():
                member = tarfile.TarInfo(f"{record.image_id}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _members(record: Record) -> dict[str, bytes]:
    """Return the bytes of a record's members by the part of their names after its id."""
    members = {suffix: _npy(getattr(record, name)) for name, suffix in _ARRAYS.items()}
    members[_LABEL_MAP] = record.label_png
    members[_JSON] = canonical_json(
        {
            "format_version": FORMAT_VERSION,
            "image_id": record.image_id,
            "split": record.split,
            "grid": list(record.grid),
            "image_sha256": record.image_sha256,
            "label_sha256": record.label_sha256,
            "record_sha256": record.record_sha256,
        }
    )
    return members


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


class TarShard:
    """An open tar shard, read in one piece; the arrays of its records are views of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._data = np.fromfile(path, dtype=np.uint8)
        except OSError as error:
            raise ShardError(f"{path}: cannot be opened: {error.strerror}") from error
        self._firsts = self._read_index()
        self.image_ids = list(self._firsts)

    def _read_index(self) -> dict[str, int]:
        """Return the number of each record's first member, by record id."""
        try:
            self._members = own_members(self._data) or tarfile_members(self._data)
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            raise self._damaged(error) from error
        ids = [name.partition(".")[0] for name in self._members.names]
        self._suffixes = [name.partition(".")[2] for name in self._members.names]
        firsts: dict[str, int] = {}
        for image_id, group in groupby(range(len(ids)), key=ids.__getitem__):
            numbers = list(group)
            found = self._suffixes[numbers[0] : numbers[-1] + 1]
            if (found != _IN_ORDER and sorted(found) != sorted(_IN_ORDER)) or image_id in firsts:
                raise self._damaged(
                    f"record {image_id} has the members {', '.join(sorted(found))}: expected "
                    f"{', '.join(sorted(_IN_ORDER))}, once"
                )
            firsts[image_id] = numbers[0]
        if not firsts:
            raise self._damaged("no record in it")
        return firsts

    def _damaged(self, reason: object) -> ShardError:
        return ShardError(f"{self._path}: damaged tar shard: {reason}; build it again")

    def __len__(self) -> int:
        return len(self.image_ids)

    def __iter__(self) -> Iterator[Record]:
        """Yield all records in row order."""
        return self.read_rows(0, len(self))

    def read_rows(self, start: int, stop: int) -> Iterator[Record]:
        """Yield the records of some rows."""
        for row in range(start, stop):
            yield self.read(row)

    def read(self, row: int) -> Record:
        """Return the record of one row."""
        first = self._firsts[self.image_ids[row]]
        own = slice(first, first + len(_IN_ORDER))
        places = dict(zip(self._suffixes[own], self._members.places(own), strict=True))
        try:
            info = json.loads(self._data[places[_JSON]].tobytes())
            if info["format_version"] != FORMAT_VERSION:
                raise ShardError(
                    f"{self._path}: format version {info['format_version']}: this version of "
                    f"vocprep reads {FORMAT_VERSION}"
                )
            if info["image_id"] != self.image_ids[row]:
                raise ValueError(f"its JSON has the id {info['image_id']!r}")
            ny, nx = info["grid"]
            fields: dict[str, Any] = {key: info[key] for key in TEXT_FIELDS}
            for name, suffix in _ARRAYS.items():
                fields[name] = _from_npy(self._data, places[suffix])
            png = self._data[places[_LABEL_MAP]].tobytes()
            record = Record(**fields, grid=(ny, nx), label_png=png)
        except (ValueError, KeyError, TypeError, OSError, EOFError, MemoryError) as error:
            raise self._damaged(f"record {self.image_ids[row]}: {error}") from error
        return check_record(record, str(self._path))

    def close(self) -> None:
        """Release the bytes; records that were read keep them."""
        self._data = np.empty(0, dtype=np.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _from_npy(data: NDArray[np.uint8], place: slice) -> NDArray[Any]:
    """Return the array of an NPY file within ``data``, as a view wherever possible."""
    layout = _npy_layout(bytes(data.data[place][:_NPY_HEADER]))
    if layout is None:
        stream = io.BytesIO(data.data[place])
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        return array
    dtype, shape, start, stop = layout
    if stop > place.stop - place.start:
        raise ValueError(f"an array file of {place.stop - place.start} bytes: expected {stop}")
    return np.ndarray(shape, dtype, data, place.start + start)


@lru_cache(maxsize=64)
def _npy_layout(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int, int] | None:
    """Return dtype, shape, and where the numbers start and stop; None when no view is possible.

    Cached: the headers of a shard are the same few, and NumPy parses each as Python source.
    """
    stream = io.BytesIO(header)
    if np.lib.format.read_magic(stream) != (1, 0) or b"\n" not in header:
        return None
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if is_fortran or dtype.hasobject or min(shape, default=0) < 0:
        return None
    start = stream.tell()
    return dtype, shape, start, start + math.prod(shape) * dtype.itemsize
