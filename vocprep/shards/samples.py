"""samples.jsonl and quarantine.jsonl: one line per record, one per image without a record.

``Entry`` is the base of everything that dataset.json, its lists and lock files consist of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from vocprep.errors import ShardError
from vocprep.files.ids import ID_PATTERN, is_plain, record_order
from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.validation import explain

if TYPE_CHECKING:
    from vocprep.shards.record import Record

SAMPLES_FILE = "samples.jsonl"
QUARANTINE_FILE = "quarantine.jsonl"
LABELS_FILE = "labels.json"
"""The label space of the targets."""
MAX_LINE = 64 << 10
"""Bytes of one line of a .jsonl file: a record's has about 600."""

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
"""A number of things, or a size in bytes."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RecordId = Annotated[str, Field(min_length=1, max_length=255, pattern=f"^{ID_PATTERN}$")]
"""An id that names no other folder than its own; ``vocprep.files.ids`` has the whole rule."""
ShortText = Annotated[str, Field(max_length=255)]
GridSide = Annotated[int, Field(ge=1, lt=1 << 16)]


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

    id: RecordId
    """Record id: the image id, followed by ``#flip`` or, of a crop, such as ``#crop1``."""
    split: str
    shard: str
    row: Count
    """Within the shard."""
    grid: tuple[GridSide, GridSide]
    image_sha256: ShortText
    label_sha256: ShortText
    targets_sha256: Sha256
    embeddings_sha256: Sha256
    record_sha256: Sha256
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

    id: RecordId
    split: str
    stage: Literal["read", "decode", "geometry"]
    file: str
    """Below the data dir."""
    reason: str
    image_sha256: ShortText | None = None
    """Digest of the image file; None when it could not be read."""
    label_sha256: ShortText | None = None
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
        if is_plain(sample.id)
    }


def sample_order(sample: SampleEntry | QuarantinedSample) -> str:
    """Return what samples are sorted by: the image id, its plain view before the others."""
    return record_order(sample.id)


Line = TypeVar("Line", SampleEntry, QuarantinedSample)


def jsonl_bytes(entries: Iterable[Entry]) -> bytes:
    """Return the bytes of a .jsonl file: canonical JSON, one line per entry."""
    return b"".join(canonical_json(entry.model_dump(mode="json")) + b"\n" for entry in entries)


def parse_lines(lines: Iterable[bytes], kind: type[Line], where: str) -> Iterator[Line]:
    """Yield the entries of a .jsonl file; ShardError with the number of the first bad line."""
    for number, line in enumerate(lines, start=1):
        try:
            if len(line) > MAX_LINE:
                raise ValueError(f"more than {MAX_LINE:,} bytes")
            entry = kind.model_validate_json(line, strict=True)
        except ValueError as error:  # ValidationError is one
            raise ShardError(
                f"{where}: line {number}: {explain(error)}; build the shards again with "
                "--if-exists overwrite"
            ) from error
        yield entry
