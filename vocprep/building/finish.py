"""Finished shards: their bytes, their part of the index, the lines of their samples."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from pydantic import Field

from vocprep.errors import ShardError
from vocprep.features.image_errors import turned_note
from vocprep.files.ids import is_plain, record_order
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.statistics import label_notes
from vocprep.labels.targets import count_states
from vocprep.options import Layout
from vocprep.shards.containers import CONTAINERS
from vocprep.shards.index import DatasetIndex, ShardEntry, describe_file
from vocprep.shards.record import Record
from vocprep.shards.samples import (
    Count,
    Entry,
    Line,
    QuarantinedSample,
    RecordId,
    Sample,
    SampleEntry,
    Sha256,
    jsonl_bytes,
    sample_order,
)
from vocprep.shards.spans import ShardSpan, ids_sha256
from vocprep.validation import explain

COUNTED = (
    *("records", "patches", "pixels", "void_pixels", "other_pixels"),
    *("patches_without_label", "patches_with_more_labels"),
)
"""What dataset.json counts per split; ``other_pixels`` are those outside their patch's top 4."""


class NamedShard(Protocol):
    """A shard that is planned, or that an index lists."""

    @property
    def name(self) -> str:
        """Of its file."""
        ...

    @property
    def split(self) -> str:
        """Of its records."""
        ...


class FinishedShard(Entry):
    """What a build keeps in memory of a finished shard, whose samples are in its ShardSamples."""

    split: str
    entry: ShardEntry | None
    """Its part of the index; None when all of its samples are quarantined: it has no file then."""
    images: Count
    """Its images, quarantined ones included."""
    quarantined: Count
    """Those of them that no record could be made of."""
    ids_sha256: Sha256
    """``vocprep.shards.spans.ids_sha256`` of the ids of its images, sorted."""
    first_id: RecordId
    """The first of the ids of its records and quarantined samples."""
    last_id: RecordId
    statistics: dict[str, int] = Field(default_factory=dict)
    label_pixels: dict[int, int] = Field(default_factory=dict)

    @classmethod
    def of(
        cls, split: str, entry: ShardEntry | None, samples: Sequence[Sample], **counted: Any
    ) -> Self:
        """Describe a shard with these records and quarantined samples.

        ``counted`` are its ``statistics`` and ``label_pixels``.
        """
        image_ids = sorted(sample.id for sample in samples if is_plain(sample.id))
        return cls(
            split=split,
            entry=entry,
            images=len(image_ids),
            quarantined=sum(isinstance(sample, QuarantinedSample) for sample in samples),
            ids_sha256=ids_sha256(image_ids),
            first_id=min((sample.id for sample in samples), key=record_order),
            last_id=max((sample.id for sample in samples), key=record_order),
            **counted,
        )

    def named(self, name: str) -> FinishedShard:
        """Return the same shard under another name."""
        entry = self.entry and self.entry.model_copy(update={"name": name})
        return self.model_copy(update={"entry": entry})


@dataclass(frozen=True, kw_only=True)
class ShardSamples:
    """The lines of samples.jsonl and of quarantine.jsonl that describe one shard."""

    records: bytes
    """Lines of samples.jsonl, in id order."""
    quarantined: bytes
    """Lines of quarantine.jsonl, in id order."""

    @classmethod
    def of(cls, records: Iterable[SampleEntry], quarantined: Iterable[QuarantinedSample]) -> Self:
        """Return the lines of records and quarantined samples that come in any order."""
        ordered: list[SampleEntry] = sorted(records, key=sample_order)
        bad: list[QuarantinedSample] = sorted(quarantined, key=sample_order)
        return cls(records=jsonl_bytes(ordered), quarantined=jsonl_bytes(bad))

    def lines(self) -> Iterator[tuple[Sample, bytes]]:
        """Yield records and quarantined samples in the order of their ids, each with its line."""
        records = _parsed(self.records, SampleEntry)
        quarantined = _parsed(self.quarantined, QuarantinedSample)
        return heapq.merge(records, quarantined, key=line_order)

    def read_quarantined(self) -> list[QuarantinedSample]:
        """Return the quarantined samples."""
        return [sample for sample, _ in _parsed(self.quarantined, QuarantinedSample)]

    def named(self, name: str) -> ShardSamples:
        """Return the lines of the same shard under another name."""
        renamed = (
            sample.model_copy(update={"shard": name})
            for sample, _ in _parsed(self.records, SampleEntry)
        )
        return replace(self, records=jsonl_bytes(renamed))


def _parsed(lines: bytes, kind: type[Line]) -> Iterator[tuple[Line, bytes]]:
    for line in lines.splitlines(keepends=True):
        try:
            yield kind.model_validate_json(line, strict=True), line
        except ValueError as error:
            raise ShardError(
                f"description of a finished shard: {explain(error)}; run the same command again "
                "with --if-exists overwrite"
            ) from error


def line_order(line: tuple[Sample, bytes]) -> str:
    """Return what samples with their lines are sorted by."""
    return sample_order(line[0])


@dataclass(frozen=True, kw_only=True, repr=False)
class EncodedShard:
    """A finished shard as a whole, ready to be staged."""

    finished: FinishedShard
    samples: ShardSamples
    data: bytes
    """Of its file; empty when all of its samples are quarantined."""


def finish_shard(
    shard: NamedShard,
    records: Sequence[Record],
    quarantined: Sequence[QuarantinedSample],
    layout: Layout,
) -> EncodedShard:
    """Encode a shard, and describe it."""
    data = CONTAINERS[layout.format].encode(records) if records else b""
    return describe_shard(shard, records, quarantined, data)


def describe_shard(
    shard: NamedShard,
    records: Sequence[Record],
    quarantined: Sequence[QuarantinedSample],
    data: bytes,
) -> EncodedShard:
    """Describe a shard with these records and bytes."""
    label_pixels: Counter[int] = Counter()
    for record in records:
        label_pixels.update(record.label_pixels)
    entry = None
    if records:
        entry = ShardEntry(
            **describe_file(shard.name, data).model_dump(),
            split=shard.split,
            records=len(records),
            patches=sum(len(record.embeddings) for record in records),
            span=ShardSpan.of([record.image_id for record in records]),
        )
    samples = [SampleEntry.of(record, shard.name, row) for row, record in enumerate(records)]
    finished = FinishedShard.of(
        shard.split,
        entry,
        [*samples, *quarantined],
        statistics=_statistics(records),
        label_pixels=label_pixels,
    )
    return EncodedShard(finished=finished, samples=ShardSamples.of(samples, quarantined), data=data)


def _statistics(records: Sequence[Record]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for record in records:
        pixels, void_pixels, other_pixels = count_states(record.slot_planes)
        numbers = (
            *(1, len(record.embeddings)),
            *(pixels, void_pixels, other_pixels),
            int((record.label_count == 0).sum()),
            int((record.label_count > 4).sum()),
        )
        counts.update(dict(zip(COUNTED, numbers, strict=True)))
    return counts


def dataset_statistics(shards: Iterable[FinishedShard], void: int) -> dict[str, Any]:
    """Return dataset.json's statistics: counts per split, and the pixels of each class."""
    splits: dict[str, Counter[str]] = {}
    label_pixels: Counter[int] = Counter()
    for shard in shards:
        if shard.entry is None:  # nothing in it to count
            continue
        splits.setdefault(shard.split, Counter()).update(shard.statistics)
        label_pixels.update(shard.label_pixels)
    label_pixels.pop(void, None)
    return {
        "splits": {
            split: {name: counts[name] for name in COUNTED}
            for split, counts in sorted(splits.items())
        },
        "label_pixels": {str(label): label_pixels[label] for label in sorted(label_pixels)},
    }


def version_notes(
    index: DatasetIndex, space: LabelSpace, turned: Collection[str]
) -> tuple[str, ...]:
    """Return what is odd about a version as a whole, in words.

    ``turned`` are the ids of images whose metadata state an orientation other than upright.
    """
    statistics = index.statistics
    void_pixels = sum(counts["void_pixels"] for counts in statistics["splits"].values())
    pixels_of = {int(label): count for label, count in statistics["label_pixels"].items()}
    empty = sorted(set(index.recipe.splits) - {shard.split for shard in index.shards})
    return (
        *([f"no record in split {', '.join(empty)}"] if empty else ()),
        *label_notes(space, pixels_of, void_pixels),
        *([turned_note(turned)] if turned else ()),
    )
