"""The HDF5 container: one file per shard, its patches in contiguous arrays (docs/format.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import ShardError
from vocprep.recipe import FORMAT_VERSION
from vocprep.shards.record import PATCH_FIELDS, Record, check_record

_FORMAT = "vocprep-shard"
_TEXTS = ("image_id", "image_sha256", "label_sha256")
_PATCH_NAMES = ("embeddings", *PATCH_FIELDS)
_DAMAGE = (LookupError, OSError, ValueError, TypeError, AttributeError, RuntimeError, MemoryError)
"""What h5py and NumPy raise for a damaged file."""


def encode(records: Sequence[Record]) -> bytes:
    """Return the bytes of an HDF5 shard; the same records give the same bytes."""
    arrays: dict[str, NDArray[Any]] = {
        name: np.array([getattr(record, name).encode() for record in records]) for name in _TEXTS
    }
    arrays["grid"] = np.array([record.grid for record in records], dtype=np.int32)
    arrays["offsets"] = _offsets([len(record.embeddings) for record in records])
    for name in _PATCH_NAMES:
        arrays[name] = np.concatenate([getattr(record, name) for record in records])
    pngs = [record.label_png for record in records]
    arrays["label_map_offsets"] = _offsets([len(png) for png in pngs])
    arrays["label_map"] = np.frombuffer(b"".join(pngs), dtype=np.uint8)
    import h5py  # noqa: PLC0415  # only where HDF5 is written or read: it takes long to load

    # In memory first: the bytes can then be digested and written in one pass, and no half-written
    # file ever has a name.
    with h5py.File("shard", "w", driver="core", backing_store=False, libver="v108") as file:
        file.attrs["format"] = _FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["split"] = records[0].split
        for name, array in arrays.items():
            file.create_dataset(name, data=array, track_times=False)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


class Hdf5Shard:
    """An open HDF5 shard."""

    def __init__(self, path: Path) -> None:
        import h5py  # noqa: PLC0415  # see encode

        self._path = path
        try:
            with path.open("rb"):  # h5py reports the same in three lines
                pass
        except OSError as error:
            raise ShardError(f"{path}: cannot be opened: {error.strerror}") from error
        try:
            self._file = h5py.File(path, "r")
        except _DAMAGE as error:
            raise ShardError(f"{path}: not an HDF5 shard: {error}; build it again") from error
        try:
            self._read_index()
        except _DAMAGE as error:
            self.close()
            raise self._damaged(error) from error
        except BaseException:
            self.close()
            raise

    def _read_index(self) -> None:
        attributes = self._file.attrs
        if attributes.get("format") != _FORMAT:
            raise ShardError(f"{self._path}: an HDF5 file, but not a vocprep shard")
        if attributes.get("format_version") != FORMAT_VERSION:
            raise ShardError(
                f"{self._path}: format version {attributes.get('format_version')}: this version "
                f"of vocprep reads {FORMAT_VERSION}"
            )
        self._split = str(attributes["split"])
        self._texts = {
            name: [text.decode() for text in self._file[name][:].tolist()] for name in _TEXTS
        }
        self._grid = [(ny, nx) for ny, nx in self._file["grid"][:].tolist()]
        self._offsets = self._file["offsets"][:].tolist()
        self._png_offsets = self._file["label_map_offsets"][:].tolist()
        self.image_ids = self._texts["image_id"]
        self._check_index()

    def _check_index(self) -> None:
        """Check that every table has one row per record and every offset is within its array."""
        count = len(self.image_ids)
        if not count:
            raise self._damaged("no record in it")
        tables = [*self._texts.values(), self._grid, self._offsets[1:], self._png_offsets[1:]]
        sizes = {name: len(self._file[name]) for name in (*_PATCH_NAMES, "label_map")}
        if any(len(table) != count for table in tables):
            raise self._damaged("its tables differ in length")
        for offsets, names in (
            (self._offsets, _PATCH_NAMES),
            (self._png_offsets, ("label_map",)),
        ):
            if offsets[0] != 0 or sorted(offsets) != offsets:
                raise self._damaged("its offsets do not rise from 0")
            for name in names:
                if sizes[name] != offsets[-1]:
                    raise self._damaged(f"{name} has {sizes[name]} rows, expected {offsets[-1]}")

    def _damaged(self, reason: object) -> ShardError:
        return ShardError(f"{self._path}: damaged HDF5 shard: {reason}; build it again")

    def __len__(self) -> int:
        return len(self.image_ids)

    def __iter__(self) -> Iterator[Record]:
        """Yield all records in row order."""
        return self.read_rows(0, len(self))

    def read(self, row: int) -> Record:
        """Return the record of one row."""
        return next(self.read_rows(row, row + 1))

    def read_rows(self, start: int, stop: int) -> Iterator[Record]:
        """Yield the records of some rows; each array is read from the file in one piece."""
        offsets = self._offsets[start : stop + 1]
        png_offsets = self._png_offsets[start : stop + 1]
        first, first_png = offsets[0], png_offsets[0]
        try:
            arrays = {name: self._file[name][first : offsets[-1]] for name in _PATCH_NAMES}
            pngs = self._file["label_map"][first_png : png_offsets[-1]].tobytes()
        except _DAMAGE as error:
            raise self._damaged(error) from error
        patches, places = pairwise(offsets), pairwise(png_offsets)
        for row, own, png in zip(range(start, stop), patches, places, strict=True):
            rows = slice(own[0] - first, own[1] - first)
            yield self._record(
                row,
                {name: array[rows] for name, array in arrays.items()},
                pngs[png[0] - first_png : png[1] - first_png],
            )

    def _record(self, row: int, arrays: dict[str, Any], png: bytes) -> Record:
        record = Record(
            **{name: texts[row] for name, texts in self._texts.items()},
            split=self._split,
            grid=self._grid[row],
            label_png=png,
            **arrays,
        )
        return check_record(record, str(self._path))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
