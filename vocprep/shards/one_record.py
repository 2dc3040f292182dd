"""One record of an HDF5 shard in an object store, read by range: for a viewer, which shows a few.

The digest of the shard cannot be compared then. So nothing but this module's own parser, which
looks at each bound before it reads, sees bytes of the file, and a record is handed out only when it
has the digests that samples.jsonl lists. In every other case the shard is read as a whole, which
tells what is wrong with it.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import ShardError
from vocprep.files.writing import canonical_json
from vocprep.parallel import map_ordered
from vocprep.shards.codecs.hdf5_layout import (
    PATCH_NAMES,
    TEXTS,
    FileBytes,
    PlacedArray,
    check_extents,
    check_type,
    messages,
    root_group,
    unpack,
)
from vocprep.shards.index import DatasetIndex
from vocprep.shards.listed import FileProblem, foreign_file
from vocprep.shards.record import Record, check_record
from vocprep.shards.samples import SAMPLES_FILE, SampleEntry, parse_lines
from vocprep.shards.version import read_listed
from vocprep.storage.cache import is_cached
from vocprep.storage.store import StorePath

_MOST_ALONE = 16
"""Records of one shard that are read by ranges; then the shard is fetched."""
_MOST_LINES = 64 << 20
"""Bytes of samples.jsonl that are fetched to prove single records, of some 100,000 of them."""
_BLOCK = 64 << 10
"""Bytes that are fetched at once of what tells where the arrays are."""
_MOST_BLOCKS = 32
_MOST_NAMES = 64
_CONNECTIONS = 6
_LINK_INFO, _DATASPACE, _DATATYPE, _LAYOUT = 0x02, 0x01, 0x03, 0x08
"""Kinds of messages in an object header."""
_CONTIGUOUS = 1
_TEXT_OF_A_HEAP = 0x1C
"""Flags of a link message that this parser takes: type, creation order and character set."""
_KINDS = {0: ("u", "i", (1, 2, 4, 8)), 1: ("f", "f", (2, 4)), 3: ("S", "S", range(1, 256))}
"""By class of type: numpy's letter, that of a signed one, and the sizes of values."""


class RangedRecords:
    """The records of a version in an object store, those of shards that the cache does not hold."""

    def __init__(self, folder: StorePath, index: DatasetIndex) -> None:
        self._folder, self._index = folder, index
        self._shards = {shard.name: shard for shard in index.shards}
        self._lines: bytes | None = None
        self._open: tuple[str, RangedShard] | None = None
        self._reads: Counter[str] = Counter()

    def read(self, record_id: str, candidates: Iterable[str]) -> Record | None:
        """Return a record by ranges; None where its shard is to be read as a whole.

        ``candidates`` are the shards that may hold it. ShardError when the store cannot be read.
        """
        shards = [self._shards[name] for name in candidates]
        if self._index.container != "hdf5" or all(is_cached(shard.sha256) for shard in shards):
            return None
        sample = self._find_line(record_id)
        if sample is None or sample.shard not in self._shards:
            return None
        entry = self._shards[sample.shard]
        self._reads[entry.name] += 1
        if is_cached(entry.sha256) or self._reads[entry.name] > _MOST_ALONE:
            return None
        if self._open is None or self._open[0] != entry.name:
            self._open = entry.name, RangedShard(self._folder / entry.name, entry.bytes)
        try:
            return self._open[1].read(sample)
        except OSError as error:
            if error.errno == errno.ERANGE:  # an object that is too short
                return None
            problem = FileProblem.of_error(self._folder / entry.name, error)
            raise foreign_file(self._folder, self._index, entry, problem) from error

    def _find_line(self, record_id: str) -> SampleEntry | None:
        """Return the line of a record in samples.jsonl, which the index proves."""
        if self._lines is None:
            (entry,) = (entry for entry in self._index.files if entry.name == SAMPLES_FILE)
            is_small = entry.bytes <= _MOST_LINES or is_cached(entry.sha256)
            self._lines = (
                read_listed(self._folder, self._index, SAMPLES_FILE, entry.bytes)
                if is_small
                else b""
            )
        lines = self._lines
        place = lines.find(b'"id":' + canonical_json(record_id) + b",")
        if place < 0:
            return None
        line = lines[lines.rfind(b"\n", 0, place) + 1 : lines.find(b"\n", place)]
        (sample,) = parse_lines([line], SampleEntry, str(self._folder / SAMPLES_FILE))
        return sample


class RangedShard:
    """An HDF5 shard in an object store, of which single records are read."""

    def __init__(self, path: StorePath, size: int) -> None:
        """``size`` is the bytes that the index lists."""
        self._path = path
        self._arrays: Mapping[str, PlacedArray] | None = None
        self._blocks = _Blocks(path, size)

    def read(self, sample: SampleEntry) -> Record | None:
        """Return the record of a line of samples.jsonl; None where only the whole shard tells.

        OSError when the object cannot be read.
        """
        try:
            if self._arrays is None:
                self._arrays = find_arrays(self._blocks)
            record = self._read(self._arrays, sample)
            is_listed = SampleEntry.of(record, sample.shard, sample.row) == sample
        except (ValueError, LookupError, ShardError):  # damaged, or of another form
            return None
        return record if is_listed else None

    def _read(self, arrays: Mapping[str, PlacedArray], sample: SampleEntry) -> Record:
        row = sample.row
        patches = self._bounds(arrays["offsets"], row)
        png = self._bounds(arrays["label_map_offsets"], row)
        if len(patches) != sample.grid[0] * sample.grid[1]:
            raise ValueError("another number of patches than the line states")
        rows = {**dict.fromkeys(PATCH_NAMES, patches), "label_map": png}
        spans = [_rows_span(arrays[name], own) for name, own in rows.items()]
        parts = dict(zip(rows, map_ordered(self._fetch, spans, _CONNECTIONS), strict=True))
        fields: dict[str, Any] = {
            name: _as_array(arrays[name], parts[name]) for name in PATCH_NAMES
        }
        texts = {name: self._row(arrays[name], row).item().decode() for name in TEXTS}
        ny, nx = self._row(arrays["grid"], row).tolist()
        record = Record(
            **texts, split=sample.split, grid=(ny, nx), label_png=parts["label_map"], **fields
        )
        return check_record(record, str(self._path))

    def _bounds(self, offsets: PlacedArray, row: int) -> range:
        """Return the rows of one record in the arrays that offsets belong to."""
        start, stop = _as_array(offsets, self._blocks[_rows_span(offsets, range(row, row + 2))])
        return range(int(start), int(stop))

    def _row(self, array: PlacedArray, row: int) -> NDArray[Any]:
        (found,) = _as_array(array, self._blocks[_rows_span(array, range(row, row + 1))])
        return np.asarray(found)

    def _fetch(self, span: slice) -> bytes:
        return self._path.read_range(span.start, span.stop) if span.start < span.stop else b""


def _rows_span(array: PlacedArray, rows: range) -> slice:
    """Return where some rows of an array are in the file; ValueError where it has no such rows."""
    dtype, shape, start = array
    if not 0 <= rows.start <= rows.stop <= shape[0]:
        raise ValueError(f"no rows {rows.start} to {rows.stop} among {shape[0]}")
    width = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    return slice(start + rows.start * width, start + rows.stop * width)


def _as_array(array: PlacedArray, data: bytes) -> NDArray[Any]:
    """Return rows of an array from their bytes."""
    dtype, shape, _ = array
    return np.frombuffer(data, dtype).reshape(-1, *shape[1:])


class _Blocks(FileBytes):
    """The bytes of an object, fetched in blocks, which are kept; a bounded number of them."""

    def __init__(self, path: StorePath, size: int) -> None:
        self._path, self._size = path, size
        self._blocks: dict[int, bytes] = {}

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, span: slice) -> bytes:
        start, stop, _ = span.indices(self._size)
        numbers = range(start // _BLOCK, -(-stop // _BLOCK))
        if len(numbers) > _MOST_BLOCKS:
            raise ValueError(f"{stop - start:,} bytes at once")
        joined = b"".join(self._block(number) for number in numbers)
        first = numbers.start * _BLOCK
        return joined[start - first : stop - first]

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            if len(self._blocks) == _MOST_BLOCKS:
                self._blocks.pop(next(iter(self._blocks)))
            start = number * _BLOCK
            stop = min(start + _BLOCK, self._size)
            data = self._path.read_range(start, stop)
            if len(data) != stop - start:
                raise ValueError("the object is shorter than is listed")
            self._blocks[number] = data
        return self._blocks[number]


def find_arrays(data: FileBytes) -> dict[str, PlacedArray]:
    """Return type, shape and first byte of a shard's arrays; ValueError where it has another form.

    It reads what HDF5 1.8 and later write for a group of more than eight names: a fractal heap of
    one block with their links, each of them to an object header of version 2.
    """
    arrays = {}
    for name, header in _links(data, root_group(data)):
        places = {kind: (start, stop) for kind, start, stop in messages(data, header)}
        dtype = _dtype(data, *places[_DATATYPE])
        shape = _shape(data, *places[_DATASPACE])
        check_type(name, dtype, shape)
        arrays[name] = dtype, shape, _first_byte(data, *places[_LAYOUT])
    check_extents(arrays, len(data))
    return arrays


def _links(data: FileBytes, group: int) -> Iterator[tuple[str, int]]:
    """Yield the names in a group and where their object headers are."""
    info = [start for kind, start, _ in messages(data, group) if kind == _LINK_INFO]
    if len(info) != 1:
        raise ValueError("its root group has no heap of links")
    flags = unpack("<B", data, info[0] + 1)[0]
    heap = unpack("<Q", data, info[0] + 2 + (8 if flags & 1 else 0))[0]
    if bytes(data[heap : heap + 5]) != b"FRHP\0":
        raise ValueError("its links are in no fractal heap")
    filters, flags = unpack("<HB", data, heap + 7)
    count, _, size, _, bits, _, block, rows = unpack("<Q32xHQQHHQH", data, heap + 70)
    is_one_block = bytes(data[block : block + 4]) == b"FHDB" and not (rows or filters)
    if not is_one_block or not 0 < count <= _MOST_NAMES:
        raise ValueError("its links are not in one block")
    start, stop = block + 13 + -(-bits // 8) + (4 if flags & 2 else 0), block + size
    for _ in range(count):
        name, header, start = _link(data, start, stop)
        yield name, header


def _link(data: FileBytes, start: int, stop: int) -> tuple[str, int, int]:
    """Return name and object header of a hard link, and where the link ends."""
    version, flags = unpack("<BB", data, start)
    if version != 1 or flags & ~(_TEXT_OF_A_HEAP | 3):
        raise ValueError("a link is of another version")
    start += 2
    if flags & 8 and unpack("<B", data, start)[0]:
        raise ValueError("a link leads elsewhere")
    start += (1 if flags & 8 else 0) + (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
    length = unpack("<" + "BHIQ"[flags & 3], data, start)[0]
    start += 1 << (flags & 3)
    end = start + length + 8
    if end > stop:
        raise ValueError("a link leaves its block")
    name = bytes(data[start : start + length]).decode("ascii", "replace")
    return name, unpack("<Q", data, start + length)[0], end


def _shape(data: FileBytes, start: int, stop: int) -> tuple[int, ...]:
    version, rank, _, kind = unpack("<BBBB", data, start)
    if version != 2 or kind != 1 or not 1 <= rank <= 3 or start + 4 + 8 * rank > stop:
        raise ValueError("a dataspace is of another form")
    return unpack(f"<{rank}Q", data, start + 4)


def _dtype(data: FileBytes, start: int, stop: int) -> np.dtype[Any]:
    kind, bits, _, _, size = unpack("<BBBBI", data, start)
    plain, signed, sizes = _KINDS.get(kind & 15, ("", "", ()))
    is_big_endian = kind & 15 != 3 and bits & 1
    if size not in sizes or start + 8 > stop or is_big_endian:
        raise ValueError("a type is of another form")
    return np.dtype(f"<{signed if bits & 8 else plain}{size}")


def _first_byte(data: FileBytes, start: int, stop: int) -> int:
    version, kind = unpack("<BB", data, start)
    if version not in (3, 4) or kind != _CONTIGUOUS or start + 18 > stop:
        raise ValueError("an array is not contiguous")
    return unpack("<Q", data, start + 2)[0]
