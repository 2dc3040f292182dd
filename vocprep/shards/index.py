"""dataset.json: the index of a dataset version (docs/format.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, InstanceOf, PlainSerializer

from vocprep.errors import ShardError
from vocprep.files import sha256_hex, write_json
from vocprep.options import ShardFormat
from vocprep.recipe import FORMAT_VERSION, Recipe
from vocprep.shards.samples import (
    QUARANTINE_FILE,
    Entry,
    QuarantinedSample,
    first_problem,
    read_lines,
)

DATASET_FILE = "dataset.json"
_MEND = "copy it again, or build the shards again with --if-exists overwrite"


def _recipe_from(value: object) -> object:
    return Recipe.from_json(value) if isinstance(value, dict) else value


RecipeField = Annotated[
    InstanceOf[Recipe], BeforeValidator(_recipe_from), PlainSerializer(Recipe.to_json)
]


class FileEntry(Entry):
    """A file of a dataset version: what proves it."""

    name: str
    bytes: int
    sha256: str


def describe_file(name: str, data: bytes) -> FileEntry:
    """Return the entry of a file with these bytes."""
    return FileEntry(name=name, bytes=len(data), sha256=sha256_hex(data))


class ShardEntry(FileEntry):
    """One shard of dataset.json."""

    split: str
    records: int
    patches: int


class DatasetIndex(Entry):
    """dataset.json: what a dataset version is, and what proves it."""

    format: Literal["vocprep-dataset"] = "vocprep-dataset"
    format_version: int = FORMAT_VERSION
    recipe_id: str
    source_id: str
    content_id: str
    targets_id: str
    container: ShardFormat
    samples_per_shard: int
    recipe: RecipeField
    numerics_class: dict[str, str]
    weights: str
    """Where the backbone's weights came from, for people."""
    shards: tuple[ShardEntry, ...]
    files: tuple[FileEntry, ...]
    """All other files, this one left out."""
    quarantined: int
    """Samples that no record could be made of: the lines of quarantine.jsonl."""
    statistics: dict[str, Any]
    versions: dict[str, str]
    index_sha256: str = ""
    """Of the canonical JSON of all other fields; ``sealed`` puts it in."""

    @property
    def short_id(self) -> str:
        """What people paste into a paper: ``context460-crop224-resnet32-fp32@1f3a9c…``."""
        return f"{self.recipe.short_name}@{self.content_id[:12]}"

    def sealed(self) -> DatasetIndex:
        """Return the index with its own digest."""
        return self.model_copy(update={"index_sha256": self.own_sha256()})

    def own_sha256(self) -> str:
        """Compute the digest of all other fields."""
        return self.sha256_without("index_sha256")


def write_index(out: Path, index: DatasetIndex) -> None:
    """Write dataset.json, whose presence says that all is there."""
    write_json(out / DATASET_FILE, index.model_dump(mode="json"))


def has_index(out: Path) -> bool:
    """Say whether a folder holds a finished dataset version."""
    return (out / DATASET_FILE).is_file()


def read_index(out: Path) -> DatasetIndex:
    """Read dataset.json; ShardError when there is none, it is not one, or it was altered."""
    path = out / DATASET_FILE
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ShardError(
            f"{path}: no finished dataset there ({error.strerror}); run vocprep build-shards, "
            "which goes on where an earlier build was interrupted"
        ) from error
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ShardError(f"{path}: not a dataset index: {first_problem(error)}; {_MEND}") from error
    version = value.get("format_version") if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
        raise ShardError(
            f"{path}: format version {version}: this version of vocprep reads {FORMAT_VERSION}; "
            f"use the version that wrote it, or {_MEND}"
        )
    try:
        index = DatasetIndex.model_validate(value)
        recipe_id = index.recipe.recipe_id
    except (ValueError, ShardError) as error:
        raise ShardError(f"{path}: not a dataset index: {first_problem(error)}; {_MEND}") from error
    if recipe_id != index.recipe_id:
        raise ShardError(
            f"{path}: recipe_id {index.recipe_id[:12]}… does not belong to the recipe beside it, "
            f"which has {recipe_id[:12]}…; the file was edited: {_MEND}"
        )
    if index.own_sha256() != index.index_sha256:
        raise ShardError(
            f"{path}: does not agree with its own digest {index.index_sha256[:12]}…; the file was "
            f"altered: {_MEND}"
        )
    return index


def read_quarantine(out: Path, index: DatasetIndex) -> list[QuarantinedSample]:
    """Read quarantine.jsonl, where there is one; ShardError naming the bad line."""
    return read_lines(out / QUARANTINE_FILE, QuarantinedSample) if index.quarantined else []


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
