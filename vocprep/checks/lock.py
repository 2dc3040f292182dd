"""Lock files: a dataset version in a few kilobytes, for a git repository.

A lock holds the recipe, the identities, the shards' digests and the embeddings of a few patches,
the probes, so that another machine's version can be held against it within tolerances.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from vocprep.checks.deviation import TOLERANCES, Deviation, measure, total
from vocprep.checks.report import Difference
from vocprep.errors import DataError
from vocprep.files import write_json
from vocprep.options import Layout, ShardFormat
from vocprep.recipe import differing_fields
from vocprep.shards.containers import CONTAINERS
from vocprep.shards.index import DatasetIndex, FileEntry, RecipeField, ShardEntry
from vocprep.shards.record import Record
from vocprep.shards.samples import Entry, SampleEntry, first_problem
from vocprep.shards.version import Version

PROBES = 16
"""Records that a lock keeps an embedding of, spread evenly over the ids."""


class Probe(Entry):
    """The embedding of one record's first patch."""

    id: str
    embedding: str
    """Base64 of its little-endian numbers [D], of the recipe's dtype."""


class Lock(Entry):
    """A lock file."""

    format: Literal["vocprep-lock"] = "vocprep-lock"
    format_version: Literal[1] = 1
    version: str
    """The version's short id, for people."""
    recipe_id: str
    source_id: str
    content_id: str
    targets_id: str
    recipe: RecipeField
    container: ShardFormat
    samples_per_shard: int
    shards: tuple[ShardEntry, ...]
    files: tuple[FileEntry, ...]
    quarantined: tuple[str, ...]
    """Ids of the pictures that no record could be made of."""
    numerics_class: dict[str, str]
    versions: dict[str, str]
    weights: str
    probes: tuple[Probe, ...]
    lock_sha256: str = ""
    """Of the canonical JSON of all other fields; ``sealed`` puts it in."""

    def sealed(self) -> Lock:
        """Return the lock with its own digest."""
        return self.model_copy(update={"lock_sha256": self.own_sha256()})

    def own_sha256(self) -> str:
        """Compute the digest of all other fields."""
        return self.sha256_without("lock_sha256")

    @property
    def layout(self) -> Layout:
        """How its records are laid out."""
        return Layout(format=self.container, samples_per_shard=self.samples_per_shard)


def make_lock(path: Path) -> Lock:
    """Return the lock of a finished dataset version."""
    version = Version.read(path)
    index = version.index
    probes = [
        Probe(id=sample.id, embedding=_encode(record.embeddings[0]))
        for sample, record in _records(path, index, _spread(version.samples))
    ]
    return Lock(
        version=index.short_id,
        recipe_id=index.recipe_id,
        source_id=index.source_id,
        content_id=index.content_id,
        targets_id=index.targets_id,
        recipe=index.recipe,
        container=index.container,
        samples_per_shard=index.samples_per_shard,
        shards=index.shards,
        files=index.files,
        quarantined=tuple(bad.id for bad in version.quarantined),
        numerics_class=index.numerics_class,
        versions=index.versions,
        weights=index.weights,
        probes=tuple(probes),
    ).sealed()


def write_lock(file: Path, lock: Lock) -> None:
    """Write a lock file."""
    write_json(file, lock.model_dump(mode="json"))


def read_lock(file: Path) -> Lock:
    """Read a lock file; DataError when it is none."""
    try:
        lock = Lock.model_validate(json.loads(file.read_bytes()))
    except OSError as error:
        raise DataError(f"{file}: lock file cannot be read: {error.strerror}") from error
    except (ValueError, ValidationError, DataError) as error:
        raise DataError(
            f"{file}: no lock file that this version reads: {first_problem(error)}; make it again "
            "with vocprep inspect SHARDS --lock FILE"
        ) from error
    if lock.own_sha256() != lock.lock_sha256 or lock.recipe.recipe_id != lock.recipe_id:
        raise DataError(
            f"{file}: does not agree with its own digest {lock.lock_sha256[:12]}…; the file was "
            "altered: take it from version control again, or make it again with vocprep inspect "
            "SHARDS --lock FILE"
        )
    return lock


@dataclass(kw_only=True)
class LockCheck:
    """How a version compares with a lock."""

    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is not the same and need not be."""

    def differ(self, path: str, detail: str) -> None:
        """Add a difference."""
        self.differences.append(Difference(path=path, state="changed", detail=detail))


def compare_with_lock(lock: Lock, version: Version, folder: Path) -> LockCheck:
    """Compare a version, whose shards are in ``folder``, with a lock.

    Within the lock's numerics class the records must be the same to the bit; in another, all but
    the embeddings, and these within the tolerance. With the same versions of everything the shards
    must be the same files.
    """
    check, index = LockCheck(), version.index
    for line in differing_fields(lock.recipe.to_json(), index.recipe.to_json()):
        check.differ("dataset.json", f"recipe: locked and found {line}")
    _compare_ids(lock, version, check)
    if check.differences:
        return check  # what follows from them says nothing new
    if index.content_id != lock.content_id:
        _compare_embeddings(lock, version, folder, check)
    _compare_shards(lock, index, check)
    return check


def _compare_ids(lock: Lock, version: Version, check: LockCheck) -> None:
    index = version.index
    found = {bad.id for bad in version.quarantined}
    for image_id in sorted(found ^ set(lock.quarantined)):
        here, there = ("is", "was not") if image_id in found else ("is not", "was")
        detail = f"{image_id} {here} quarantined, and {there} when the lock was made"
        check.differ("quarantine.jsonl", detail)
    for name in ("source_id", "targets_id"):
        locked, now = getattr(lock, name), getattr(index, name)
        if locked != now:
            check.differ("dataset.json", f"{name}: expected {locked}, found {now}")


def _compare_embeddings(lock: Lock, version: Version, folder: Path, check: LockCheck) -> None:
    """Judge another content_id by the numerics class."""
    index = version.index
    other_class = differing_fields(lock.numerics_class, index.numerics_class)
    if not other_class:
        check.differ(
            "dataset.json", f"content_id: expected {lock.content_id}, found {index.content_id}"
        )
        return
    found = measure_probes(lock, version, folder)
    tolerance = TOLERANCES[lock.recipe.precision]
    said = f"{found} over {found.patches} probes, allowed {tolerance}"
    if found.patches == len(lock.probes) > 0 and found.within(tolerance):
        check.notes.append(
            f"embeddings are of another numerics class ({'; '.join(other_class)}): {said}"
        )
    else:
        check.differ("dataset.json", f"embeddings differ beyond the tolerance: {said}")


def measure_probes(lock: Lock, version: Version, folder: Path) -> Deviation:
    """Measure the embeddings of a lock's probes, as far as the version has their records."""
    wanted = {probe.id: probe for probe in lock.probes}
    chosen = [sample for sample in version.samples if sample.id in wanted]
    dtype = np.dtype(lock.recipe.embedding_dtype).newbyteorder("<")
    return total(
        [
            measure(record.embeddings[:1], _decode(wanted[sample.id], dtype, record)[None])
            for sample, record in _records(folder, version.index, chosen)
        ]
    )


def _compare_shards(lock: Lock, index: DatasetIndex, check: LockCheck) -> None:
    """Compare files, where the same ones are to be expected."""
    layout = (index.container, index.samples_per_shard)
    if layout != (lock.container, lock.samples_per_shard):
        check.notes.append("laid out in other shards than the locked version")
        return
    found: dict[str, FileEntry] = {item.name: item for item in (*index.shards, *index.files)}
    locked: dict[str, FileEntry] = {item.name: item for item in (*lock.shards, *lock.files)}
    differing = [n for n in sorted(found | locked) if found.get(n) != locked.get(n)]
    made_alike = (lock.versions, lock.numerics_class) == (index.versions, index.numerics_class)
    if differing and not made_alike and index.content_id == lock.content_id:
        check.notes.append(
            f"the same records in other bytes ({len(differing)} files): made by "
            f"{'; '.join(differing_fields(lock.versions, index.versions))}"
        )
    elif made_alike:
        for name in differing:
            sha256 = [s[name].sha256 if name in s else "none" for s in (locked, found)]
            check.differ(name, f"expected sha256 {sha256[0]}, found {sha256[1]}")


def _spread(samples: Sequence[SampleEntry]) -> list[SampleEntry]:
    places = np.linspace(0, len(samples) - 1, min(PROBES, len(samples)))
    return [samples[int(place)] for place in places]


def _records(
    folder: Path, index: DatasetIndex, samples: Sequence[SampleEntry]
) -> Iterator[tuple[SampleEntry, Record]]:
    container = CONTAINERS[index.container]
    for sample in samples:
        with container.open_shard(folder / sample.shard) as shard:
            yield sample, shard.read(sample.row)


def _encode(embedding: NDArray[np.floating]) -> str:
    data = np.ascontiguousarray(embedding, dtype=embedding.dtype.newbyteorder("<")).tobytes()
    return base64.b64encode(data).decode()


def _decode(probe: Probe, dtype: np.dtype[np.floating], record: Record) -> NDArray[np.floating]:
    """Return a probe's embedding [D]; DataError when it is none like the record's."""
    try:
        embedding = np.frombuffer(base64.b64decode(probe.embedding, validate=True), dtype=dtype)
    except ValueError as error:
        raise DataError(f"lock file: probe {probe.id}: {error}; make the lock again") from error
    if embedding.shape != record.embeddings.shape[1:]:
        raise DataError(
            f"lock file: probe {probe.id} has {len(embedding)} numbers: expected "
            f"{record.embeddings.shape[1]}; make the lock again"
        )
    return embedding
