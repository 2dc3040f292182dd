"""The WebDataset container: one tar per shard, readable by the stock ``webdataset`` library.

Written with the standard library and read by ``tar_members``, so that neither bytes nor strictness
change with a release of webdataset (docs/decisions/).
"""

from __future__ import annotations

import io
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from vocprep.errors import ShardError
from vocprep.files.ids import decode_record_id, encode_record_id, first_unsafe
from vocprep.files.writing import canonical_json
from vocprep.formats.npy import HEADER_BYTES, npy_bytes, npy_layout, read_npy
from vocprep.shards.codecs.tar_members import BLOCK, find_members
from vocprep.shards.columns import BATCH_FIELDS, Column, Columns
from vocprep.shards.index import shard_versions
from vocprep.shards.record import (
    EMBEDDING_DTYPES,
    PATCH_FIELDS,
    TEXT_FIELDS,
    Record,
    check_record,
)
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
        names = self._members.names
        beginning = [_suffix(name) for name in names[: len(_ARRAYS) + 2]]
        self.format_version = 2 if _LABEL_MAPS[2] in beginning else 1
        self._in_order = _names_in_order(self.format_version)
        encoded, self._firsts = self._find_regular(names) or self._find_records(names)
        try:
            self.image_ids = _decoded(encoded)
        except ValueError as error:
            raise self._damaged(error) from error

    def _find_regular(self, names: Sequence[str]) -> tuple[list[str], list[int]] | None:
        """Return what ``_find_records`` does, where all is as it is to be; None where not."""
        count = len(self._in_order)
        end = f".{self._in_order[0]}"
        encoded = [name.removesuffix(end) for name in names[::count]]
        endings = [f".{suffix}" for suffix in self._in_order]
        expected = [name + ending for name in encoded for ending in endings]
        is_regular = names == expected and len(set(encoded)) == len(encoded)
        if not encoded or not is_regular or "." in "".join(encoded):
            return None
        return encoded, list(range(0, len(names), count))

    def _find_records(self, names: Sequence[str]) -> tuple[list[str], list[int]]:
        """Return the encoded record ids, and the number of each record's first member."""
        firsts: dict[str, int] = {}
        stems = [name.partition(".")[0] for name in names]
        for name, group in groupby(range(len(names)), key=stems.__getitem__):
            numbers = list(group)
            found = [_suffix(each) for each in names[numbers[0] : numbers[-1] + 1]]
            if found != self._in_order or name in firsts:
                raise self._damaged(
                    f"record {printable(name)} has the members {', '.join(found[:10])}: expected "
                    f"{', '.join(self._in_order)}, once and in this order"
                )
            firsts[name] = numbers[0]
        if not firsts:
            raise self._damaged("no record in it")
        return list(firsts), list(firsts.values())

    def _damaged(self, reason: object) -> ShardError:
        return ShardError(f"{self._where}: damaged tar shard: {reason}; build it again")

    def __len__(self) -> int:
        return len(self.image_ids)

    def __iter__(self) -> Iterator[Record]:
        """Yield all records in row order."""
        return map(self.read, range(len(self)))

    def columns(self) -> Columns:
        """Return all records as columns; ShardError where ``read`` would raise it of any record."""
        try:
            grids = self._grids()
            lengths = grids.prod(axis=1)
            members = np.array([self._members.starts, self._members.sizes]).T
            fields = {
                name: self._column(name, members[np.array(self._firsts) + number], lengths)
                for number, name in enumerate(_ARRAYS)
            }
            if fields["embeddings"].dtype not in EMBEDDING_DTYPES:
                raise ValueError("embeddings of another type")
        except (ValueError, IndexError) as error:
            deque(self, maxlen=0)  # raises the error of the first damaged record
            raise self._damaged(error) from error
        return Columns(
            image_ids=self.image_ids,
            grids=grids,
            fields={name: fields[name] for name in BATCH_FIELDS},
            read=self.read,
        )

    def _grids(self) -> NDArray[np.int64]:
        """Return the grid of each record [N, 2]; ValueError for a damaged JSON member."""
        view, number = self._data.data, self._in_order.index(_JSON)
        grids = []
        for first, image_id in zip(self._firsts, self.image_ids, strict=True):
            (place,) = self._members.places(slice(first + number, first + number + 1))
            try:
                grids.append(self._info(bytes(view[place]), image_id).grid)
            except ShardError as error:
                raise ValueError(error) from error
        return np.array(grids, dtype=np.int64)

    def _column(self, name: str, places: NDArray[np.int64], lengths: NDArray[np.int64]) -> Column:
        """Return a field of all records, of so many patches [N]; ValueError where it is not.

        ``places`` [N, 2] are first byte of the header and size of its members.
        """
        blocks = places[:, 0] // BLOCK + 1
        headers = self._data.reshape(-1, BLOCK)[blocks, :HEADER_BYTES]
        distinct = headers[:1] if (headers == headers[0]).all() else headers
        layouts = [npy_layout(header.tobytes()) for header in distinct]
        (dtype, (*_, size)) = layouts[0]
        wanted, row = PATCH_FIELDS.get(name, (dtype.type, (size,)))
        if any(layout[0] != wanted or layout[1][1:] != row for layout in layouts):
            raise ValueError(f"{name} of different types or shapes")
        counts = np.array([layout[1][0] for layout in layouts])
        sizes = HEADER_BYTES + lengths * dtype.itemsize * int(np.prod(row))
        if (counts != lengths).any() or (places[:, 1] != sizes).any():
            raise ValueError(f"{name} of another size than its grid")
        # Without the first bytes of the archive, every array begins with a block.
        rest = self._data[HEADER_BYTES:]
        units = rest[: len(rest) // BLOCK * BLOCK].reshape(-1, BLOCK)
        return Column(units, blocks, dtype, row)

    def read(self, row: int) -> Record:
        """Return the record of one row."""
        parts = self._parts(row)
        try:
            info = self._info(parts[_JSON].tobytes(), self.image_ids[row])
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
            return self._info(self._parts(row)[_JSON].tobytes(), self.image_ids[row])
        except ValueError as error:
            raise self._damaged(f"record {self.image_ids[row]}: {explain(error)}") from error

    def _parts(self, row: int) -> dict[str, NDArray[np.uint8]]:
        """Return the bytes of a record's members by the part of their names after its id."""
        first = self._firsts[row]
        places = self._members.places(slice(first, first + len(self._in_order)))
        return {name: self._data[place] for name, place in zip(self._in_order, places, strict=True)}

    def _info(self, data: bytes, image_id: str) -> RecordInfo:
        info = _RECORD_INFO.validate_json(data, strict=True)
        if info.format_version != self.format_version:
            raise ShardError(
                f"{self._where}: format version {info.format_version}: expected "
                f"{self.format_version} of a shard with {_LABEL_MAPS[self.format_version]} members"
            )
        if info.image_id != image_id:
            raise ValueError(f"its JSON has the id {info.image_id!r}")
        return info


def _suffix(name: str) -> str:
    """Return the part of a member's name after the record id."""
    return name.partition(".")[2]


def _decoded(names: Sequence[str]) -> list[str]:
    """Return the record ids of encoded names; ValueError for any other name."""
    joined = "".join(names)
    if "%" in joined or "#" in joined or first_unsafe(names) is not None:
        return [decode_record_id(name) for name in names]
    return list(names)
