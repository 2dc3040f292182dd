"""samples.jsonl and quarantine.jsonl: one line per record, one per image without a record.

``Entry`` is the base of everything that dataset.json, its lists and lock files consist of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vocprep.errors import ShardError
from vocprep.files import canonical_json, sha256_hex
from vocprep.shards.record import FLIP_SUFFIX, Record
from vocprep.validation import explain

SAMPLES_FILE = "samples.jsonl"
QUARANTINE_FILE = "quarantine.jsonl"
LABELS_FILE = "labels.json"
"""The label space of the targets."""


class Entry(BaseModel):
    """A JSON object with exactly the fields of its class."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SealedEntry(Entry):
    """An entry of which one field holds the digest of all others, as canonical JSON."""

    DIGEST_FIELD: ClassVar[str]

    def sealed(self) -> Self:
        """Return the same content with its own digest."""
        digest = self._digest(self.model_dump(mode="json"))
        return self.model_copy(update={self.DIGEST_FIELD: digest})

    @classmethod
    def is_intact(cls, value: dict[str, Any]) -> bool:
        """Return whether a JSON object has the digest of its other fields.

        Of the object as it was read: a field left out would get its default in the model.
        """
        try:
            return bool(value[cls.DIGEST_FIELD] == cls._digest(value))
        except (KeyError, ValueError):  # ValueError: NaN, which no canonical JSON holds
            return False

    @classmethod
    def _digest(cls, value: dict[str, Any]) -> str:
        others = {name: field for name, field in value.items() if name != cls.DIGEST_FIELD}
        return sha256_hex(canonical_json(others))


class SampleEntry(Entry):
    """A line of samples.jsonl: one record, where it is, and its digests."""

    id: str
    """Record id: the image id, followed by ``#flip`` for the mirrored view."""
    split: str
    shard: str
    row: int
    """Within the shard."""
    grid: tuple[int, int]
    image_sha256: str
    label_sha256: str
    targets_sha256: str
    embeddings_sha256: str
    record_sha256: str
    status: Literal["ok"] = "ok"

    @classmethod
    def of(cls, record: Record, shard: str, row: int) -> SampleEntry:
        """Describe a record in its place."""
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
    """A line of quarantine.jsonl: one image that no record could be made of, and why."""

    id: str
    split: str
    stage: Literal["read", "decode", "geometry"]
    file: str
    """Below the data dir."""
    reason: str
    image_sha256: str | None = None
    """Digest of the image file; None when it could not be read."""
    label_sha256: str | None = None
    """Digest of the label file; None when it could not be read."""
    status: Literal["quarantined"] = "quarantined"


Sample = SampleEntry | QuarantinedSample
"""One image of a dataset version in one view: a record, or why there is none."""
PairDigests = tuple[str | None, str | None]
"""Sha256 of an image file and of its label file; None for one that could not be read."""


def pair_digests(samples: Iterable[Sample]) -> dict[str, PairDigests]:
    """Return the digests of the two source files of each sample, by image id."""
    return {
        sample.id: (sample.image_sha256, sample.label_sha256)
        for sample in samples
        if not sample.id.endswith(FLIP_SUFFIX)
    }


Line = TypeVar("Line", SampleEntry, QuarantinedSample)


def jsonl_bytes(entries: Sequence[Entry]) -> bytes:
    """Return the bytes of a .jsonl file: canonical JSON, one line per entry."""
    return b"".join(canonical_json(entry.model_dump(mode="json")) + b"\n" for entry in entries)


def read_samples(folder: Path) -> list[SampleEntry]:
    """Read samples.jsonl; ShardError with the number of the first bad line."""
    return read_lines(folder / SAMPLES_FILE, SampleEntry)


def read_lines(path: Path, kind: type[Line]) -> list[Line]:
    """Read a .jsonl file; ShardError with the number of the first bad line."""
    entries: list[Line] = []
    try:
        with path.open("rb") as stream:
            for line in stream:
                entries.append(kind.model_validate_json(line, strict=True))
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ShardError(f"{path}: line {len(entries) + 1}: {explain(error)}") from error
    return entries
