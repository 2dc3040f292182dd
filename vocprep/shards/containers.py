"""The shard containers, and the one way to open a shard of a version: its bytes are proved first.

To add a container: a codec module with an ``encode`` and a class that satisfies ``ShardReader``, an
entry in ``CONTAINERS``, its versions in ``vocprep.shards.index.SHARD_VERSIONS`` and its name in
``vocprep.options.ShardFormat``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, SupportsInt

import numpy as np
from numpy.typing import NDArray

from vocprep.files.writing import sha256_hex
from vocprep.options import ShardFormat
from vocprep.shards.codecs import hdf5, tar
from vocprep.shards.columns import Columns
from vocprep.shards.index import DatasetIndex, FileEntry
from vocprep.shards.listed import FileProblem, foreign_file
from vocprep.shards.record import Record
from vocprep.storage.cache import DigestMismatchError
from vocprep.storage.places import Place
from vocprep.storage.reading import fetch_ahead, forget_damaged, is_proved, open_listed


class ShardReader(Protocol):
    """A shard in memory, the same for every container; its records are views of its bytes."""

    format_version: int
    image_ids: list[str]
    """Record ids in row order."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Record]:
        """Yield all records in row order."""
        ...

    def read(self, row: int) -> Record:
        """Return the record of one row."""
        ...

    def columns(self) -> Columns:
        """Return all records as columns; ShardError where ``read`` would raise it of any record."""
        ...


@dataclass(frozen=True, kw_only=True)
class Container:
    """A shard format."""

    suffix: str
    """Of the file's name, with its dot."""
    encode: Callable[[Sequence[Record]], bytes]
    """Return the bytes of a shard; the same records give the same bytes."""
    parse: Callable[[NDArray[np.uint8], str], ShardReader]
    """Return the records of a shard's bytes; ShardError naming the text when they are none."""


CONTAINERS: Mapping[ShardFormat, Container] = {
    "hdf5": Container(suffix=".h5", encode=hdf5.encode, parse=hdf5.Hdf5Shard),
    "webdataset": Container(suffix=".tar", encode=tar.encode, parse=tar.TarShard),
}
"""By the name in ``--format`` and in dataset.json."""


class Fingerprints(Protocol):
    """A number per shard, such as a list or a tensor in memory that processes share."""

    def __getitem__(self, row: int, /) -> SupportsInt: ...

    def __setitem__(self, row: int, value: int, /) -> None: ...


class ProvedShards:
    """The shards of an opened version; the digest of each is compared with the index.

    That is done once per file, which is known again by its device, inode, size and times. The bytes
    that were digested are those that are parsed, whatever happens to the file meanwhile.
    """

    def __init__(
        self, folder: Place, index: DatasetIndex, fingerprints: Fingerprints | None = None
    ) -> None:
        """``fingerprints`` holds a zero per shard; give shared memory for worker processes."""
        self._folder, self._index = folder, index
        self._rows = {shard.name: row for row, shard in enumerate(index.shards)}
        self._proved = [0] * len(self._rows) if fingerprints is None else fingerprints

    def open(self, name: str) -> ShardReader:
        """Return a shard's records; ShardError when its file is not the one that is listed."""
        return CONTAINERS[self._index.container].parse(self.read(name), str(self._folder / name))

    def prefetch(self, name: str) -> None:
        """Begin to fetch a shard that is read soon, from an object store."""
        entry = self._index.shards[self._rows[name]]
        fetch_ahead(self._folder / name, entry.sha256, entry.bytes)

    def read(self, name: str) -> NDArray[np.uint8]:
        """Return a shard's bytes; ShardError when its file is not the one that is listed."""
        row = self._rows[name]
        entry = self._index.shards[row]
        read = read_entry(self._folder / name, entry, int(self._proved[row]))
        if isinstance(read, FileProblem):
            raise foreign_file(self._folder, self._index, entry, read)
        self._proved[row] = read.fingerprint
        return read.data


@dataclass(frozen=True, eq=False)
class ProvedFile:
    """The bytes of a file that are those of its entry."""

    data: NDArray[np.uint8]
    """[N]"""
    fingerprint: int
    """By which the file is known again; 0 when it was written to while it was read."""


def read_entry(path: Place, entry: FileEntry, proved: int = 0) -> ProvedFile | FileProblem:
    """Read a file that must have the size and digest of an entry; return what else was found.

    A file with the fingerprint ``proved`` is not digested again. A damaged copy in the cache of an
    object store is fetched again, once.
    """
    read = _read_once(path, entry, proved)
    is_damaged = isinstance(read, FileProblem) and read.state == "changed"
    if is_damaged and forget_damaged(path, entry.sha256):
        return _read_once(path, entry, 0)
    return read


def _read_once(path: Place, entry: FileEntry, proved: int) -> ProvedFile | FileProblem:
    try:
        with open_listed(path, entry.sha256, entry.bytes) as stream:
            fingerprint = _fingerprint(stream.fileno())
            size = os.fstat(stream.fileno()).st_size
            if size != entry.bytes:
                return FileProblem.of_size(size)
            is_fresh = is_proved(path, stream, entry.sha256)
            data = np.empty(size, dtype=np.uint8)
            count = stream.readinto(data.data)
            if _fingerprint(stream.fileno()) != fingerprint:
                fingerprint = 0
    except DigestMismatchError as error:
        return FileProblem.of_mismatch(entry.bytes, error.size, error.sha256)
    except OSError as error:
        return FileProblem.of_error(path, error)
    is_known = fingerprint != 0 and (is_fresh or fingerprint == proved)
    if count != size or not is_known:
        digest = sha256_hex(data.data)
        if digest != entry.sha256:
            return FileProblem.of_digest(size, digest)
    return ProvedFile(data, fingerprint)


def _fingerprint(descriptor: int) -> int:
    """Return a number that differs between files, and changes when a file is written to."""
    stat = os.fstat(descriptor)
    return hash((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
