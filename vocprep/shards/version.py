"""A dataset version as a whole: its index and what that lists beside the shards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from vocprep.errors import ShardError
from vocprep.shards.index import DatasetIndex, FileEntry, read_index, read_quarantine
from vocprep.shards.samples import (
    Digests,
    Member,
    QuarantinedSample,
    SampleEntry,
    read_samples,
    sources_of,
)


@dataclass(frozen=True, kw_only=True)
class Version:
    """A dataset version, its shards left out."""

    index: DatasetIndex
    samples: Sequence[SampleEntry]
    """In id order."""
    quarantined: Sequence[QuarantinedSample]
    """In id order."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Name → bytes of the files beside shards and dataset.json, while they are to be written."""

    @classmethod
    def read(cls, path: Path) -> Version:
        """Read a finished version; ShardError when its files are not those of its index."""
        index = read_index(path)
        for entry in index.files:
            if (problem := problem_of(path / entry.name, entry)) is not None:
                raise ShardError(
                    f"{path / entry.name}: expected {entry.bytes:,} bytes of sha256 "
                    f"{entry.sha256[:12]}…, found {problem}; copy it again, or build the shards "
                    "again"
                )
        return cls(
            index=index, samples=read_samples(path), quarantined=read_quarantine(path, index)
        )

    @property
    def members(self) -> list[Member]:
        """Records and quarantined samples."""
        return [*self.samples, *self.quarantined]

    @cached_property
    def by_shard(self) -> dict[str, list[SampleEntry]]:
        """The records of each shard in row order: of all that the index lists, and of others."""
        found: dict[str, list[SampleEntry]] = {shard.name: [] for shard in self.index.shards}
        for sample in sorted(self.samples, key=lambda sample: sample.row):
            found.setdefault(sample.shard, []).append(sample)
        return found

    @property
    def sources(self) -> dict[str, Digests]:
        """The pictures that it was made of, quarantined ones included: id → files' digests."""
        return sources_of(self.members)


def agrees(path: Path, entry: FileEntry) -> bool:
    """Say whether a file is there with the bytes that its entry tells of."""
    return problem_of(path, entry) is None


def problem_of(path: Path, entry: FileEntry) -> str | None:
    """Say in words what there is in the place of the bytes that an entry tells of, or None."""
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
