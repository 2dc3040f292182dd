"""Check a dataset version by itself: its files, and every record in them.

``vocprep.checks.recompute`` compares it with what its images and label maps give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vocprep.building.finish import FinishedShard, dataset_statistics, describe_shard
from vocprep.building.plan import ShardPlan
from vocprep.checks.report import Difference, Report, changed
from vocprep.errors import DataError, ShardError
from vocprep.features.weights import WEIGHTS_HINT
from vocprep.files.locking import LOCK
from vocprep.files.names import TEMPORARY_PREFIX, is_clutter
from vocprep.files.reading import MAX_JSON_BYTES
from vocprep.files.writing import json_bytes
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.targets import Targets, make_targets
from vocprep.parallel import map_ordered
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.recipe import SplitIds
from vocprep.shards.containers import ProvedShards
from vocprep.shards.identity import Identities
from vocprep.shards.index import DATASET_FILE, DatasetIndex, FileEntry, ShardEntry, read_index
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import FLIP_SUFFIX, PATCH_FIELDS, Record
from vocprep.shards.samples import SAMPLES_FILE, SampleEntry
from vocprep.shards.version import Version, stored_problem
from vocprep.storage.places import Place
from vocprep.storage.reading import read_bytes

_DESCRIBED = (
    *("id", "split", "grid", "image_sha256", "label_sha256"),
    *("targets_sha256", "embeddings_sha256", "record_sha256"),
)
"""Fields of samples.jsonl that follow from the record."""


def verify_version_files(path: Place, workers: int, progress: Progress = NO_PROGRESS) -> Report:
    """Compare every file with its digest, and the parts of the index with each other.

    Finds any changed bit of any file, and any file that is missing or that does not belong there.
    """
    try:
        index = read_index(path)
    except ShardError as error:
        is_there = DATASET_FILE in _names_in(path)
        difference = Difference(
            path=DATASET_FILE, state="changed" if is_there else "missing", detail=str(error)
        )
        return Report.of("files", matching=0, differences=[difference])
    entries: list[FileEntry] = [*index.shards, *index.files]
    found = [*_check_index_file(path, index), *_compare(path, entries, workers, progress)]
    matching = len(entries) + 1 - len(found)
    found += _extra(path, {entry.name for entry in entries})
    # The samples can be compared with the index only when the files that list them are whole.
    if {difference.path for difference in found} <= {shard.name for shard in index.shards}:
        try:
            found += _check_consistency(Version.read(path))
        except ShardError as error:
            found.append(changed(DATASET_FILE, str(error)))
    return Report.of("files", matching=matching, differences=found)


def _compare(
    path: Place, entries: Sequence[FileEntry], workers: int, progress: Progress
) -> Iterator[Difference]:
    """Yield how files differ from their entries in the index."""
    progress.begin("files", sum(entry.bytes for entry in entries), 0)
    try:
        checks = map_ordered(lambda entry: _check_file(path, entry), entries, workers)
        for entry, difference in zip(entries, checks, strict=True):
            progress.advance(entry.bytes)
            if difference is not None:
                yield difference
    finally:
        progress.end()


def _check_index_file(path: Place, index: DatasetIndex) -> list[Difference]:
    """Compare dataset.json with the bytes that its content is written as."""
    if read_bytes(path / DATASET_FILE, MAX_JSON_BYTES) == json_bytes(index.model_dump(mode="json")):
        return []
    return [changed(DATASET_FILE, "expected the bytes that vocprep writes, found others")]


def _check_file(path: Place, entry: FileEntry) -> Difference | None:
    problem = stored_problem(path / entry.name, entry)
    if problem is None:
        return None
    if problem.state == "unreadable":
        detail = f"cannot be read: {problem.found}; {problem.advice}"
    else:
        detail = f"expected {entry.bytes:,} bytes of sha256 {entry.sha256}, found {problem.found}"
    return Difference(path=entry.name, state=problem.state, detail=detail)


def _extra(path: Place, known: set[str]) -> Iterator[Difference]:
    for name in sorted(_names_in(path) - {*known, DATASET_FILE, LOCK, WEIGHTS_HINT}):
        if not (name.startswith(TEMPORARY_PREFIX) or is_clutter(name)):
            detail = "expected nothing of this name, found what dataset.json does not list"
            yield Difference(path=name, state="extra", detail=detail)


def _names_in(path: Place) -> set[str]:
    """Return all names in a folder, clutter too."""
    if isinstance(path, Path):
        return {item.name for item in path.iterdir()}
    return set(path.names())


def _check_consistency(version: Version) -> Iterator[Difference]:
    """Compare identities, splits, shards and samples with each other."""
    index = version.index
    identities = Identities.of(version.samples, version.quarantined)
    for name in ("source_id", "content_id", "targets_id"):
        expected, found = getattr(identities, name), getattr(index, name)
        if expected != found:
            yield changed(
                DATASET_FILE, f"{name}: expected {expected} of the samples, found {found}"
            )
    if len(version.quarantined) != index.quarantined:
        yield changed(DATASET_FILE, f"quarantined: expected {len(version.quarantined)}")
    for split, expected_ids in index.recipe.splits.items():
        ids = {
            sample.id.removesuffix(FLIP_SUFFIX)
            for sample in version.samples
            if sample.split == split
        }
        ids |= {bad.id for bad in version.quarantined if bad.split == split}
        if SplitIds.of(list(ids)) != expected_ids:
            yield changed(SAMPLES_FILE, f"its {split} ids are not those of the recipe")
    for shard in index.shards:
        samples = version.by_shard[shard.name]
        if [sample.row for sample in samples] != list(range(shard.records)):
            yield changed(SAMPLES_FILE, f"does not list the {shard.records} rows of {shard.name}")
        if any(sample.split != shard.split for sample in samples):
            yield changed(SAMPLES_FILE, f"not all records of {shard.name} are of {shard.split}")


def verify_version_content(path: Place, workers: int, progress: Progress = NO_PROGRESS) -> Report:
    """Decode every record: compare it with its digests, targets with label maps, and statistics.

    Needs files that ``verify_version_files`` found whole; ShardError when the index cannot be
    used at all.
    """
    version = Version.read(path)
    index = version.index
    label_space = ShardDataset(path, version).label_space
    opened = ProvedShards(path, index)

    def check(shard: ShardEntry) -> _CheckedShard:
        return _check_shard(opened, shard, version.by_shard[shard.name], label_space)

    shards: list[_CheckedShard] = []
    progress.begin("shards", len(index.shards), 0)
    try:
        for checked in map_ordered(check, index.shards, workers, ahead=1):
            shards.append(checked)
            progress.advance(1)
    finally:
        progress.end()
    found = [difference for checked in shards for difference in checked.differences]
    if not found:
        described = [checked.described for checked in shards if checked.described]
        found += _check_statistics(index, described, label_space)
    matching = sum(checked.matching for checked in shards)
    return Report.of("content", matching=matching, differences=found)


def _check_statistics(
    index: DatasetIndex, shards: Sequence[FinishedShard], label_space: LabelSpace
) -> Iterator[Difference]:
    for name, value in dataset_statistics(shards, label_space.void).items():
        if index.statistics.get(name) != value:
            yield changed(DATASET_FILE, f"statistics.{name}: not those of the records")


@dataclass(frozen=True, kw_only=True)
class _CheckedShard:
    """The result of decoding a shard."""

    differences: list[Difference]
    matching: int = 0
    """Records that are as expected."""
    described: FinishedShard | None = None
    """The shard as its records describe it; None when they cannot be read."""


def _check_shard(
    shards: ProvedShards,
    shard: ShardEntry,
    samples: Sequence[SampleEntry],
    label_space: LabelSpace,
) -> _CheckedShard:
    try:
        records = list(shards.open(shard.name))
        details = [
            [
                f"record {sample.id}: {detail}"
                for detail in _check_record(sample, record, shard.split, label_space)
            ]
            for sample, record in zip(samples, records, strict=False)
        ]
    except DataError as error:
        return _CheckedShard(differences=[changed(shard.name, str(error))])
    found = [changed(shard.name, detail) for each in details for detail in each]
    if len(records) != len(samples):
        detail = f"expected the {len(samples)} records of samples.jsonl, found {len(records)}"
        found.append(changed(shard.name, detail))
    plan = ShardPlan(name=shard.name, split=shard.split, samples=())
    return _CheckedShard(
        differences=found,
        matching=sum(not each for each in details),
        described=describe_shard(plan, records, [], b"").finished if records else None,
    )


def _check_record(
    sample: SampleEntry, record: Record, split: str, label_space: LabelSpace
) -> Iterator[str]:
    """Yield in words how a record differs from what the index lists."""
    described = SampleEntry.of(record, sample.shard, sample.row)
    for name in _DESCRIBED:
        expected, found = getattr(sample, name), getattr(described, name)
        if expected != found:
            yield f"{name}: samples.jsonl has {expected}, the record {found}"
    if record.split != split:
        yield f"split: expected {split}, found {record.split}"
    expected_targets = make_targets(record.label_map, label_space.void)
    for name in _differing_targets(record, expected_targets):
        yield f"{name}: not those of its label map"


def _differing_targets(record: Record, targets: Targets) -> Iterator[str]:
    """Yield the names of the target arrays in which a record differs."""
    for name in PATCH_FIELDS:
        found, expected = getattr(record, name), getattr(targets, name)
        if found.shape != expected.shape or (found != expected).any():
            yield name
