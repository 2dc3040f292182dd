"""Finished shards: their bytes, what the index says of them, and the dataset's statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from vocprep.building.plan import ShardPlan
from vocprep.labels.statistics import label_areas
from vocprep.labels.targets import STATE_OTHER, unpack_states
from vocprep.options import Layout
from vocprep.shards.containers import CONTAINERS
from vocprep.shards.index import ShardEntry, describe_file
from vocprep.shards.record import Record
from vocprep.shards.samples import Entry, QuarantinedSample, Sample, SampleEntry

COUNTED = (
    *("records", "patches", "pixels", "void_pixels", "other_pixels"),
    *("patches_without_label", "patches_with_more_labels"),
)
"""What dataset.json counts a split; ``other_pixels`` are those outside their patch's top 4."""


class FinishedShard(Entry):
    """What the index says of a finished shard."""

    split: str
    entry: ShardEntry | None
    """None when all of its samples are quarantined: there is no file then."""
    samples: tuple[SampleEntry, ...]
    quarantined: tuple[QuarantinedSample, ...]
    statistics: dict[str, int] = Field(default_factory=dict)
    label_pixels: dict[int, int] = Field(default_factory=dict)

    @property
    def members(self) -> list[Sample]:
        """Everything that it was made of."""
        return [*self.samples, *self.quarantined]

    def named(self, name: str) -> FinishedShard:
        """Return the same shard under another name."""
        return self.model_copy(
            update={
                "entry": self.entry and self.entry.model_copy(update={"name": name}),
                "samples": tuple(s.model_copy(update={"shard": name}) for s in self.samples),
            }
        )


def finish_shard(
    shard: ShardPlan,
    records: Sequence[Record],
    quarantined: Sequence[QuarantinedSample],
    layout: Layout,
) -> tuple[bytes, FinishedShard]:
    """Return a shard's bytes, and what the index says of it."""
    data = CONTAINERS[layout.format].encode(records) if records else b""
    return data, describe_shard(shard, records, quarantined, data)


def describe_shard(
    shard: ShardPlan,
    records: Sequence[Record],
    quarantined: Sequence[QuarantinedSample],
    data: bytes,
) -> FinishedShard:
    """Return what the index says of a shard with these records and bytes."""
    label_pixels: Counter[int] = Counter()
    for record in records:
        label_pixels.update(label_areas(record.label_map))
    entry = ShardEntry(
        **describe_file(shard.name, data).model_dump(),
        split=shard.split,
        records=len(records),
        patches=sum(len(record.embeddings) for record in records),
    )
    return FinishedShard(
        split=shard.split,
        entry=entry if records else None,
        samples=tuple(
            SampleEntry.of(record, shard.name, row) for row, record in enumerate(records)
        ),
        quarantined=tuple(quarantined),
        statistics=_statistics(records),
        label_pixels=label_pixels,
    )


def _statistics(records: Sequence[Record]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for record in records:
        states = np.bincount(unpack_states(record.slot_planes).ravel(), minlength=6)
        numbers = (
            *(1, len(record.embeddings)),
            *(int(states.sum()), int(states[-1]), int(states[STATE_OTHER])),
            int((record.label_count == 0).sum()),
            int((record.label_count > 4).sum()),
        )
        counts.update(dict(zip(COUNTED, numbers, strict=True)))
    return counts


def dataset_statistics(shards: Sequence[FinishedShard], void: int) -> dict[str, Any]:
    """Return dataset.json's statistics: counts a split, and the pixels of each label."""
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
