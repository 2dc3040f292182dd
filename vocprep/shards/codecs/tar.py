"""The WebDataset container: one tar per shard, readable by the stock ``webdataset`` library.

Written with the standard library and read by ``tar_members``, so that neither bytes nor strictness
change with a release of webdataset (docs/decisions/).
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from vocprep.errors import ShardError
from vocprep.files.ids import decode_record_id, encode_record_id
from vocprep.files.writing import canonical_json
from vocprep.formats.npy import npy_bytes, read_npy
from vocprep.shards.codecs.tar_members import find_members
from vocprep.shards.index import shard_versions
from vocprep.shards.record import PATCH_FIELDS, TEXT_FIELDS, Record, check_record
from vocprep.shards.samples import Entry, GridSide
from vocprep.validation import explain, printable

_ARRAYS = {name: f"{name}.npy" for name in ("embeddings", *PATCH_FIELDS)}
"""The member of each array field, by the part of its name after the record id."""
_LABEL_MAPS = {1: "label_map.png", 2: "label_map.png16"}
"""The member of the label map by format version.

Stock decoders turn a ``.png`` of 16 bits into one of 8 bits, and clip ids above 255.
"""
_JSON = "json"
_VERSION = shard_versions("webdataset")[-1]


class RecordInfo(Entry):
    """The content of a record's JSON member."""

    format_version: int
    image_id: str
    split: str
    grid: tuple[GridSide, GridSide]
    image_sha256: str
    label_sha256: str
    record_sha256: str


_RECORD_INFO = TypeAdapter(RecordInfo)


def _names_in_order(version: int) -> list[str]:
    """Return the members of a record, in order."""
    return [*_ARRAYS.values(), _LABEL_MAPS[version], _JSON]


def encode(records: Sequence[Record]) -> bytes:
    """Return the bytes of a tar shard; the same records give the same bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for record in records:
            for suffix, data in _members(record).items():
                member = tarfile.TarInfo(f"{encode_record_id(record.image_id)}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _members(record: Record) -> dict[str, bytes]:
    """Return the bytes of a record's members by the part of their names after its id."""
    members = {suffix: npy_bytes(getattr(record, name)) for name, suffix in _ARRAYS.items()}
    members[_LABEL_MAPS[_VERSION]] = record.label_png
    members[_JSON] = canonical_json(
        {
            "format_version": _VERSION,
            "image_id": record.image_id,
            "split": record.split,
            "grid": list(record.grid),
            "image_sha256": record.image_sha256,
            "label_sha256": record.label_sha256,
            "record_sha256": record.record_sha256,
        }
    )
    return members


class TarShard:
    """The records of a tar shard in memory; their arrays are views of its bytes."""

    def __init__(self, data: NDArray[np.uint8], where: str) -> None:
        self._data, self._where = data, where
        try:
            self._members = find_members(data)
        except ValueError as error:
            raise self._damaged(error) from error
        names = [name.partition(".") for name in self._members.names]
        self._suffixes = [suffix for _, _, suffix in names]
        self.format_version = 2 if _LABEL_MAPS[2] in self._suffixes[: len(_ARRAYS) + 2] else 1
        self._in_order = _names_in_order(self.format_version)
        firsts = self._find_records([name for name, _, _ in names])
        self._firsts = list(firsts.values())
        try:
            self.image_ids = [decode_record_id(name) for name in firsts]
        except ValueError as error:
            raise self._damaged(error) from error

    def _find_records(self, names: Sequence[str]) -> dict[str, int]:
        """Return the number of each record's first member, by the encoded record id."""
        firsts: dict[str, int] = {}
        for name, group in groupby(range(len(names)), key=names.__getitem__):
            numbers = list(group)
            found = self._suffixes[numbers[0] : numbers[-1] + 1]
            if found != self._in_order or name in firsts:
                raise self._damaged(
                    f"record {printable(name)} has the members {', '.join(found[:10])}: expected "
                    f"{', '.join(self._in_order)}, once and in this order"
                )
            firsts[name] = numbers[0]
        if not firsts:
            raise self._damaged("no record in it")
        return firsts

    def _damaged(self, reason: object) -> ShardError:
        return ShardError(f"{self._where}: damaged tar shard: {reason}; build it again")

    def __len__(self) -> int:
        return len(self.image_ids)

    def __iter__(self) -> Iterator[Record]:
        """Yield all records in row order."""
        return map(self.read, range(len(self)))

    def read(self, row: int) -> Record:
        """Return the record of one row."""
        parts = self._parts(row)
        try:
            info = self._info(parts[_JSON], self.image_ids[row])
            fields: dict[str, Any] = {key: getattr(info, key) for key in TEXT_FIELDS}
            for name, suffix in _ARRAYS.items():
                fields[name] = read_npy(parts[suffix])
            png = parts[_LABEL_MAPS[self.format_version]].tobytes()
            record = Record(**fields, grid=info.grid, label_png=png)
        except ValueError as error:
            raise self._damaged(f"record {self.image_ids[row]}: {explain(error)}") from error
        return check_record(record, self._where)

    def info(self, row: int) -> RecordInfo:
        """Return the content of the JSON member of one row."""
        try:
            return self._info(self._parts(row)[_JSON], self.image_ids[row])
        except ValueError as error:
            raise self._damaged(f"record {self.image_ids[row]}: {explain(error)}") from error

    def _parts(self, row: int) -> dict[str, NDArray[np.uint8]]:
        """Return the bytes of a record's members by the part of their names after its id."""
        first = self._firsts[row]
        places = self._members.places(slice(first, first + len(self._in_order)))
        return {name: self._data[place] for name, place in zip(self._in_order, places, strict=True)}

    def _info(self, data: NDArray[np.uint8], image_id: str) -> RecordInfo:
        info = _RECORD_INFO.validate_json(data.tobytes(), strict=True)
        if info.format_version != self.format_version:
            raise ShardError(
                f"{self._where}: format version {info.format_version}: expected "
                f"{self.format_version} of a shard with {_LABEL_MAPS[self.format_version]} members"
            )
        if info.image_id != image_id:
            raise ValueError(f"its JSON has the id {info.image_id!r}")
        return info
