"""A dataset version as a whole: its index and what that lists beside the shards."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
            if not agrees(path / entry.name, entry):
                raise ShardError(
                    f"{path / entry.name}: is missing or not the file that dataset.json lists, "
                    f"expected {entry.bytes:,} bytes of sha256 {entry.sha256[:12]}…; copy it "
                    "again, or build the shards again"
                )
        return cls(
            index=index, samples=read_samples(path), quarantined=read_quarantine(path, index)
        )

    @property
    def members(self) -> list[Member]:
        """Records and quarantined samples."""
        return [*self.samples, *self.quarantined]

    @property
    def sources(self) -> dict[str, Digests]:
        """The pictures that it was made of, quarantined ones included: id → files' digests."""
        return sources_of(self.members)


def agrees(path: Path, entry: FileEntry) -> bool:
    """Say whether a file is there with the bytes that its entry tells of."""
    try:
        if path.stat().st_size != entry.bytes:
            return False
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == entry.sha256
    except OSError:
        return False
