"""The WebDataset container: one tar a shard, readable by the stock ``webdataset`` library.

Written and read with the standard library: a tar's bytes must not change with a release of a
loader (docs/decisions/).
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import ShardError
from vocprep.files import canonical_json
from vocprep.recipe import FORMAT_VERSION
from vocprep.shards.record import PATCH_FIELDS, TEXT_FIELDS, Record, check_record

SUFFIX = ".tar"
_ARRAYS = ("embeddings", *PATCH_FIELDS)
_LABEL_MAP = "label_map.png"
_JSON = "json"
_END_MARK = bytes(2 * tarfile.BLOCKSIZE)
_MEMBERS = (*(f"{name}.npy" for name in _ARRAYS), _LABEL_MAP, _JSON)


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
    """Return a record's files by what stands behind its id in their names."""
    members = {f"{name}.npy": _npy(getattr(record, name)) for name in _ARRAYS}
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
    """An open tar shard."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise ShardError(f"{path}: cannot be opened: {error.strerror}") from error
        try:
            self._rows = self._read_index()
        except BaseException:
            self.close()
            raise
        self.image_ids = list(self._rows)
        self._by_row = list(self._rows.values())

    def _read_index(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Return for each id where the data of its members begins and how long it is."""
        try:
            members = list(self._members())
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            raise self._damaged(error) from error
        rows: dict[str, dict[str, tuple[int, int]]] = {}
        for image_id, group in groupby(members, key=lambda member: member[0].partition(".")[0]):
            places = [(name.partition(".")[2], (start, size)) for name, start, size in group]
            found = sorted(suffix for suffix, _ in places)
            if found != sorted(_MEMBERS) or image_id in rows:
                raise self._damaged(
                    f"record {image_id} has the members {', '.join(found)}: expected "
                    f"{', '.join(sorted(_MEMBERS))}, once"
                )
            rows[image_id] = dict(places)
        if not rows:
            raise self._damaged("no record in it")
        return rows

    def _members(self) -> Iterator[tuple[str, int, int]]:
        """Yield name, place and size of each member; see that the archive has its end mark.

        Without that mark a cut between two records would pass for a shorter shard.
        """
        end = 0
        with tarfile.open(fileobj=self._file, mode="r:") as archive:
            for entry in archive:
                if not entry.isreg() or entry.size < 0:
                    raise ValueError(f"member {entry.name} is no plain file")
                yield entry.name, entry.offset_data, entry.size
                end = entry.offset_data - (-entry.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if self._bytes(end, len(_END_MARK)) != _END_MARK:
            raise ValueError(f"no member and no end mark at byte {end}")

    def _damaged(self, reason: object) -> ShardError:
        return ShardError(f"{self._path}: damaged tar shard: {reason}; build it again")

    def __len__(self) -> int:
        return len(self.image_ids)

    def __iter__(self) -> Iterator[Record]:
        """Yield all records, reading the file from front to back."""
        for row in range(len(self)):
            yield self.read(row)

    def read(self, row: int) -> Record:
        """Return the record of a row."""
        try:
            members = {name: self._bytes(*place) for name, place in self._by_row[row].items()}
            info = json.loads(members[_JSON])
            if info["format_version"] != FORMAT_VERSION:
                raise ShardError(
                    f"{self._path}: format version {info['format_version']}: this version of "
                    f"vocprep reads {FORMAT_VERSION}"
                )
            if info["image_id"] != self.image_ids[row]:
                raise ValueError(f"its JSON calls it {info['image_id']!r}")
            ny, nx = info["grid"]
            fields: dict[str, Any] = {key: info[key] for key in TEXT_FIELDS}
            fields |= {name: _from_npy(members[f"{name}.npy"]) for name in _ARRAYS}
            record = Record(**fields, grid=(ny, nx), label_png=members[_LABEL_MAP])
        except (ValueError, KeyError, TypeError, OSError, EOFError, MemoryError) as error:
            raise self._damaged(f"record {self.image_ids[row]}: {error}") from error
        return check_record(record, str(self._path))

    def _bytes(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        data = self._file.read(size)
        if len(data) != size:
            raise EOFError(f"{len(data)} of {size} bytes")
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _from_npy(data: bytes) -> NDArray[Any]:
    array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return array


open_shard = TarShard
