"""The HDF5 container: one file per shard, its patches in contiguous arrays (docs/format.md)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import ShardError
from vocprep.files.ids import first_unsafe
from vocprep.shards.codecs.hdf5_layout import PATCH_NAMES, TEXTS, map_datasets, read_attributes
from vocprep.shards.columns import BATCH_FIELDS, Column, Columns
from vocprep.shards.index import shard_versions
from vocprep.shards.record import Record, check_record
from vocprep.validation import printable

_FORMAT = "vocprep-shard"
_VERSIONS = shard_versions("hdf5")
_ATTRIBUTES = ("format", "format_version", "split")
_DAMAGE = (LookupError, OSError, ValueError, TypeError, AttributeError, RuntimeError)
"""What h5py raises for a damaged file, and this module for one of another form."""


def encode(records: Sequence[Record]) -> bytes:
    """Return the bytes of an HDF5 shard; the same records give the same bytes."""
    arrays: dict[str, NDArray[Any]] = {
        name: np.array([getattr(record, name).encode() for record in records]) for name in TEXTS
    }
    arrays["grid"] = np.array([record.grid for record in records], dtype=np.int32)
    arrays["offsets"] = _offsets([len(record.embeddings) for record in records])
    for name in PATCH_NAMES:
        arrays[name] = np.concatenate([getattr(record, name) for record in records])
    pngs = [record.label_png for record in records]
    arrays["label_map_offsets"] = _offsets([len(png) for png in pngs])
    arrays["label_map"] = np.frombuffer(b"".join(pngs), dtype=np.uint8)
    import h5py  # noqa: PLC0415  # only where HDF5 is written or read: it takes long to load

    # In memory first: the bytes can then be digested and written in one pass, and no half-written
    # file ever has a name.
    with h5py.File("shard", "w", driver="core", backing_store=False, libver="v108") as file:
        file.attrs["format"] = _FORMAT
        file.attrs["format_version"] = _VERSIONS[-1]
        file.attrs["split"] = records[0].split
        for name, array in arrays.items():
            file.create_dataset(name, data=array, track_times=False)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


class Hdf5Shard:
    """The records of an HDF5 shard in memory; their arrays are views of its bytes."""

    def __init__(self, data: NDArray[np.uint8], where: str) -> None:
        self._where = where
        try:
            attributes = read_attributes(data)
        except ValueError as error:
            raise ShardError(f"{where}: not a vocprep shard: {error}; build it again") from error
        self.format_version, self._split = self._check_attributes(attributes)
        try:
            self._arrays = map_datasets(data)
            self.image_ids = _decoded(self._arrays["image_id"])
            for name in TEXTS:
                if not _is_ascii(self._arrays[name]):
                    _decoded(self._arrays[name])
        except _DAMAGE as error:
            raise self._damaged(printable(str(error))) from error
        bad = first_unsafe(self.image_ids)
        if bad is not None:
            raise self._damaged(f"{printable(repr(bad), 60)} is no record id")
        self._offsets = self._arrays["offsets"].tolist()
        self._png_offsets = self._arrays["label_map_offsets"].tolist()
        self._check_index()

    def _check_attributes(self, attributes: Mapping[str, str | int]) -> tuple[int, str]:
        """Return format version and split; ShardError when they are not those of a shard."""
        if attributes.get("format") != _FORMAT:
            raise ShardError(f"{self._where}: an HDF5 file, but not a vocprep shard")
        version, split = attributes.get("format_version"), attributes.get("split")
        if version not in _VERSIONS or not isinstance(version, int):
            raise ShardError(
                f"{self._where}: format version {version}: this version of vocprep reads "
                f"{_VERSIONS[-1]}"
            )
        if not isinstance(split, str) or len(attributes) != len(_ATTRIBUTES):
            raise self._damaged(f"expected the attributes {', '.join(_ATTRIBUTES)}")
        return version, split

    def _check_index(self) -> None:
        """Check that every table has one row per record and every offset is within its array."""
        count = len(self.image_ids)
        if not count:
            raise self._damaged("no record in it")
        columns = [self._arrays[name] for name in (*TEXTS, "grid")]
        tables = [*columns, self._offsets[1:], self._png_offsets[1:]]
        if any(len(table) != count for table in tables):
            raise self._damaged("its tables differ in length")
        for offsets, names in (
            (self._offsets, PATCH_NAMES),
            (self._png_offsets, ("label_map",)),
        ):
            if offsets[0] != 0 or sorted(offsets) != offsets:
                raise self._damaged("its offsets do not rise from 0")
            for name in names:
                size = len(self._arrays[name])
                if size != offsets[-1]:
                    raise self._damaged(f"{name} has {size} rows, expected {offsets[-1]}")

    def _damaged(self, reason: object) -> ShardError:
        return ShardError(f"{self._where}: damaged HDF5 shard: {reason}; build it again")

    def __len__(self) -> int:
        return len(self.image_ids)

    def __iter__(self) -> Iterator[Record]:
        """Yield all records in row order."""
        return map(self.read, range(len(self)))

    @cached_property
    def _texts(self) -> dict[str, list[str]]:
        return {name: _decoded(self._arrays[name]) for name in TEXTS}

    @cached_property
    def _grids(self) -> list[tuple[int, int]]:
        return [(ny, nx) for ny, nx in self._arrays["grid"].tolist()]

    def columns(self) -> Columns:
        """Return all records as columns; ShardError where ``read`` would raise it of any record."""
        grids = self._arrays["grid"].astype(np.int64)
        offsets = np.array(self._offsets, dtype=np.intp)
        if (grids < 1).any() or (grids.prod(axis=1) != np.diff(offsets)).any():
            deque(self, maxlen=0)  # raises the error of the first such record
        return Columns(
            image_ids=self.image_ids,
            grids=grids,
            fields={name: Column.of(self._arrays[name], offsets) for name in BATCH_FIELDS},
            read=self.read,
        )

    def read(self, row: int) -> Record:
        """Return the record of one row."""
        rows = slice(self._offsets[row], self._offsets[row + 1])
        png = slice(self._png_offsets[row], self._png_offsets[row + 1])
        arrays: dict[str, Any] = {name: self._arrays[name][rows] for name in PATCH_NAMES}
        texts: dict[str, Any] = {name: each[row] for name, each in self._texts.items()}
        record = Record(
            **texts,
            split=self._split,
            grid=self._grids[row],
            label_png=self._arrays["label_map"][png].tobytes(),
            **arrays,
        )
        return check_record(record, self._where)


def _is_ascii(texts: NDArray[np.bytes_]) -> bool:
    return bool((np.ascontiguousarray(texts).view(np.uint8) < 128).all())


def _decoded(texts: NDArray[np.bytes_]) -> list[str]:
    """Return texts [N]; UnicodeDecodeError where one is not UTF-8."""
    return [text.decode() for text in texts.tolist()]
