"""Verify a dataset version by itself: its files, and every record in them.

``vocprep.shards.recompute`` makes it again from the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vocprep.building.finish import FinishedShard, dataset_statistics, describe_shard
from vocprep.building.plan import ShardPlan
from vocprep.building.publish import LOCK
from vocprep.checks.report import Difference, Report
from vocprep.errors import DataError, ShardError
from vocprep.files import TEMPORARY_PREFIX, json_bytes
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.targets import Targets, make_targets
from vocprep.parallel import map_ordered
from vocprep.recipe import SplitIds
from vocprep.shards.containers import CONTAINERS
from vocprep.shards.identity import Identities
from vocprep.shards.index import DATASET_FILE, DatasetIndex, FileEntry, ShardEntry, read_index
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import FLIP_SUFFIX, PATCH_FIELDS, Record
from vocprep.shards.samples import SAMPLES_FILE, SampleEntry
from vocprep.shards.version import Version, problem_of

DESCRIBED = (
    *("id", "split", "grid", "image_sha256", "label_sha256"),
    *("targets_sha256", "embeddings_sha256", "record_sha256"),
)
"""What samples.jsonl says of a record."""


def verify_files(path: Path, workers: int, on_file: Callable[[], None] = lambda: None) -> Report:
    """Compare every file with its digest, and the index's parts with each other.

    ``on_file`` is called after each. Finds any changed bit of any file, and any that is missing
    or that does not belong there.
    """
    try:
        index = read_index(path)
    except ShardError as error:
        state: Literal["changed", "missing"]
        state = "changed" if (path / DATASET_FILE).exists() else "missing"
        return _report("files", 0, [Difference(path=DATASET_FILE, state=state, detail=str(error))])
    found = _check_index_file(path, index)
    entries: list[FileEntry] = [*index.shards, *index.files]
    right = 0 if found else 1
    checks = map_ordered(lambda entry: _check_file(path, entry), entries, workers)
    for difference in checks:
        on_file()
        if difference is None:
            right += 1
        else:
            found.append(difference)
    found += _extra(path, {entry.name for entry in entries})
    # What the index says of its samples can be judged when the files that say it are whole.
    if {difference.path for difference in found} <= {shard.name for shard in index.shards}:
        found += _check_consistency(Version.read(path))
    return _report("files", right, found)


def _report(level: str, right: int, found: Sequence[Difference]) -> Report:
    return Report(
        level=level,
        right=right,
        differences=tuple(sorted(found, key=lambda item: (item.path, item.detail))),
    )


def _changed(path: str, detail: str) -> Difference:
    return Difference(path=path, state="changed", detail=detail)


def _check_index_file(path: Path, index: DatasetIndex) -> list[Difference]:
    """See that dataset.json has the very bytes that its content is written with."""
    if (path / DATASET_FILE).read_bytes() == json_bytes(index.model_dump(mode="json")):
        return []
    return [_changed(DATASET_FILE, "expected the bytes that vocprep writes, found others")]


def _check_file(path: Path, entry: FileEntry) -> Difference | None:
    problem = problem_of(path / entry.name, entry)
    if problem is None:
        return None
    detail = f"expected {entry.bytes:,} bytes of sha256 {entry.sha256}, found {problem}"
    is_there = (path / entry.name).exists()
    return Difference(path=entry.name, state="changed" if is_there else "missing", detail=detail)


def _extra(path: Path, known: set[str]) -> Iterator[Difference]:
    for item in sorted(path.iterdir()):
        is_ours = item.name in (*known, DATASET_FILE, LOCK)
        if not is_ours and not item.name.startswith(TEMPORARY_PREFIX):
            detail = "expected nothing of this name, found what no build put there"
            yield Difference(path=item.name, state="extra", detail=detail)


def _check_consistency(version: Version) -> Iterator[Difference]:
    """Hold identities, splits, shards and samples against each other."""
    index = version.index
    identities = Identities.of(version.samples, version.quarantined)
    for name in ("source_id", "content_id", "targets_id"):
        expected, found = getattr(identities, name), getattr(index, name)
        if expected != found:
            yield _changed(
                DATASET_FILE, f"{name}: expected {expected} of the samples, found {found}"
            )
    if len(version.quarantined) != index.quarantined:
        yield _changed(DATASET_FILE, f"quarantined: expected {len(version.quarantined)}")
    for split, expected_ids in index.recipe.splits.items():
        ids = {
            sample.id.removesuffix(FLIP_SUFFIX)
            for sample in version.samples
            if sample.split == split
        }
        ids |= {bad.id for bad in version.quarantined if bad.split == split}
        if SplitIds.of(list(ids)) != expected_ids:
            yield _changed(SAMPLES_FILE, f"its {split} ids are not those of the recipe")
    for shard in index.shards:
        rows = [sample.row for sample in version.by_shard[shard.name]]
        if rows != list(range(shard.records)):
            yield _changed(SAMPLES_FILE, f"does not list the {shard.records} rows of {shard.name}")


def verify_content(path: Path, workers: int, on_shard: Callable[[], None] = lambda: None) -> Report:
    """Decode every record: digests, targets against label maps, statistics against both.

    ``on_shard`` is called after each shard. Needs files that ``verify_files`` found right;
    ShardError when the index cannot be used at all.
    """
    version = Version.read(path)
    index = version.index
    schema = ShardDataset(path, version).schema

    def check(shard: ShardEntry) -> CheckedShard:
        return _check_shard(path, index, shard, version.by_shard[shard.name], schema)

    found: list[Difference] = []
    described: list[FinishedShard] = []
    right = 0
    for checked in map_ordered(check, index.shards, workers, ahead=1):
        on_shard()
        found += checked.differences
        right += checked.right
        if checked.finished is not None:
            described.append(checked.finished)
    if not found:
        counted = dataset_statistics(described, schema.void)
        for name, value in counted.items():
            if index.statistics.get(name) != value:
                found.append(_changed(DATASET_FILE, f"statistics.{name}: not those of the records"))
    return _report("content", right, found)


@dataclass(frozen=True, kw_only=True)
class CheckedShard:
    """What came of looking into a shard."""

    differences: list[Difference]
    right: int = 0
    """Records that are as they should be."""
    finished: FinishedShard | None = None
    """The shard as its records describe it; None when they cannot be read."""


def _check_shard(
    path: Path,
    index: DatasetIndex,
    shard: ShardEntry,
    samples: Sequence[SampleEntry],
    schema: LabelSpace,
) -> CheckedShard:
    try:
        with CONTAINERS[index.container].open_shard(path / shard.name) as reader:
            records = list(reader)
        details = [
            [
                f"record {sample.id}: {detail}"
                for detail in _check_record(sample, record, shard.split, schema)
            ]
            for sample, record in zip(samples, records, strict=False)
        ]
    except DataError as error:
        return CheckedShard(differences=[_changed(shard.name, str(error))])
    found = [_changed(shard.name, detail) for each in details for detail in each]
    if len(records) != len(samples):
        detail = f"expected the {len(samples)} records of samples.jsonl, found {len(records)}"
        found.append(_changed(shard.name, detail))
    plan = ShardPlan(name=shard.name, split=shard.split, samples=())
    return CheckedShard(
        differences=found,
        right=sum(not each for each in details),
        finished=describe_shard(plan, records, [], b""),
    )


def _check_record(
    sample: SampleEntry, record: Record, split: str, schema: LabelSpace
) -> Iterator[str]:
    """Yield what is wrong with a record, in words."""
    described = SampleEntry.of(record, sample.shard, sample.row)
    for name in DESCRIBED:
        expected, found = getattr(sample, name), getattr(described, name)
        if expected != found:
            yield f"{name}: samples.jsonl has {expected}, the record {found}"
    if record.split != split:
        yield f"split: expected {split}, found {record.split}"
    expected_targets = make_targets(record.label_map, schema.void)
    for name in differing_targets(record, expected_targets):
        yield f"{name}: not those of its label map"


def differing_targets(record: Record, targets: Targets) -> Iterator[str]:
    """Yield the names of the targets that a record has otherwise."""
    for name in PATCH_FIELDS:
        found, expected = getattr(record, name), getattr(targets, name)
        if found.shape != expected.shape or (found != expected).any():
            yield name
