"""What differs between two dataset versions: recipe, images, label maps, targets, embeddings.

The digests that the indexes list are compared first; arrays are read only of the records whose
digests differ. Of all other shards no more than the sizes are looked at, so that large versions are
compared in seconds: ``vocprep.checks.verify`` reads all files.

Shape legend: P patches, D embedding, h×w pixels.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby, repeat
from pathlib import Path
from typing import Any

import numpy as np

from vocprep.checks.deviation import Deviation, measure_deviation
from vocprep.files.ids import is_plain
from vocprep.labels.label_space import LabelSpace
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.recipe import differing_fields
from vocprep.shards.record import Record
from vocprep.shards.samples import QuarantinedSample, Sample, SampleEntry, sample_order
from vocprep.shards.version import Version
from vocprep.storage.places import Place, parse_place

PARTS = {
    "image": "image_sha256",
    "label": "label_sha256",
    "targets": "targets_sha256",
    "embeddings": "embeddings_sha256",
}
"""The parts of a record that can differ, and the digest of each."""


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """The pixels that are of one class in A and of another in B."""

    before: int
    """Class id in A."""
    before_name: str
    after: int
    """Class id in B."""
    after_name: str
    pixels: int


@dataclass(frozen=True, kw_only=True)
class RecordDiff:
    """A record that both versions have and that differs."""

    id: str
    parts: tuple[str, ...]
    """Of ``PARTS``."""
    changed_pixels: int | None = None
    """Pixels whose class differs; None where label maps are the same or cannot be compared."""
    largest_deviation: float | None = None
    smallest_cosine: float | None = None
    """Both None where embeddings are the same or cannot be compared."""


@dataclass(frozen=True, kw_only=True)
class VersionDiff:
    """Everything that differs between two versions, A and B."""

    versions: tuple[str, str]
    """Short ids of A and B."""
    recipe: tuple[str, ...]
    """A line per field: its name, A's value, B's value."""
    numerics_class: tuple[str, ...]
    """Likewise; not a difference of the data in itself."""
    added: tuple[str, ...]
    """Ids of images that only B has, as records or quarantined."""
    removed: tuple[str, ...]
    newly_quarantined: tuple[str, ...]
    """Images of both that are quarantined in B only."""
    no_longer_quarantined: tuple[str, ...]
    moved: tuple[str, ...]
    """Images that are in another split."""
    samples: tuple[RecordDiff, ...]
    """By id."""
    class_changes: tuple[ClassChange, ...]
    """Most pixels first; of records that are not mirrored."""
    embeddings: Deviation | None
    """Over all records whose embeddings differ; None when none do or none can be compared."""
    same_content: bool
    """Whether the content_ids agree."""
    records_read: int
    """Records whose arrays were read from the shards of both."""
    compared: str = field(compare=False)
    """What was looked at, in words."""

    @property
    def same(self) -> bool:
        """Whether both are the same data made by the same recipe."""
        return self.same_content and not self.recipe and not self.moved

    def count(self, part: str) -> int:
        """Return how many records differ in one of ``PARTS``."""
        return sum(part in sample.parts for sample in self.samples)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = asdict(self, dict_factory=_with_lists)
        return {"same": self.same, **plain}


def _with_lists(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in items}


def diff(a: str | Place, b: str | Place, progress: Progress = NO_PROGRESS) -> VersionDiff:
    """Compare two finished dataset versions, from A to B.

    Raises ShardError when one of them is no version, when its index was altered, or when a shard
    is missing, has another size, or is read and not the one that the index lists.
    """
    folders = parse_place(a), parse_place(b)
    versions = Version.open(folders[0]), Version.open(folders[1])
    comparison = _RecordComparison(_shared_label_space(versions))
    lists = _compare_lists(versions)
    progress.begin("records", len(lists.differing), 0)
    try:
        for entries, records in _read_where_needed(folders, versions, lists.differing):
            comparison.add(entries, records)
            progress.advance(1)
    finally:
        progress.end()
    return _summary(versions, lists, comparison)


EntryPair = tuple[SampleEntry, SampleEntry]
RecordPair = tuple[Record, Record]


def _shared_label_space(versions: tuple[Version, Version]) -> LabelSpace | None:
    """Return the label space of both versions, None when it is not the same one."""
    one, other = (version.index.recipe.schema for version in versions)
    return versions[0].label_space if one == other else None


@dataclass(frozen=True, kw_only=True)
class _ListChanges:
    """What differs between the lists of samples of two versions; ids of images, in order."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    newly_quarantined: list[str] = field(default_factory=list)
    no_longer_quarantined: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    differing: list[EntryPair] = field(default_factory=list)
    """Lines of the records of both that differ, in A's shard order."""


def _compare_lists(versions: tuple[Version, Version]) -> _ListChanges:
    """Read the lists of both versions side by side; only what differs stays in memory.

    Versions of one content_id have the same records, and the same images in quarantine.
    """
    one, other = versions
    found = _ListChanges()
    if one.index.content_id == other.index.content_id:
        pairs = _side_by_side(one.stream_quarantined(), other.stream_quarantined())
    else:
        pairs = _side_by_side(one.stream_all(), other.stream_all())
    for before, after in pairs:
        _add_change(found, before, after)
    found.differing.sort(key=lambda pair: (pair[0].shard, pair[0].row))
    return found


def _side_by_side(
    one: Iterable[Sample], other: Iterable[Sample]
) -> Iterator[tuple[Sample | None, Sample | None]]:
    """Yield the samples of two lists in id order, those of one id together."""
    tagged = (zip(side, repeat(number)) for number, side in enumerate((one, other)))
    merged = heapq.merge(*tagged, key=lambda item: sample_order(item[0]))
    for _, group in groupby(merged, key=lambda item: item[0].id):
        found: list[Sample | None] = [None, None]
        for sample, number in group:
            found[number] = sample
        yield found[0], found[1]


def _add_change(found: _ListChanges, before: Sample | None, after: Sample | None) -> None:
    """Add how a sample of one id differs, if it does."""
    for alone, ids in ((before, found.removed), (after, found.added)):
        if alone is not None and None in (before, after) and is_plain(alone.id):
            ids.append(alone.id)
    if before is None or after is None:
        return
    if isinstance(before, SampleEntry) and isinstance(after, SampleEntry):
        pair = before, after
        found.differing.extend([pair] if _differing_parts(pair) else [])
    if not is_plain(after.id):
        return
    was, is_now = (isinstance(sample, QuarantinedSample) for sample in (before, after))
    if was != is_now:
        (found.newly_quarantined if is_now else found.no_longer_quarantined).append(after.id)
    if before.split != after.split:
        found.moved.append(after.id)


def _differing_parts(pair: EntryPair) -> tuple[str, ...]:
    return tuple(
        part for part, name in PARTS.items() if getattr(pair[0], name) != getattr(pair[1], name)
    )


def _read_where_needed(
    folders: tuple[Place, Place], versions: tuple[Version, Version], pairs: Sequence[EntryPair]
) -> Iterator[tuple[EntryPair, RecordPair | None]]:
    """Yield each pair of lines with its records, where arrays differ; else None."""
    arrays = {"targets", "embeddings"}
    needed = [pair for pair in pairs if arrays.intersection(_differing_parts(pair))]
    records = zip(
        versions[0].records(folders[0], [one for one, _ in needed]),
        versions[1].records(folders[1], [other for _, other in needed]),
        strict=True,
    )
    for pair in pairs:
        if arrays.intersection(_differing_parts(pair)):
            (_, one), (_, other) = next(records)
            yield pair, (one, other)
        else:
            yield pair, None


@dataclass
class _RecordComparison:
    """The differences between records, added up."""

    label_space: LabelSpace | None
    """Of both versions; None when they have different ones."""
    samples: list[RecordDiff] = field(default_factory=list)
    pixels: Counter[tuple[int, int]] = field(default_factory=Counter)
    """By class id before and after."""
    deviation: Deviation | None = None
    records_read: int = 0

    def add(self, entries: EntryPair, records: RecordPair | None) -> None:
        """Compare a record of both versions."""
        parts = _differing_parts(entries)
        self.records_read += records is not None
        pixels = self._count_pixels(records) if records and "targets" in parts else None
        deviation = self._measure(records) if records and "embeddings" in parts else None
        self.samples.append(
            RecordDiff(
                id=entries[0].id,
                parts=parts,
                changed_pixels=pixels,
                largest_deviation=deviation.largest_deviation if deviation else None,
                smallest_cosine=deviation.smallest_cosine if deviation else None,
            )
        )

    def _count_pixels(self, records: RecordPair) -> int | None:
        before, after = (record.decode_label_map() for record in records)
        if self.label_space is None or before.shape != after.shape:
            return None
        changed = before != after
        if is_plain(records[0].image_id):
            # One number per pair of class ids, which have 16 bits each.
            pairs = before[changed].astype(np.uint32) << 16 | after[changed]
            for pair, pixels in zip(*np.unique(pairs, return_counts=True), strict=True):
                self.pixels[int(pair) >> 16, int(pair) & 0xFFFF] += int(pixels)
        return int(changed.sum())

    def _measure(self, records: RecordPair) -> Deviation | None:
        before, after = (record.embeddings for record in records)
        if before.shape != after.shape:
            return None
        found = measure_deviation(after, before)
        self.deviation = found if self.deviation is None else self.deviation + found
        return found

    def class_changes(self) -> Iterator[ClassChange]:
        """Yield the changes of class, those of most pixels first."""
        if self.label_space is None:
            return
        name = self.label_space.class_name
        for (before, after), pixels in sorted(self.pixels.items(), key=lambda i: (-i[1], i[0])):
            yield ClassChange(
                before=before,
                before_name=name(before),
                after=after,
                after_name=name(after),
                pixels=pixels,
            )


def _summary(
    versions: tuple[Version, Version], lists: _ListChanges, comparison: _RecordComparison
) -> VersionDiff:
    one, other = (version.index for version in versions)
    return VersionDiff(
        versions=(one.short_id, other.short_id),
        recipe=tuple(differing_fields(one.recipe.to_json(), other.recipe.to_json())),
        numerics_class=tuple(differing_fields(one.numerics_class, other.numerics_class)),
        added=tuple(lists.added),
        removed=tuple(lists.removed),
        newly_quarantined=tuple(lists.newly_quarantined),
        no_longer_quarantined=tuple(lists.no_longer_quarantined),
        moved=tuple(lists.moved),
        samples=tuple(sorted(comparison.samples, key=lambda sample: sample.id)),
        class_changes=tuple(comparison.class_changes()),
        embeddings=comparison.deviation,
        same_content=one.content_id == other.content_id,
        records_read=comparison.records_read,
        compared="; ".join(_compared(versions, comparison.records_read)),
    )


def _compared(versions: tuple[Version, Version], records_read: int) -> Iterator[str]:
    """Yield in words what was compared: of shards in object stores, those that were read."""
    folders = [version.path for version in versions if isinstance(version.path, Path)]
    yield "indexes"
    if folders:
        yield "sizes of shards" + (f" in {folders[0]}" if len(folders) == 1 else "")
    if records_read:
        yield f"the arrays of {records_read:,} records"
