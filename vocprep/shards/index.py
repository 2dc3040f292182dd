"""dataset.json: the index of a dataset version (docs/format.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from vocprep.errors import ShardError, UsageError
from vocprep.files import read_json, sha256_hex, write_json
from vocprep.folders import UNFINISHED, found_at
from vocprep.options import ShardFormat
from vocprep.recipe import FORMAT_VERSION, Recipe
from vocprep.shards.samples import (
    QUARANTINE_FILE,
    Entry,
    QuarantinedSample,
    SealedEntry,
    read_lines,
)
from vocprep.validation import explain, from_json

DATASET_FILE = "dataset.json"
_ADVICE = "copy it again, or build the shards again with --if-exists overwrite"


class FileEntry(Entry):
    """A file of a dataset version, with its size and digest."""

    name: str
    bytes: int
    sha256: str


def describe_file(name: str, data: bytes) -> FileEntry:
    """Return the entry of a file with these bytes."""
    return FileEntry(name=name, bytes=len(data), sha256=sha256_hex(data))


class ShardEntry(FileEntry):
    """A shard as dataset.json lists it."""

    split: str
    records: int
    patches: int


class DatasetIndex(SealedEntry):
    """The content of dataset.json."""

    DIGEST_FIELD: ClassVar[str] = "index_sha256"

    format: Literal["vocprep-dataset"] = "vocprep-dataset"
    format_version: int = FORMAT_VERSION
    recipe_id: str
    source_id: str
    content_id: str
    targets_id: str
    container: ShardFormat
    samples_per_shard: int
    recipe: Recipe
    numerics_class: dict[str, str]
    weights: str
    """Where the backbone's weights came from, for people."""
    shards: tuple[ShardEntry, ...]
    files: tuple[FileEntry, ...]
    """All other files, this one left out."""
    quarantined: int
    """Images that no record could be made of: the lines of quarantine.jsonl."""
    statistics: dict[str, Any]
    versions: dict[str, str]
    index_sha256: str = ""
    """Of the canonical JSON of all other fields; set by ``sealed``."""

    @property
    def short_id(self) -> str:
        """Recipe and content in one short name: ``context460-crop224-resnet32-fp32@1f3a9c…``."""
        return f"{self.recipe.short_name}@{self.content_id[:12]}"


def write_index(folder: Path, index: DatasetIndex) -> None:
    """Write dataset.json, whose presence means that the version is finished."""
    write_json(folder / DATASET_FILE, index.model_dump(mode="json"))


def has_index(folder: Path) -> bool:
    """Return whether a folder holds a finished dataset version."""
    return (folder / DATASET_FILE).is_file()


def read_index(folder: Path) -> DatasetIndex:
    """Read dataset.json; ShardError when there is none, or it is not one, or it was altered."""
    path = folder / DATASET_FILE
    value = _read_json(path)
    version = value.get("format_version") if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
        raise ShardError(
            f"{path}: format version {version}: this version of vocprep reads {FORMAT_VERSION}; "
            f"use the version that wrote it, or {_ADVICE}"
        )
    try:
        index = from_json(DatasetIndex, value)
        recipe_id = Recipe.from_json(value["recipe"]).recipe_id  # which has every field
    except (ValueError, UsageError, ShardError) as error:
        raise ShardError(f"{path}: not a dataset index: {explain(error)}; {_ADVICE}") from error
    if recipe_id != index.recipe_id:
        raise ShardError(
            f"{path}: recipe_id {index.recipe_id[:12]}… is not that of its recipe, which has "
            f"{recipe_id[:12]}…; the file was edited: {_ADVICE}"
        )
    if not DatasetIndex.is_intact(value):
        raise ShardError(
            f"{path}: its content does not have its own digest {index.index_sha256[:12]}…; the "
            f"file was altered: {_ADVICE}"
        )
    return index


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        found = found_at(path.parent)
        advice = "run the same vocprep build-shards again to go on with it"
        raise ShardError(
            f"{path.parent}: expected a dataset version, the folder that vocprep build-shards "
            f"wrote, found {found}; {advice if found == UNFINISHED else 'check the path'}"
        ) from error
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ShardError(f"{path}: not a dataset index: {explain(error)}; {_ADVICE}") from error


def read_quarantine(folder: Path, index: DatasetIndex) -> list[QuarantinedSample]:
    """Read quarantine.jsonl, if the index counts any; ShardError naming the first bad line."""
    return read_lines(folder / QUARANTINE_FILE, QuarantinedSample) if index.quarantined else []


def check_files(folder: Path, index: DatasetIndex) -> None:
    """Check that every shard exists and has its size; ShardError naming the first that has not."""
    for shard in index.shards:
        path = folder / shard.name
        found = path.stat().st_size if path.is_file() else None
        if found != shard.bytes:
            state = "is missing" if found is None else f"has {found:,} bytes"
            raise ShardError(
                f"{path}: {state}: expected {shard.bytes:,} bytes of sha256 {shard.sha256[:12]}…; "
                "copy it again, or build the shards again"
            )
