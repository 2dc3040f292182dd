"""The dataset index: dataset.json, samples.jsonl and the identities (docs/format.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    InstanceOf,
    PlainSerializer,
    ValidationError,
)

from vocprep.errors import ShardError
from vocprep.files import canonical_json, write_atomic, write_json
from vocprep.recipe import FORMAT_VERSION, Recipe, ShardFormat
from vocprep.shards.record import FLIP_SUFFIX, Container, Record

DATASET_FILE = "dataset.json"
SAMPLES_FILE = "samples.jsonl"
_MODULES = {"hdf5": "vocprep.shards.hdf5", "webdataset": "vocprep.shards.tar"}


def _recipe_from(value: object) -> object:
    return Recipe.from_json(value) if isinstance(value, dict) else value


RecipeField = Annotated[
    InstanceOf[Recipe], BeforeValidator(_recipe_from), PlainSerializer(Recipe.to_json)
]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SampleEntry(_Entry):
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

    @property
    def source_sha256(self) -> str:
        """Digest of the pair of source files."""
        return hashlib.sha256(f"{self.image_sha256}\0{self.label_sha256}".encode()).hexdigest()


class ShardEntry(_Entry):
    """One shard of dataset.json."""

    name: str
    split: str
    records: int
    patches: int
    bytes: int
    sha256: str


class DatasetIndex(_Entry):
    """dataset.json: what a dataset version is, and what proves it."""

    format: Literal["vocprep-dataset"] = "vocprep-dataset"
    format_version: int = FORMAT_VERSION
    recipe_id: str
    source_id: str
    content_id: str
    container: ShardFormat
    samples_per_shard: int
    recipe: RecipeField
    numerics_class: dict[str, str]
    weights: str
    """Where the backbone's weights came from, for people."""
    shards: tuple[ShardEntry, ...]
    statistics: dict[str, Any]
    versions: dict[str, str]

    @property
    def short_id(self) -> str:
        """What people paste into a paper: ``context460-crop224-resnet32-fp32@1f3a9c…``."""
        return f"{self.recipe.short_name}@{self.content_id[:12]}"


def container_of(name: ShardFormat) -> Container:
    """Return the codec module of ``hdf5`` or ``webdataset``."""
    return import_module(_MODULES[name])


def merkle_root(leaves: Iterable[tuple[str, str]]) -> str:
    """Return the root over (id, hex digest) pairs, sorted by id, as 64 hex digits.

    A leaf is sha256(00 ‖ id ‖ 00 ‖ digest), a node sha256(01 ‖ left ‖ right); a node without a
    partner moves up unchanged. The root of nothing is sha256 of nothing.
    """
    level = [
        hashlib.sha256(b"\0" + name.encode() + b"\0" + bytes.fromhex(digest)).digest()
        for name, digest in sorted(leaves)
    ]
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        pairs = [
            hashlib.sha256(b"\1" + level[i] + level[i + 1]).digest()
            for i in range(0, len(level) - 1, 2)
        ]
        level = pairs + level[len(pairs) * 2 :]
    return level[0].hex()


def source_id(samples: Iterable[SampleEntry]) -> str:
    """Return the identity of the source files: one leaf an image, however many views it has."""
    return merkle_root(
        (sample.id, sample.source_sha256)
        for sample in samples
        if not sample.id.endswith(FLIP_SUFFIX)
    )


def content_id(samples: Iterable[SampleEntry]) -> str:
    """Return the identity of the records."""
    return merkle_root((sample.id, sample.record_sha256) for sample in samples)


def write_index(out: Path, index: DatasetIndex, samples: Sequence[SampleEntry]) -> None:
    """Write samples.jsonl, then dataset.json, whose presence says that all is there."""
    lines = (canonical_json(sample.model_dump(mode="json")) for sample in samples)
    write_atomic(out / SAMPLES_FILE, b"".join(line + b"\n" for line in lines))
    write_json(out / DATASET_FILE, index.model_dump(mode="json"))


def read_index(out: Path) -> DatasetIndex:
    """Read dataset.json; ShardError when there is none or it is not one."""
    path = out / DATASET_FILE
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ShardError(
            f"{path}: no finished dataset there ({error.strerror}); run vocprep build-shards"
        ) from error
    except ValueError as error:
        raise ShardError(f"{path}: not a dataset index: {_first_line(error)}") from error
    version = value.get("format_version") if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
        raise ShardError(
            f"{path}: format version {version}: this version of vocprep reads {FORMAT_VERSION}"
        )
    try:
        index = DatasetIndex.model_validate(value)
        recipe_id = index.recipe.recipe_id
    except (ValueError, ShardError) as error:
        raise ShardError(f"{path}: not a dataset index: {_first_line(error)}") from error
    if recipe_id != index.recipe_id:
        raise ShardError(
            f"{path}: recipe_id {index.recipe_id[:12]}… does not belong to the recipe beside it, "
            f"which has {recipe_id[:12]}…; the file was edited"
        )
    return index


def check_files(out: Path, index: DatasetIndex) -> None:
    """See that every shard is there and of its size; ShardError naming the first that is not."""
    for shard in index.shards:
        path = out / shard.name
        found = path.stat().st_size if path.is_file() else None
        if found != shard.bytes:
            state = "is missing" if found is None else f"has {found:,} bytes"
            raise ShardError(
                f"{path}: {state}: expected {shard.bytes:,} bytes of sha256 {shard.sha256[:12]}…; "
                "copy it again, or build the shards again"
            )


def read_samples(out: Path) -> list[SampleEntry]:
    """Read samples.jsonl in record id order; ShardError naming the bad line."""
    path = out / SAMPLES_FILE
    samples: list[SampleEntry] = []
    try:
        with path.open("rb") as stream:
            for line in stream:
                samples.append(SampleEntry.model_validate_json(line))
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ShardError(f"{path}: line {len(samples) + 1}: {_first_line(error)}") from error
    return samples


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error).split("\n", maxsplit=1)[0]
