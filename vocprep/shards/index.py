"""dataset.json: the index of a dataset version (docs/format.md)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from vocprep.errors import ShardError, UsageError
from vocprep.files.names import DATA_DIR, UNFINISHED, UNFINISHED_PULL, found_at, kind_by_names
from vocprep.files.reading import parse_json
from vocprep.files.replacing import is_being_replaced
from vocprep.files.writing import sha256_hex, write_json
from vocprep.options import ShardFormat
from vocprep.recipe import Recipe
from vocprep.shards.samples import Count, Entry, SealedEntry, Sha256
from vocprep.shards.spans import ShardSpan, check_spans, check_sums, check_views
from vocprep.storage.places import Place
from vocprep.storage.reading import read_json_at, why_unread
from vocprep.storage.store import StorePath
from vocprep.validation import explain, from_json, printable

DATASET_FILE = "dataset.json"
INDEX_VERSION = 3
"""Format version of dataset.json that is written, without crops."""
CROPS_VERSION = 4
"""That of versions with crops, which earlier readers do not know."""
SHARD_VERSIONS: Mapping[ShardFormat, Mapping[int, int]] = {
    "hdf5": {1: 1, INDEX_VERSION: 1, CROPS_VERSION: 1},
    "webdataset": {1: 1, 2: 2, INDEX_VERSION: 2, CROPS_VERSION: 2},
}
"""By container: the format versions of dataset.json that are read, each with that of its shards."""
SPANS_SINCE = 3
"""First format version of dataset.json that tells which records each shard spans."""
_MOST_WAITING = 1.0
"""Seconds that a reader waits for a build to exchange the version in a folder: about 0.01 s."""
_POLL_SECONDS = 0.01


def _plain_file_name(name: str) -> str:
    """Return a file's name; ValueError where it could be a path or another file's."""
    is_plain = name.isprintable() and not name.startswith(".") and not {*name} & {"/", "\\"}
    if not is_plain or name == DATASET_FILE:
        raise ValueError(f"{name[:60]!r}: expected the plain name of a file beside {DATASET_FILE}")
    return name


FileName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_plain_file_name)]


class FileEntry(Entry):
    """A file of a dataset version, with its size and digest."""

    name: FileName
    bytes: Count
    sha256: Sha256


def describe_file(name: str, data: bytes) -> FileEntry:
    """Return the entry of a file with these bytes."""
    return FileEntry(name=name, bytes=len(data), sha256=sha256_hex(data))


class ShardEntry(FileEntry):
    """A shard as dataset.json lists it."""

    split: str
    records: Annotated[Count, Field(ge=1)]
    patches: Annotated[Count, Field(ge=1)]
    span: ShardSpan | None = None
    """None before ``SPANS_SINCE``, and in lock files."""

    @model_serializer(mode="wrap")
    def _without_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        value: dict[str, Any] = write(self)
        if self.span is None:
            value.pop("span", None)
        return value


def shard_versions(container: ShardFormat) -> tuple[int, ...]:
    """Return the format versions of shards that are read; the last one is written.

    >>> shard_versions("webdataset")
    (1, 2)
    """
    return tuple(sorted({*SHARD_VERSIONS[container].values()}))


def check_version(container: ShardFormat, version: int, known: Iterable[int]) -> None:
    """Raise ValueError where the format version of an index or a lock file is not known."""
    if version not in known:
        raise ValueError(
            f"format version {version}: this version of vocprep reads {_listed(known)} of "
            f"{container} shards"
        )


def _listed(versions: Iterable[int]) -> str:
    """Return numbers in words: ``1, 2 and 3``."""
    *others, last = map(str, versions)
    return f"{', '.join(others)} and {last}" if others else last


def check_names(entries: Iterable[FileEntry]) -> None:
    """Raise ValueError where two files of a version have one name."""
    names = set()
    for entry in entries:
        if entry.name in names:
            raise ValueError(f"{entry.name} is listed twice")
        names.add(entry.name)


class DatasetIndex(SealedEntry):
    """The content of dataset.json."""

    DIGEST_FIELD: ClassVar[str] = "index_sha256"

    format: Literal["vocprep-dataset"] = "vocprep-dataset"
    format_version: int
    recipe_id: Sha256
    source_id: Sha256
    content_id: Sha256
    targets_id: Sha256
    container: ShardFormat
    samples_per_shard: Annotated[Count, Field(ge=1)]
    recipe: Recipe
    numerics_class: dict[str, str]
    weights: str
    """Where the backbone's weights came from, for people."""
    shards: tuple[ShardEntry, ...]
    files: tuple[FileEntry, ...]
    """All other files, this one left out."""
    quarantined: Count
    """Images that no record could be made of: the lines of quarantine.jsonl."""
    statistics: dict[str, Any]
    versions: dict[str, str]
    index_sha256: str = ""
    """Of the canonical JSON of all other fields; set by ``sealed``."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        version = self.format_version
        check_version(self.container, version, SHARD_VERSIONS[self.container])
        check_names((*self.shards, *self.files))
        if (self.recipe.crops is None) == (version == CROPS_VERSION):
            expected = "none before" if self.recipe.crops else "some in"
            raise ValueError(f"recipe.crops: expected {expected} format version {CROPS_VERSION}")
        for row, shard in enumerate(self.shards):
            if (shard.span is None) == (version >= SPANS_SINCE):
                expected = "none in" if shard.span else "one since"
                raise ValueError(
                    f"shards[{row}].span: expected {expected} format version {version}"
                )
        return self

    @property
    def shard_version(self) -> int:
        """Format version of its shards."""
        return SHARD_VERSIONS[self.container][self.format_version]

    @property
    def short_id(self) -> str:
        """Recipe and content in one short name: ``context460-crop224-resnet32-fp32@1f3a9c…``."""
        return f"{self.recipe.short_name}@{self.content_id[:12]}"


def index_version(recipe: Recipe) -> int:
    """Return the format version that dataset.json of a recipe is written in."""
    return INDEX_VERSION if recipe.crops is None else CROPS_VERSION


def write_index(folder: Path, index: DatasetIndex) -> None:
    """Write dataset.json, whose presence means that the version is finished."""
    write_json(folder / DATASET_FILE, index.model_dump(mode="json"))


def has_index(folder: Path) -> bool:
    """Return whether a folder holds a finished dataset version."""
    return (folder / DATASET_FILE).is_file()


def read_index(folder: Place) -> DatasetIndex:
    """Read dataset.json; ShardError when there is none, or it is not one, or it was altered.

    Waits for a moment where a build is exchanging the version for another one.
    """
    path, advice = folder / DATASET_FILE, remake_advice(folder)
    value = _read_json(path)
    version = value.get("format_version") if isinstance(value, dict) else None
    known = sorted({each for versions in SHARD_VERSIONS.values() for each in versions})
    if isinstance(value, dict) and version not in known:
        shown = version if isinstance(version, int | None) else type(version).__name__
        raise ShardError(
            f"{path}: format version {printable(str(shown))}: this version of vocprep reads "
            f"{_listed(known)}; use the version that wrote it, or {advice}"
        )
    try:
        index = from_json(DatasetIndex, value)
        recipe_id = Recipe.from_json(value["recipe"]).recipe_id  # which has every field
    except (ValueError, UsageError, ShardError) as error:
        raise ShardError(f"{path}: not a dataset index: {explain(error)}; {advice}") from error
    if recipe_id != index.recipe_id:
        raise ShardError(
            f"{path}: recipe_id {index.recipe_id[:12]}… is not that of its recipe, which has "
            f"{recipe_id[:12]}…; the file was edited: {advice}"
        )
    if not DatasetIndex.is_intact(value):
        raise ShardError(
            f"{path}: its content does not have its own digest {index.index_sha256[:12]}…; the "
            f"file was altered: {advice}"
        )
    if index.format_version >= SPANS_SINCE:
        try:
            images = {split: ids.count for split, ids in index.recipe.splits.items()}
            check_spans(index.shards, images)
            if index.recipe.crops is not None:
                check_views(index.shards, len(index.recipe.record_views))
            check_sums(index.shards, index.statistics)
        except ValueError as error:
            raise ShardError(f"{path}: contradicts itself: {error}; {advice}") from error
    return index


def _read_json(path: Place) -> Any:
    try:
        return _read_when_exchanged(path) if isinstance(path, Path) else read_json_at(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not isinstance(path, Path):
            raise _no_version_at(path.parent) from error
        if is_being_replaced(path.parent):
            raise ShardError(
                f"{path.parent}: is being replaced; open it again when that has finished, or where "
                "nothing writes there any more, run the same vocprep build-shards or pull again"
            ) from error
        found = found_at(path.parent)
        raise ShardError(
            f"{path.parent}: expected a dataset version, the folder that vocprep build-shards "
            f"wrote, found {found}; {_advice_on(path.parent, found) or 'check the path'}"
        ) from error
    except OSError as error:
        found, advice = why_unread(path, error)
        raise ShardError(f"{path}: cannot be read: {found}; {advice}") from error
    except ValueError as error:
        advice = remake_advice(path.parent)
        raise ShardError(f"{path}: not a dataset index: {explain(error)}; {advice}") from error


def _no_version_at(url: StorePath) -> ShardError:
    """Return the error for a URL below which there is no dataset.json."""
    try:
        found = kind_by_names(url.names())
    except OSError:  # a store that answers some requests only
        found = None
    advice = "" if found is None else _advice_on(url, found)
    if url.name == DATASET_FILE:
        advice = f"check the URL, such as {url.parent}"
    return ShardError(
        f"{url}: expected a dataset version, found {found or f'no {DATASET_FILE} there'}; "
        f"{advice or 'check the URL, or publish a version there with vocprep push'}"
    )


def _advice_on(place: Place, found: str) -> str:
    """Return what makes a version of what was found in its place; empty where nothing does."""
    if found == DATA_DIR:
        return f"build shards of it: vocprep build-shards DATASET --data-dir {place} --out SHARDS"
    verb = {UNFINISHED: "build-shards", UNFINISHED_PULL: "pull"}.get(found)
    return f"run the same vocprep {verb} again to go on with it" if verb else ""


def is_of_index(data: bytes, index: DatasetIndex) -> bool:
    """Return whether these are the bytes that an index was read from: they state its digest."""
    try:
        value = parse_json(data)
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("index_sha256") == index.index_sha256


def remake_advice(folder: Place) -> str:
    """Return how to get a whole version in a place again."""
    if isinstance(folder, Path):
        return "copy it again, or build the shards again with --if-exists overwrite"
    return "publish it again with vocprep push --if-exists overwrite"


def _read_when_exchanged(path: Path) -> Any:
    """Read dataset.json, which is not there for a moment while a build exchanges a version."""
    deadline = time.monotonic() + _MOST_WAITING
    while True:
        try:
            return read_json_at(path)
        except FileNotFoundError:
            # In this order: the exchange ends after dataset.json has its name.
            is_coming = is_being_replaced(path.parent) or path.exists()
            if not is_coming or time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)
