"""samples.jsonl and quarantine.jsonl: a line a record, and a line a sample that became none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vocprep.errors import ShardError
from vocprep.files import canonical_json, sha256_hex
from vocprep.shards.record import FLIP_SUFFIX, Record

SAMPLES_FILE = "samples.jsonl"
QUARANTINE_FILE = "quarantine.jsonl"
LABELS_FILE = "labels.json"
"""The label space that the targets are of."""


class Entry(BaseModel):
    """A JSON object that holds what it must and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def sha256_without(self, name: str) -> str:
        """Return the digest of the canonical JSON of all fields but one, which is to hold it."""
        return sha256_hex(canonical_json(self.model_dump(mode="json", exclude={name})))


class SampleEntry(Entry):
    """A line of samples.jsonl: one record, where it is and what it is."""

    id: str
    """Record id: the image id, with ``#flip`` behind it for the mirrored view."""
    split: str
    shard: str
    row: int
    grid: tuple[int, int]
    image_sha256: str
    label_sha256: str
    targets_sha256: str
    embeddings_sha256: str
    record_sha256: str
    status: Literal["ok"] = "ok"

    @classmethod
    def of(cls, record: Record, shard: str, row: int) -> SampleEntry:
        """Describe a record at its place."""
        return cls(
            id=record.image_id,
            split=record.split,
            shard=shard,
            row=row,
            grid=record.grid,
            image_sha256=record.image_sha256,
            label_sha256=record.label_sha256,
            targets_sha256=record.targets_sha256,
            embeddings_sha256=record.embeddings_sha256,
            record_sha256=record.record_sha256,
        )


class QuarantinedSample(Entry):
    """A line of quarantine.jsonl: one picture that no record could be made of, and why."""

    id: str
    split: str
    stage: Literal["read", "decode", "geometry"]
    file: str
    """Below the data dir."""
    reason: str
    image_sha256: str | None = None
    """Digest of the picture's bytes; None when they could not be read."""
    label_sha256: str | None = None
    status: Literal["quarantined"] = "quarantined"


Member = SampleEntry | QuarantinedSample
"""What a dataset version says of a picture, in one view of it."""
Digests = tuple[str | None, str | None]
"""Sha256 of a picture's file and of its label file, None for what could not be read."""


def sources_of(members: Iterable[Member]) -> dict[str, Digests]:
    """Return the digests of the files that records were made of, or were not, by image id."""
    return {
        member.id: (member.image_sha256, member.label_sha256)
        for member in members
        if not member.id.endswith(FLIP_SUFFIX)
    }


Line = TypeVar("Line", SampleEntry, QuarantinedSample)


def lines_of(entries: Sequence[Entry]) -> bytes:
    """Return the bytes of a .jsonl file: canonical JSON, a line an entry."""
    return b"".join(canonical_json(entry.model_dump(mode="json")) + b"\n" for entry in entries)


def read_samples(out: Path) -> list[SampleEntry]:
    """Read samples.jsonl; ShardError naming the bad line."""
    return read_lines(out / SAMPLES_FILE, SampleEntry)


def read_lines(path: Path, kind: type[Line]) -> list[Line]:
    """Read a .jsonl file; ShardError naming the bad line."""
    entries: list[Line] = []
    try:
        with path.open("rb") as stream:
            for line in stream:
                entries.append(kind.model_validate_json(line))
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ShardError(f"{path}: line {len(entries) + 1}: {first_problem(error)}") from error
    return entries


def first_problem(error: Exception) -> str:
    """Say in one line what is wrong with a JSON file."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error).split("\n", maxsplit=1)[0]
