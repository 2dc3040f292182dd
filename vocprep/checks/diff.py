"""What differs between two dataset versions: recipe, pictures, labels, targets, embeddings.

Digests are compared first; arrays are read only of the samples whose digests differ.

Shape legend: P patches, D embedding, h×w pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vocprep.checks.deviation import Deviation, measure
from vocprep.recipe import differing_fields
from vocprep.shards.containers import CONTAINERS, ShardReader
from vocprep.shards.record import FLIP_SUFFIX, Record
from vocprep.shards.samples import SampleEntry
from vocprep.shards.version import Version

PARTS = {
    "image": "image_sha256",
    "label": "label_sha256",
    "targets": "targets_sha256",
    "embeddings": "embeddings_sha256",
}
"""What of a sample can differ, and the digest that says so."""


@dataclass(frozen=True, kw_only=True)
class LabelFlips:
    """Pixels that changed from one label to another."""

    before: int
    after: int
    pixels: int


@dataclass(frozen=True, kw_only=True)
class SampleDiff:
    """A record that both versions have, otherwise."""

    id: str
    parts: tuple[str, ...]
    """Of ``PARTS``."""
    changed_pixels: int | None = None
    """Pixels whose label changed; None where label maps cannot be compared."""
    largest_deviation: float | None = None
    smallest_cosine: float | None = None
    """Both None where embeddings are the same or cannot be compared."""


@dataclass(frozen=True, kw_only=True)
class VersionDiff:
    """Everything that differs between two versions, A and B."""

    recipe: tuple[str, ...]
    """A line a field: its name, A's value, B's value."""
    numerics_class: tuple[str, ...]
    """Likewise; not a difference of the data in itself."""
    added: tuple[str, ...]
    """Ids of pictures that only B has; quarantined ones count as had."""
    removed: tuple[str, ...]
    newly_quarantined: tuple[str, ...]
    """Pictures of both that are bad in B only."""
    no_longer_quarantined: tuple[str, ...]
    moved: tuple[str, ...]
    """Pictures that are in another split."""
    samples: tuple[SampleDiff, ...]
    label_flips: tuple[LabelFlips, ...]
    """Most pixels first; of unmirrored records."""
    embeddings: Deviation | None
    """Over all records whose embeddings differ; None when none do or none can be compared."""
    same_content: bool
    """Whether the content_ids agree."""

    @property
    def is_same(self) -> bool:
        """Whether both are the same data made by the same recipe."""
        return self.same_content and not self.recipe and not self.moved

    def count(self, part: str) -> int:
        """Return how many records differ in one of ``PARTS``."""
        return sum(part in sample.parts for sample in self.samples)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"same": self.is_same, **asdict(self)}


def diff_versions(
    one: Path, other: Path, on_sample: Callable[[], None] = lambda: None
) -> VersionDiff:
    """Compare two finished versions; ``on_sample`` is called after each sample that was read.

    Raises ShardError when one of them is none or was altered.
    """
    versions = Version.read(one), Version.read(other)
    comparison = _Comparison(
        readers=(_Readers(one, versions[0]), _Readers(other, versions[1])),
        same_labels=versions[0].index.recipe.schema == versions[1].index.recipe.schema,
    )
    entries = [{sample.id: sample for sample in version.samples} for version in versions]
    if versions[0].index.content_id != versions[1].index.content_id:
        try:
            for record_id in sorted(entries[0].keys() & entries[1].keys()):
                if comparison.add(entries[0][record_id], entries[1][record_id]):
                    on_sample()
        finally:
            comparison.close()
    return _summary(versions, comparison)


def _summary(versions: tuple[Version, Version], comparison: _Comparison) -> VersionDiff:
    one, other = (version.index for version in versions)
    sources = [version.sources for version in versions]
    bad = [{item.id for item in version.quarantined} for version in versions]
    splits = [{item.id: item.split for item in version.members} for version in versions]
    both = sources[0].keys() & sources[1].keys()
    return VersionDiff(
        recipe=tuple(differing_fields(one.recipe.to_json(), other.recipe.to_json())),
        numerics_class=tuple(differing_fields(one.numerics_class, other.numerics_class)),
        added=tuple(sorted(sources[1].keys() - both)),
        removed=tuple(sorted(sources[0].keys() - both)),
        newly_quarantined=tuple(sorted(both & (bad[1] - bad[0]))),
        no_longer_quarantined=tuple(sorted(both & (bad[0] - bad[1]))),
        moved=tuple(sorted(i for i in both if splits[0][i] != splits[1][i])),
        samples=tuple(comparison.samples),
        label_flips=tuple(
            LabelFlips(before=before, after=after, pixels=pixels)
            for (before, after), pixels in sorted(
                comparison.flips.items(), key=lambda item: (-item[1], item[0])
            )
        ),
        embeddings=comparison.deviation,
        same_content=one.content_id == other.content_id,
    )


class _Readers:
    """Reads single records of a version; keeps the shard that it read last open."""

    def __init__(self, path: Path, version: Version) -> None:
        self._path = path
        self._container = CONTAINERS[version.index.container]
        self._name = ""
        self._reader: ShardReader | None = None

    def read(self, sample: SampleEntry) -> Record:
        """Return a sample's record."""
        if self._reader is None or sample.shard != self._name:
            self.close()
            self._reader = self._container.open_shard(self._path / sample.shard)
            self._name = sample.shard
        return self._reader.read(sample.row)

    def close(self) -> None:
        """Close the open shard, if any."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None


@dataclass(kw_only=True)
class _Comparison:
    """The records that differ, added up."""

    readers: tuple[_Readers, _Readers]
    same_labels: bool
    """Whether an id means the same label in both."""
    samples: list[SampleDiff] = field(default_factory=list)
    flips: Counter[tuple[int, int]] = field(default_factory=Counter)
    deviation: Deviation | None = None

    def add(self, one: SampleEntry, other: SampleEntry) -> bool:
        """Compare a record of both versions; True when it differs."""
        parts = tuple(
            part for part, name in PARTS.items() if getattr(one, name) != getattr(other, name)
        )
        if not parts:
            return False
        records: Sequence[Record] = ()
        if "targets" in parts or "embeddings" in parts:
            records = [
                reader.read(entry) for reader, entry in zip(self.readers, (one, other), strict=True)
            ]
        pixels = self._count_flips(records) if "targets" in parts else None
        deviation = self._measure(records) if "embeddings" in parts else None
        self.samples.append(
            SampleDiff(
                id=one.id,
                parts=parts,
                changed_pixels=pixels,
                largest_deviation=deviation.largest if deviation else None,
                smallest_cosine=deviation.cosine if deviation else None,
            )
        )
        return True

    def _count_flips(self, records: Sequence[Record]) -> int | None:
        before, after = (record.decode_label_map() for record in records)
        if not self.same_labels or before.shape != after.shape:
            return None
        changed = before != after
        if not records[0].image_id.endswith(FLIP_SUFFIX):
            # One number a pair of labels, which are 16 bits each.
            pairs = before[changed].astype(np.uint32) << 16 | after[changed]
            for pair, pixels in zip(*np.unique(pairs, return_counts=True), strict=True):
                self.flips[int(pair) >> 16, int(pair) & 0xFFFF] += int(pixels)
        return int(changed.sum())

    def _measure(self, records: Sequence[Record]) -> Deviation | None:
        before, after = (record.embeddings for record in records)
        if before.shape != after.shape:
            return None
        found = measure(after, before)
        self.deviation = found if self.deviation is None else self.deviation + found
        return found

    def close(self) -> None:
        """Close both versions' shards."""
        for reader in self.readers:
            reader.close()
