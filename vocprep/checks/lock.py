"""Lock files: a dataset version pinned in a few kilobytes, for a git repository.

A lock file holds the recipe, the identities, the digests of the shards, and the embeddings of a few
patches, the probes, so that a version from another machine can be compared within tolerances.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from vocprep.checks.deviation import (
    EMBEDDING_TOLERANCES,
    Deviation,
    measure_deviation,
    total_deviation,
)
from vocprep.checks.report import Difference, Report, changed
from vocprep.errors import DataError, ShardError, UsageError
from vocprep.files.reading import read_json
from vocprep.files.writing import write_json
from vocprep.options import Layout, ShardFormat
from vocprep.recipe import Recipe, differing_fields, joined_differences
from vocprep.shards.index import (
    DATASET_FILE,
    DatasetIndex,
    FileEntry,
    ShardEntry,
    check_names,
    check_version,
    shard_versions,
)
from vocprep.shards.record import Record
from vocprep.shards.samples import (
    QUARANTINE_FILE,
    Count,
    Entry,
    RecordId,
    SampleEntry,
    SealedEntry,
    Sha256,
)
from vocprep.shards.version import Version
from vocprep.storage.places import Place, local_path, parse_place
from vocprep.validation import explain, from_json

PROBES = 16
_MAKE_AGAIN = "make it again with vocprep inspect SHARDS --lock FILE"
"""Records that a lock file holds an embedding of, spread evenly over the ids."""


class Probe(Entry):
    """The embedding of one record's first patch."""

    id: RecordId
    embedding: str
    """Base64 of its little-endian numbers [D], of the recipe's dtype."""


class LockFile(SealedEntry):
    """The content of a lock file."""

    DIGEST_FIELD: ClassVar[str] = "lock_sha256"

    format: Literal["vocprep-lock"] = "vocprep-lock"
    format_version: int
    """That of the shards, which has the same number as that of dataset.json before version 3."""
    version: str
    """The version's short id, for people."""
    recipe_id: Sha256
    source_id: Sha256
    content_id: Sha256
    targets_id: Sha256
    recipe: Recipe
    container: ShardFormat
    samples_per_shard: Annotated[Count, Field(ge=1)]
    shards: tuple[ShardEntry, ...]
    files: tuple[FileEntry, ...]
    quarantined: tuple[str, ...]
    """Ids of the images that no record could be made of."""
    numerics_class: dict[str, str]
    versions: dict[str, str]
    weights: str
    probes: tuple[Probe, ...]
    lock_sha256: str = ""
    """Of the canonical JSON of all other fields; set by ``sealed``."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        check_version(self.container, self.format_version, shard_versions(self.container))
        check_names((*self.shards, *self.files))
        return self

    def __repr__(self) -> str:
        return f"LockFile({self.version}, {len(self.shards):,} {self.container} shards)"

    @property
    def layout(self) -> Layout:
        """The layout of the version's shards."""
        return Layout(format=self.container, samples_per_shard=self.samples_per_shard)


def lock(path: str | Place, file: str | Path | None = None) -> LockFile:
    """Return what pins a finished dataset version, and write it to ``file`` where one is given.

    Raises ShardError when the folder is no version or was altered.
    """
    path = parse_place(path)
    written = None if file is None else local_path(file)
    version = Version.read(path)
    index = version.index
    content = LockFile(
        format_version=index.shard_version,
        version=index.short_id,
        recipe_id=index.recipe_id,
        source_id=index.source_id,
        content_id=index.content_id,
        targets_id=index.targets_id,
        recipe=index.recipe,
        container=index.container,
        samples_per_shard=index.samples_per_shard,
        shards=tuple(shard.model_copy(update={"span": None}) for shard in index.shards),
        files=index.files,
        quarantined=tuple(bad.id for bad in version.quarantined),
        numerics_class=index.numerics_class,
        versions=index.versions,
        weights=index.weights,
        probes=tuple(
            Probe(id=sample.id, embedding=_encode(record.embeddings[0]))
            for sample, record in version.records(path, _spread(version))
        ),
    ).sealed()
    if written is not None:
        write_json(written, content.model_dump(mode="json"))
    return content


def read_lock(file: str | Path) -> LockFile:
    """Read a lock file; DataError when it is none or was altered."""
    file = local_path(file)
    try:
        value = read_json(file)
        content = from_json(LockFile, value)
        recipe = Recipe.from_json(value["recipe"])  # which has every field
    except OSError as error:
        raise DataError(f"{file}: lock file cannot be read: {explain(error)}") from error
    except (ValueError, UsageError, ShardError) as error:
        raise DataError(
            f"{file}: not a lock file that this version of vocprep reads: {explain(error)}; "
            f"copy it again, or {_MAKE_AGAIN}"
        ) from error
    if not LockFile.is_intact(value) or recipe.recipe_id != content.recipe_id:
        raise DataError(
            f"{file}: does not agree with its own digest {content.lock_sha256[:12]}…; the file was "
            f"altered: take it from version control again, or {_MAKE_AGAIN}"
        )
    return content


@dataclass(kw_only=True)
class LockComparison:
    """How a version compares with a lock file."""

    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What differs and is allowed to."""


def verify_lock(locked: LockFile, version: Version, folder: Place) -> tuple[Report, list[str]]:
    """Compare a version with a lock file; return the report of its files, and notes."""
    found = compare_with_lock(locked, version, folder)
    matching = 0 if found.differences else len(locked.shards) + len(locked.files)
    return Report.of("lock", matching, found.differences), found.notes


def compare_with_lock(locked: LockFile, version: Version, folder: Place) -> LockComparison:
    """Compare a version, whose shards are in ``folder``, with a lock file.

    In the lock file's numerics class the records must have the same bits; in another, everything
    but the embeddings, and these must be within the tolerance. With the same versions of
    everything the shards must be the same files.
    """
    recipe_lines = differing_fields(locked.recipe.to_json(), version.index.recipe.to_json())
    found = LockComparison(
        differences=[
            *(changed(DATASET_FILE, f"recipe: locked and found {line}") for line in recipe_lines),
            *_differing_samples(locked, version),
        ]
    )
    if found.differences:
        return found  # other embeddings and shards follow from these
    if version.index.content_id != locked.content_id:
        _compare_embeddings(locked, version, folder, found)
    _compare_files(locked, version.index, found)
    return found


def _differing_samples(locked: LockFile, version: Version) -> list[Difference]:
    """Return differences of the quarantined samples and of the identities but content_id."""
    differences = []
    quarantined = {bad.id for bad in version.quarantined}
    for image_id in sorted(quarantined ^ set(locked.quarantined)):
        here, there = ("is", "was not") if image_id in quarantined else ("is not", "was")
        detail = f"{image_id} {here} quarantined, and {there} when the lock file was made"
        differences.append(changed(QUARANTINE_FILE, detail))
    for name in ("source_id", "targets_id"):
        expected, found = getattr(locked, name), getattr(version.index, name)
        if expected != found:
            detail = f"{name}: expected {expected}, found {found}"
            differences.append(changed(DATASET_FILE, detail))
    return differences


def _compare_embeddings(
    locked: LockFile, version: Version, folder: Place, found: LockComparison
) -> None:
    """Judge another content_id by the numerics class."""
    index = version.index
    class_differences = differing_fields(locked.numerics_class, index.numerics_class)
    if not class_differences:
        detail = f"content_id: expected {locked.content_id}, found {index.content_id}"
        found.differences.append(changed(DATASET_FILE, detail))
        return
    deviation = measure_probes(locked, version, folder)
    tolerance = EMBEDDING_TOLERANCES[locked.recipe.precision]
    measured = f"{deviation} over {deviation.patches} probes, allowed {tolerance}"
    if deviation.patches == len(locked.probes) > 0 and deviation.within(tolerance):
        found.notes.append(
            f"embeddings are of another numerics class ({'; '.join(class_differences)}): {measured}"
        )
    else:
        detail = f"embeddings differ beyond the tolerance: {measured}"
        found.differences.append(changed(DATASET_FILE, detail))


def measure_probes(locked: LockFile, version: Version, folder: Place) -> Deviation:
    """Measure the embeddings of those probes whose records the version has."""
    probes = {probe.id: probe for probe in locked.probes}
    chosen = [sample for sample in version.stream_samples() if sample.id in probes]
    dtype = np.dtype(locked.recipe.embedding_dtype).newbyteorder("<")
    return total_deviation(
        [
            measure_deviation(
                record.embeddings[:1], _decode(probes[sample.id], dtype, record)[None]
            )
            for sample, record in version.records(folder, chosen)
        ]
    )


def _compare_files(locked: LockFile, index: DatasetIndex, found: LockComparison) -> None:
    """Compare the digests of the files, where the same ones are to be expected."""
    layout = (index.container, index.samples_per_shard)
    if layout != (locked.container, locked.samples_per_shard):
        found.notes.append("the shards have another layout than those of the locked version")
        return
    if index.shard_version != locked.format_version:
        found.notes.append(
            f"the shards are of format version {index.shard_version}, those of the locked version "
            f"of {locked.format_version}: their bytes cannot be compared, their records were"
        )
        return
    here: dict[str, FileEntry] = {item.name: item for item in (*index.shards, *index.files)}
    there: dict[str, FileEntry] = {item.name: item for item in (*locked.shards, *locked.files)}
    differing = [
        name for name in sorted(here | there) if _bytes_of(here, name) != _bytes_of(there, name)
    ]
    same_makers = (locked.versions, locked.numerics_class) == (
        index.versions,
        index.numerics_class,
    )
    if same_makers:
        for name in differing:
            sha256 = [side[name].sha256 if name in side else "none" for side in (there, here)]
            detail = f"expected sha256 {sha256[0]}, found {sha256[1]}"
            found.differences.append(changed(name, detail))
    elif differing and index.content_id == locked.content_id:
        makers = [
            *differing_fields(locked.versions, index.versions),
            *differing_fields(locked.numerics_class, index.numerics_class),
        ]
        found.notes.append(
            f"the same records in other bytes (files: {', '.join(differing)}), since others made "
            f"them: {joined_differences(makers)}"
        )


def _bytes_of(entries: Mapping[str, FileEntry], name: str) -> tuple[int, str] | None:
    """Return size and digest of a file; None when it is not listed."""
    entry = entries.get(name)
    return None if entry is None else (entry.bytes, entry.sha256)


def _spread(version: Version) -> list[SampleEntry]:
    records = sum(shard.records for shard in version.index.shards)
    places = {int(place) for place in np.linspace(0, records - 1, min(PROBES, records))}
    samples = enumerate(version.stream_samples())
    return [sample for place, sample in samples if place in places]


def _encode(embedding: NDArray[np.floating]) -> str:
    data = np.ascontiguousarray(embedding, dtype=embedding.dtype.newbyteorder("<")).tobytes()
    return base64.b64encode(data).decode()


def _decode(probe: Probe, dtype: np.dtype[np.floating], record: Record) -> NDArray[np.floating]:
    """Return a probe's embedding [D]; DataError when it is none like the record's."""
    try:
        embedding = np.frombuffer(base64.b64decode(probe.embedding, validate=True), dtype=dtype)
    except ValueError as error:
        raise DataError(f"lock file: probe {probe.id}: {error}; {_MAKE_AGAIN}") from error
    if embedding.shape != record.embeddings.shape[1:]:
        raise DataError(
            f"lock file: probe {probe.id} has {len(embedding)} numbers: expected "
            f"{record.embeddings.shape[1]}; {_MAKE_AGAIN}"
        )
    return embedding
