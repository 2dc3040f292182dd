"""The page about two dataset versions, A and B, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

from vocprep.analysis.photographs import Photographs
from vocprep.analysis.statistics import SplitStatistics, count_split
from vocprep.checks.diff import PARTS, RecordDiff, VersionDiff, diff
from vocprep.drawing.label_maps import paint_errors
from vocprep.labels.label_space import LabelSpace
from vocprep.pages.report.options import ReportOptions
from vocprep.pages.report.page import Page, Picture, Section, digest, section, table
from vocprep.pages.report.versions.counts import (
    class_label,
    classes_section,
    patches_section,
    split_table,
    void_section,
)
from vocprep.pages.report.versions.page import IDENTITIES, split_names, train_first
from vocprep.pages.report.versions.pictures import Gallery, Panels
from vocprep.progress import Progress
from vocprep.shards.reader import ShardDataset

_MOST_IDS = 12
_MOST_RECORDS = 50
_MOST_CHANGES = 30
_LETTERS = ("A", "B")


def versions_page(
    a: ShardDataset, b: ShardDataset, options: ReportOptions, progress: Progress
) -> Page:
    """Return the page about two versions: what differs from A to B, and the counts of both."""
    found = diff(a.path, b.path, progress)
    space, ids = joint_space(a.label_space, b.label_space)
    columns = [
        _column(dataset, split, f"{letter} {split}", numbers, progress)
        for split in sorted({*split_names(a), *split_names(b)}, key=train_first)
        for dataset, letter, numbers in zip((a, b), _LETTERS, ({}, ids), strict=True)
        if split in split_names(dataset)
    ]
    photographs = options.data_dir and Photographs.of(a, options.data_dir, options.dataset)
    gallery = Gallery(space=a.label_space, photographs=photographs or None, components=None)
    counted = [
        classes_section(columns, space, list(_class_notes(a.label_space, b.label_space))),
        void_section(columns, []),
        patches_section(columns, None),
    ]
    return Page(
        title=f"Two dataset versions: {a.index.recipe.dataset} and {b.index.recipe.dataset}"
        if a.index.recipe.dataset != b.index.recipe.dataset
        else f"Two dataset versions of {a.index.recipe.dataset}",
        lead=f"A: {a.index.short_id}, B: {b.index.short_id}",
        sections=(
            _overview(found, columns, (a, b)),
            _differences(found, gallery.space),
            *_changed(found, (a, b), gallery, options.pictures),
            *(counted if columns else []),
            _identities(a, b),
        ),
    )


def joint_space(a: LabelSpace, b: LabelSpace) -> tuple[LabelSpace, dict[int, int]]:
    """Return a label space of the classes of both, and which id each class of B has in it.

    Classes of one name are the same one; those of A keep their ids.

    >>> cats = LabelSpace.of_classes(name="a", void=0, names={1: "cat"})
    >>> both = LabelSpace.of_classes(name="b", void=0, names={1: "dog", 2: "cat"})
    >>> joint, ids = joint_space(cats, both)
    >>> dict(joint.names), ids
    ({1: 'cat', 2: 'dog'}, {1: 2, 2: 1})
    """
    known = {name: key for key, name in a.names.items()}
    free = count(max((*a.names, a.void)) + 1)
    for _, name in sorted(b.names.items()):
        if name not in known:
            known[name] = next(free)
    ids = {key: known[name] for key, name in b.names.items()}
    if len(known) == len(a.names):
        return a, ids
    names = {key: name for name, key in known.items()}
    return LabelSpace.of_classes(name=f"{a.name}+{b.name}", void=a.void, names=names), ids


def _column(
    dataset: ShardDataset, split: str, label: str, ids: Mapping[int, int], progress: Progress
) -> SplitStatistics:
    """Return the counts of a split under another label, by other class ids."""
    counts = count_split(dataset, split, progress)

    def moved(counter: Counter[int]) -> Counter[int]:
        return Counter({ids.get(key, key): count for key, count in counter.items()})

    return replace(
        counts,
        split=label,
        pixels_of=moved(counts.pixels_of),
        pictures_of=moved(counts.pictures_of),
        left_out_of=moved(counts.left_out_of),
    )


def _overview(
    found: VersionDiff, columns: Sequence[SplitStatistics], datasets: tuple[ShardDataset, ...]
) -> Section:
    rows = [
        (
            letter,
            dataset.index.short_id,
            len(dataset.index.shards),
            sum(shard.bytes for shard in dataset.index.shards) / 1e6,
            dataset.index.quarantined,
        )
        for letter, dataset in zip(_LETTERS, datasets, strict=True)
    ]
    return section(
        "overview",
        "Overview",
        "versions_overview.html",
        verdict=_verdict(found),
        versions=table("The versions", ("", "version", "shards", "MB", "in quarantine"), rows),
        splits=split_table(columns),
    )


def _verdict(found: VersionDiff) -> str:
    """Return in a sentence whether the two are the same."""
    if found.same:
        return "Both hold the same data by the same recipe."
    if found.same_content:
        return "Both hold the same records, described by another recipe."
    if not found.samples:
        return "No record that both hold differs."
    parts = (f"{part} {found.count(part):,}" for part in PARTS if found.count(part))
    return f"Records that both hold and that differ: {len(found.samples):,} ({', '.join(parts)})."


def _differences(found: VersionDiff, space: LabelSpace) -> Section:
    ordered = sorted(
        found.samples,
        key=lambda s: (-(s.changed_pixels or 0), -(s.largest_deviation or 0.0), s.id),
    )
    return section(
        "differences",
        "What differs",
        "versions_differences.html",
        recipe=[*found.recipe, *(_numerics(found))],
        lists=list(_lists(found)),
        records=_records_table(ordered[:_MOST_RECORDS]) if ordered else None,
        differing=len(ordered),
        listed=min(len(ordered), _MOST_RECORDS),
        changes=_changes_table(found, space) if found.class_changes else None,
        embeddings=None if found.embeddings is None else str(found.embeddings),
        patches=0 if found.embeddings is None else found.embeddings.patches,
        records_read=found.records_read,
    )


def _numerics(found: VersionDiff) -> Iterator[str]:
    """Yield how the numerics classes differ, where the precision does not decide them."""
    if not any(line.startswith("precision: ") for line in found.recipe):
        yield from (f"numerics: {line}" for line in found.numerics_class)


def _lists(found: VersionDiff) -> Iterator[tuple[str, int, str]]:
    """Yield what happened to images, to how many, and their ids."""
    for words, ids in (
        ("in B only", found.added),
        ("in A only", found.removed),
        ("in another split", found.moved),
        ("in quarantine in B only", found.newly_quarantined),
        ("in quarantine in A only", found.no_longer_quarantined),
    ):
        if ids:
            more = f" and {len(ids) - _MOST_IDS:,} more" if len(ids) > _MOST_IDS else ""
            yield words, len(ids), ", ".join(ids[:_MOST_IDS]) + more


def _records_table(records: Sequence[RecordDiff]) -> str:
    rows = [
        (
            each.id,
            ", ".join(each.parts),
            each.changed_pixels,
            None if each.largest_deviation is None else f"{each.largest_deviation:.2g}",
            None if each.smallest_cosine is None else f"{each.smallest_cosine:.6f}",
        )
        for each in records
    ]
    head = ("record", "differs in", "label pixels", "largest deviation", "smallest cosine")
    return table("Records that differ, those with the most changed pixels first", head, rows)


def _changes_table(found: VersionDiff, space: LabelSpace) -> str:
    rows = [
        (class_label(each.before, space.style), class_label(each.after, space.style), each.pixels)
        for each in found.class_changes[:_MOST_CHANGES]
    ]
    return table("Pixels whose class changed", ("in A", "in B", "pixels"), rows)


def _changed(
    found: VersionDiff, datasets: tuple[ShardDataset, ShardDataset], gallery: Gallery, most: int
) -> Iterator[Section]:
    """Yield the pictures with the most changed pixels; nothing where there are none."""
    changed = sorted((s for s in found.samples if s.changed_pixels), key=_most_changed)[:most]
    if changed:
        sheet = [(each.id, _both(each.id, datasets, gallery)) for each in changed]
        yield section("changed", "Pictures that changed most", "versions_changed.html", sheet=sheet)


def _most_changed(sample: RecordDiff) -> tuple[int, str]:
    return -(sample.changed_pixels or 0), sample.id


def _both(record_id: str, datasets: tuple[ShardDataset, ShardDataset], gallery: Gallery) -> Panels:
    """Return a record's label maps in A and in B, and where they differ."""
    one, other = (dataset.record(record_id) for dataset in datasets)
    panels = [gallery.single(one, "photograph")] if gallery.photographs else []
    panels += [gallery.labels(one, "A"), gallery.labels(other, "B")]
    maps = one.decode_label_map(), other.decode_label_map()
    changed = Picture.of(paint_errors(*maps, gallery.space.style), f"Changed pixels of {record_id}")
    return [*panels, (changed, "changed pixels in red")]


def _class_notes(a: LabelSpace, b: LabelSpace) -> Iterator[str]:
    """Yield which classes only one of two label spaces has."""
    for one, other, letter in ((a, b, "A"), (b, a, "B")):
        names = sorted(set(one.names.values()) - set(other.names.values()))
        if names:
            more = f" and {len(names) - _MOST_IDS:,} more" if len(names) > _MOST_IDS else ""
            yield f"Classes of {letter} only: {', '.join(names[:_MOST_IDS])}{more}"


def _identities(a: ShardDataset, b: ShardDataset) -> Section:
    rows = []
    for name, of in IDENTITIES:
        values = getattr(a.index, name), getattr(b.index, name)
        rows.append((name, of, digest(values[0]), digest(values[1]), values[0] == values[1]))
    return section(
        "identity",
        "Identities",
        "versions_identity.html",
        table=table("Digests of both", ("identity", "of", "A", "B", "the same"), rows),
    )
