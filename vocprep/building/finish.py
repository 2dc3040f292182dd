"""Finished shards: their bytes and their part of the index, and the version of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from vocprep.building.card import CARD_FILE, dataset_card
from vocprep.building.croissant import CROISSANT_FILE, croissant
from vocprep.building.plan import BuildKey, ShardPlan, versions
from vocprep.features.image_errors import turned_note
from vocprep.files.writing import json_bytes
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.statistics import label_areas, label_notes
from vocprep.labels.targets import STATE_OTHER, unpack_states
from vocprep.options import Layout
from vocprep.shards.containers import CONTAINERS
from vocprep.shards.identity import Identities
from vocprep.shards.index import INDEX_VERSION, DatasetIndex, ShardEntry, describe_file
from vocprep.shards.record import Record
from vocprep.shards.samples import (
    LABELS_FILE,
    QUARANTINE_FILE,
    SAMPLES_FILE,
    Entry,
    QuarantinedSample,
    Sample,
    SampleEntry,
    jsonl_bytes,
)
from vocprep.shards.spans import ShardSpan
from vocprep.shards.version import Version

COUNTED = (
    *("records", "patches", "pixels", "void_pixels", "other_pixels"),
    *("patches_without_label", "patches_with_more_labels"),
)
"""What dataset.json counts per split; ``other_pixels`` are those outside their patch's top 4."""


class FinishedShard(Entry):
    """A finished shard's part of the index."""

    split: str
    entry: ShardEntry | None
    """None when all of its samples are quarantined: there is no file then."""
    samples: tuple[SampleEntry, ...]
    quarantined: tuple[QuarantinedSample, ...]
    statistics: dict[str, int] = Field(default_factory=dict)
    label_pixels: dict[int, int] = Field(default_factory=dict)

    @property
    def indexed(self) -> ShardEntry | None:
        """Its entry with the span, which earlier versions and their staging do not state."""
        if self.entry is None or self.entry.span is not None:
            return self.entry
        rows = sorted(self.samples, key=lambda sample: sample.row)
        span = ShardSpan.of([sample.id for sample in rows])
        return self.entry.model_copy(update={"span": span})

    @property
    def members(self) -> list[Sample]:
        """All of its samples, quarantined ones included."""
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
    """Return a shard's bytes, and its part of the index."""
    data = CONTAINERS[layout.format].encode(records) if records else b""
    return data, describe_shard(shard, records, quarantined, data)


def describe_shard(
    shard: ShardPlan,
    records: Sequence[Record],
    quarantined: Sequence[QuarantinedSample],
    data: bytes,
) -> FinishedShard:
    """Return the part of the index of a shard with these records and bytes."""
    label_pixels: Counter[int] = Counter()
    for record in records:
        label_pixels.update(label_areas(record.label_map))
    entry = None
    if records:
        entry = ShardEntry(
            **describe_file(shard.name, data).model_dump(),
            split=shard.split,
            records=len(records),
            patches=sum(len(record.embeddings) for record in records),
            span=ShardSpan.of([record.image_id for record in records]),
        )
    return FinishedShard(
        split=shard.split,
        entry=entry,
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
    notes = label_notes(space, pixels_of, void_pixels)
    return (*notes, turned_note(turned)) if turned else notes


def assemble(
    key: BuildKey, shards: Sequence[FinishedShard], stage_seconds: Mapping[str, float]
) -> Version:
    """Return the version of finished shards: its index, and the files beside its shards."""
    plan = key.plan
    samples = sorted((item for shard in shards for item in shard.samples), key=lambda s: s.id)
    quarantined = sorted(
        (item for shard in shards for item in shard.quarantined), key=lambda q: q.id
    )
    identities = Identities.of(samples, quarantined)
    index = DatasetIndex(
        format_version=INDEX_VERSION,
        recipe_id=plan.recipe.recipe_id,
        source_id=identities.source_id,
        content_id=identities.content_id,
        targets_id=identities.targets_id,
        container=plan.layout.format,
        samples_per_shard=plan.layout.samples_per_shard,
        recipe=plan.recipe,
        numerics_class=key.numerics_class,
        weights=plan.weights_label,
        shards=tuple(entry for shard in shards if (entry := shard.indexed) is not None),
        files=(),
        quarantined=len(quarantined),
        statistics=dataset_statistics(shards, plan.label_space.void),
        versions=versions(),
    )
    files = {
        SAMPLES_FILE: jsonl_bytes(samples),
        LABELS_FILE: json_bytes(plan.label_space.to_json()),
    }
    if quarantined:
        files[QUARANTINE_FILE] = jsonl_bytes(quarantined)
    files[CARD_FILE] = dataset_card(index, plan).encode()
    files[CROISSANT_FILE] = croissant(index, files[SAMPLES_FILE], plan)
    entries = tuple(describe_file(name, data) for name, data in files.items())
    # How long it took is the one thing in a version that no two builds share.
    statistics = {**index.statistics, "seconds": dict(stage_seconds)}
    index = index.model_copy(update={"files": entries, "statistics": statistics})
    return Version(index=index.sealed(), samples=samples, quarantined=quarantined, files=files)
