"""The shard containers: how records become the bytes of a file, and back.

To add a container: a codec module with an ``encode`` and a class that satisfies ``ShardReader``, an
entry in ``CONTAINERS``, and its name in ``vocprep.options.ShardFormat``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from vocprep.errors import ShardError
from vocprep.options import ShardFormat
from vocprep.shards import hdf5, tar
from vocprep.shards.record import Record


class ShardReader(Protocol):
    """An open shard, the same for every container. Close it, or use it as a context manager."""

    image_ids: list[str]
    """Record ids in row order."""

    def __iter__(self) -> Iterator[Record]:
        """Yield all records in row order."""
        ...

    def read(self, row: int) -> Record:
        """Return the record of one row."""
        ...

    def read_rows(self, start: int, stop: int) -> Iterator[Record]:
        """Yield the records of the rows from ``start`` up to ``stop``, read in one piece."""
        ...

    def close(self) -> None:
        """Close the file; records that were read stay valid."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Container:
    """A shard format."""

    suffix: str
    """Of the file's name, with its dot."""
    encode: Callable[[Sequence[Record]], bytes]
    """Return the bytes of a shard; the same records give the same bytes."""
    open_shard: Callable[[Path], ShardReader]
    """Open a shard for reading; ShardError naming the path when it is not one."""


CONTAINERS: Mapping[ShardFormat, Container] = {
    "hdf5": Container(suffix=".h5", encode=hdf5.encode, open_shard=hdf5.Hdf5Shard),
    "webdataset": Container(suffix=".tar", encode=tar.encode, open_shard=tar.TarShard),
}
"""By the name in ``--format`` and in dataset.json."""


def container_of_file(path: Path) -> Container:
    """Return the container of a shard by the suffix of its name; ShardError for any other file.

    >>> container_of_file(Path("train-00000-of-00002.tar")) is CONTAINERS["webdataset"]
    True
    """
    for container in CONTAINERS.values():
        if path.suffix == container.suffix:
            return container
    suffixes = ", ".join(container.suffix for container in CONTAINERS.values())
    raise ShardError(f"{path}: not a shard by its name: expected one of {suffixes}")
