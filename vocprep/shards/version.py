"""A dataset version as a whole: its index, and all that its folder holds beside the shards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path

from vocprep.errors import ShardError
from vocprep.shards.containers import CONTAINERS
from vocprep.shards.index import DatasetIndex, FileEntry, read_index, read_quarantine
from vocprep.shards.record import Record
from vocprep.shards.samples import (
    PairDigests,
    QuarantinedSample,
    Sample,
    SampleEntry,
    pair_digests,
    read_samples,
)


@dataclass(frozen=True, kw_only=True)
class Version:
    """A dataset version without its shards."""

    index: DatasetIndex
    samples: Sequence[SampleEntry]
    """In id order."""
    quarantined: Sequence[QuarantinedSample]
    """In id order."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Bytes by name of what is beside shards and dataset.json, of a version still to be written."""

    @classmethod
    def read(cls, path: Path) -> Version:
        """Read a finished version; ShardError when its files are not those of its index."""
        index = read_index(path)
        for entry in index.files:
            if (problem := file_problem(path / entry.name, entry)) is not None:
                raise ShardError(
                    f"{path / entry.name}: expected {entry.bytes:,} bytes of sha256 "
                    f"{entry.sha256[:12]}…, found {problem}; copy it again, or build the shards "
                    "again"
                )
        return cls(
            index=index, samples=read_samples(path), quarantined=read_quarantine(path, index)
        )

    @property
    def all_samples(self) -> list[Sample]:
        """Records and quarantined samples."""
        return [*self.samples, *self.quarantined]

    @cached_property
    def by_shard(self) -> dict[str, list[SampleEntry]]:
        """Records in row order by shard: every shard of the index, and any other that is named."""
        found: dict[str, list[SampleEntry]] = {shard.name: [] for shard in self.index.shards}
        for sample in sorted(self.samples, key=lambda sample: sample.row):
            found.setdefault(sample.shard, []).append(sample)
        return found

    def records(
        self, folder: Path, samples: Iterable[SampleEntry]
    ) -> Iterator[tuple[SampleEntry, Record]]:
        """Yield the records of some samples in their order, from the shards in ``folder``.

        Successive samples of one shard share one opening of it, and successive rows one read: with
        samples sorted by shard and row, each shard is opened once. ShardError when a row holds
        another record than samples.jsonl lists.
        """
        container = CONTAINERS[self.index.container]
        for name, group in groupby(samples, key=lambda sample: sample.shard):
            with container.open_shard(folder / name) as shard:
                for run in _consecutive_rows(group):
                    expected = [sample.id for sample in run]
                    start, stop = run[0].row, run[-1].row + 1
                    if start < 0 or shard.image_ids[start:stop] != expected:
                        raise ShardError(
                            f"{folder / name}: rows {start} to {stop - 1} are not the records "
                            f"{', '.join(expected[:3])}{'…' * (len(expected) > 3)} that "
                            "samples.jsonl lists there; build the shards again"
                        )
                    yield from zip(run, shard.read_rows(start, stop), strict=True)

    @property
    def sources(self) -> dict[str, PairDigests]:
        """Digests of the source files by image id, of quarantined images too."""
        return pair_digests(self.all_samples)


def _consecutive_rows(samples: Iterable[SampleEntry]) -> Iterator[list[SampleEntry]]:
    """Cut samples of one shard into runs whose rows follow one another."""
    # Within such a run, row minus place is the same.
    for _, run in groupby(enumerate(samples), key=lambda item: item[1].row - item[0]):
        yield [sample for _, sample in run]


def is_unchanged(path: Path, entry: FileEntry) -> bool:
    """Return whether a file has the size and digest of its entry."""
    return file_problem(path, entry) is None


def file_problem(path: Path, entry: FileEntry) -> str | None:
    """Return what was found in the place of the bytes of an entry; None when they are there."""
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size != entry.bytes:
                return f"{size:,} bytes"
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return "no file"
    except OSError as error:
        return f"what cannot be read: {error.strerror}"
    return None if digest == entry.sha256 else f"others, of sha256 {digest[:12]}…"
