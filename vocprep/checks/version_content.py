"""Check every record of a dataset version by itself: digests, targets, statistics.

``vocprep.checks.recompute`` compares it with what its images and label maps give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vocprep.building.finish import FinishedShard, dataset_statistics, describe_shard
from vocprep.checks.report import Difference, Report, changed
from vocprep.errors import DataError
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.targets import Targets, targets_with_areas
from vocprep.parallel import map_ordered
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.containers import ProvedShards
from vocprep.shards.index import DATASET_FILE, DatasetIndex, ShardEntry, read_index
from vocprep.shards.record import PATCH_FIELDS, Record
from vocprep.shards.samples import SampleEntry
from vocprep.shards.version import Version
from vocprep.storage.places import Place

_DESCRIBED = (
    *("id", "split", "grid", "image_sha256", "label_sha256"),
    *("targets_sha256", "embeddings_sha256", "record_sha256"),
)
"""Fields of samples.jsonl that follow from the record."""


def verify_version_content(path: Place, workers: int, progress: Progress = NO_PROGRESS) -> Report:
    """Decode every record: compare it with its digests, targets with label maps, and statistics.

    Needs files that ``verify_version_files`` found whole; ShardError when the index cannot be
    used at all.
    """
    index = read_index(path)
    version = Version.of(index, path)
    label_space = version.label_space
    opened = ProvedShards(path, index)

    def check(listed: tuple[ShardEntry, list[SampleEntry]]) -> _CheckedShard:
        return _check_shard(opened, *listed, label_space)

    shards: dict[str, _CheckedShard] = {}
    progress.begin("shards", len(index.shards), 0)
    try:
        for checked in map_ordered(check, version.stream_shards(), workers, ahead=1):
            shards[checked.name] = checked
            progress.advance(1)
    finally:
        progress.end()
    in_order = [shards[shard.name] for shard in index.shards]
    found = [difference for checked in in_order for difference in checked.differences]
    if not found:
        described = [checked.described for checked in in_order if checked.described]
        found += _check_statistics(index, described, label_space)
    matching = sum(checked.matching for checked in in_order)
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

    name: str
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
        return _CheckedShard(name=shard.name, differences=[changed(shard.name, str(error))])
    found = [changed(shard.name, detail) for each in details for detail in each]
    if len(records) != len(samples):
        detail = f"expected the {len(samples)} records of samples.jsonl, found {len(records)}"
        found.append(changed(shard.name, detail))
    return _CheckedShard(
        name=shard.name,
        differences=found,
        matching=sum(not each for each in details),
        described=describe_shard(shard, records, [], b"").finished if records else None,
    )


def _check_record(
    sample: SampleEntry, record: Record, split: str, label_space: LabelSpace
) -> Iterator[str]:
    """Yield in words how a record differs from what the index lists."""
    label_map = record.decode_label_map()
    expected_targets, areas = targets_with_areas(label_map, label_space.void)
    described = SampleEntry.of(record.described(label_map, areas), sample.shard, sample.row)
    for name in _DESCRIBED:
        expected, found = getattr(sample, name), getattr(described, name)
        if expected != found:
            yield f"{name}: samples.jsonl has {expected}, the record {found}"
    if record.split != split:
        yield f"split: expected {split}, found {record.split}"
    for name in _differing_targets(record, expected_targets):
        yield f"{name}: not those of its label map"


def _differing_targets(record: Record, targets: Targets) -> Iterator[str]:
    """Yield the names of the target arrays in which a record differs."""
    for name in PATCH_FIELDS:
        found, expected = getattr(record, name), getattr(targets, name)
        if found.shape != expected.shape or (found != expected).any():
            yield name
