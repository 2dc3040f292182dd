"""The page about a dataset version."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from vocprep.analysis.components import Components
from vocprep.analysis.duplicates import Duplicates, find_duplicates, find_same
from vocprep.analysis.photographs import Photographs
from vocprep.analysis.statistics import SplitStatistics
from vocprep.auditing.result import read_audit
from vocprep.building.description.card import stated_terms
from vocprep.labels.statistics import label_notes
from vocprep.pages.report.audit_page import audit_sections
from vocprep.pages.report.options import ReportOptions
from vocprep.pages.report.page import Page, Section, section, table
from vocprep.pages.report.versions.counts import (
    class_notes,
    classes_section,
    left_out_table,
    most_void,
    patches_section,
    ranked,
    split_table,
    void_section,
)
from vocprep.pages.report.versions.pictures import (
    Gallery,
    Panels,
    duplicates_section,
    leakage,
    pictures_section,
    read_split,
)
from vocprep.progress import Progress
from vocprep.recipe import Recipe
from vocprep.shards.index import DatasetIndex
from vocprep.shards.reader import ShardDataset

MOST_COMPARED = 30_000
"""Records that are compared each with each, which takes a minute; of more, only digests are."""
_MOST_QUARANTINED = 200
"""Lines of quarantine.jsonl that are shown."""
_GEOMETRIES = {
    "crop224": "brought to 256 pixels on its shorter side and cropped to the 224×224 in its centre",
    "squash224": "squashed to 224×224 pixels",
    "native": "kept at its size, without the rows and columns past its last whole patch",
    "native-pad": "kept at its size, and its last patches are filled up",
}
IDENTITIES = (
    ("recipe_id", "the choices"),
    ("source_id", "the pictures and label maps that it was made of"),
    ("content_id", "the records"),
    ("targets_id", "the records without embeddings"),
)


def version_page(dataset: ShardDataset, options: ReportOptions, progress: Progress) -> Page:
    """Return the page about one dataset version."""
    index = dataset.index
    data_dir = options.data_dir
    photographs = data_dir and Photographs.of(dataset, data_dir, options.dataset)
    read = [read_split(dataset, s, options.pictures, progress) for s in split_names(dataset)]
    splits = [statistics for statistics, _ in read]
    sections: list[Section] = []
    found: Duplicates | None = None
    if splits:
        components = Components.of(dataset)
        gallery = Gallery(
            space=dataset.label_space, photographs=photographs or None, components=components
        )
        few = len(dataset) <= MOST_COMPARED
        found = find_duplicates(dataset, progress=progress) if few else find_same(dataset)
        if options.pictures:
            shown = [(each.split, records) for each, records in read]
            sections.append(pictures_section(shown, gallery))
        sections += [
            classes_section(
                splits, dataset.label_space, list(class_notes(splits, dataset.label_space))
            ),
            void_section(splits, _void_examples(splits, dataset, gallery, options.pictures)),
            patches_section(splits, left_out_table(splits, dataset.label_space)),
            duplicates_section(found, dataset, gallery, options.pictures),
        ]
        if options.audit is not None:
            sections += audit_sections(read_audit(options.audit), dataset, photographs or None)
    return Page(
        title=f"Dataset version {index.recipe.dataset}",
        lead=index.short_id,
        sections=(
            _overview(dataset, splits, found),
            *sections,
            _quarantine(dataset),
            _recipe(dataset),
            _use(dataset),
            identity_section(index),
        ),
    )


def _void_examples(
    splits: Sequence[SplitStatistics], dataset: ShardDataset, gallery: Gallery, most: int
) -> Panels:
    return [
        gallery.labels(dataset.record(image_id), f"{image_id}, {split}: {100 * share:.1f} %")
        for image_id, split, share in most_void(splits)[:most]
    ]


def split_names(dataset: ShardDataset) -> list[str]:
    """Return the splits that hold records: train first, as what the others are compared with."""
    filled = {shard.split for shard in dataset.index.shards}
    return sorted(filled, key=train_first)


def train_first(split: str) -> tuple[bool, str]:
    """Return what splits are ordered by."""
    return split != "train", split


def _overview(
    dataset: ShardDataset, splits: Sequence[SplitStatistics], found: Duplicates | None
) -> Section:
    index = dataset.index
    occurring = ranked(splits, lambda each: each.pixels_of)
    facts: list[tuple[str, Any]] = [
        ("pictures", sum(each.pictures for each in splits)),
        ("patches", sum(each.patches for each in splits)),
        ("classes that occur", f"{len(occurring):,} of {len(dataset.label_space.names):,}"),
        ("numbers per embedding", index.recipe.embedding_size),
        ("in quarantine", index.quarantined),
        ("size of the shards", f"{sum(shard.bytes for shard in index.shards) / 1e6:,.1f} MB"),
    ]
    return section(
        "overview",
        "Overview",
        "version_overview.html",
        facts=facts,
        splits=split_table(splits),
        views=_other_views(index.recipe),
        warnings=list(_warnings(dataset, splits, found)),
    )


def _other_views(recipe: Recipe) -> str:
    """Return in words what the shards hold beside plain views; empty where there is nothing."""
    kinds = ["mirrored views"] * (len(recipe.views) > 1) + ["crops"] * (recipe.crops is not None)
    return " and ".join(kinds).capitalize()


def _warnings(
    dataset: ShardDataset, splits: Sequence[SplitStatistics], found: Duplicates | None
) -> Iterator[str]:
    """Yield what whoever uses the version should know first."""
    if not splits:
        yield "This version holds no record."
    empty = sorted(set(dataset.splits) - {each.split for each in splits})
    if splits and empty:
        yield f"No record is in split {', '.join(empty)}."
    pixels: Counter[int] = Counter()
    for each in splits:
        pixels.update(each.pixels_of)
    yield from label_notes(dataset.label_space, pixels, sum(each.void_pixels for each in splits))
    if found is not None and found.leaks:
        yield leakage(found)


def _quarantine(dataset: ShardDataset) -> Section:
    shown = list(islice(dataset.version.stream_quarantined(), _MOST_QUARANTINED))
    rows = [(each.id, each.split, each.stage, each.reason) for each in shown]
    return section(
        "quarantine",
        "Quarantine",
        "version_quarantine.html",
        total=dataset.index.quarantined,
        shown=len(shown),
        table=table(
            "Images that no record could be made of", ("image", "split", "stage", "reason"), rows
        ),
    )


def _recipe(dataset: ShardDataset) -> Section:
    recipe = dataset.index.recipe
    return section(
        "recipe",
        "Recipe",
        "version_recipe.html",
        recipe=recipe,
        backbone=recipe.described_backbone,
        weights=dataset.index.weights,
        geometry=_GEOMETRIES[recipe.geometry.short_name],
        space=dataset.label_space,
        fields=table("Every choice", ("field", "value"), list(recipe_rows(recipe))),
    )


def recipe_rows(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the fields of a recipe as text, nested ones by dotted names."""
    yield from _rows("", recipe.to_json())


def _rows(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key in value:
            yield from _rows(f"{prefix}.{key}" if prefix else key, value[key])
    elif isinstance(value, list):
        yield prefix, ", ".join(str(each) for each in value)
    else:
        yield prefix, str(value)


def _use(dataset: ShardDataset) -> Section:
    index = dataset.index
    return section(
        "use",
        "How to load it",
        "version_use.html",
        split=next(iter(split_names(dataset)), "train"),
        is_tar=index.container == "webdataset",
        exact="probe" in index.numerics_class,
        made_on=[f"{key} {value}" for key, value in index.numerics_class.items()],
        version=index.versions.get("vocprep", "unknown"),
        terms=_terms(dataset),
    )


def _terms(dataset: ShardDataset) -> list[str]:
    """Return the terms of use that the version's card states, line by line."""
    lines = (line.removeprefix("- ").strip() for line in stated_terms(dataset).splitlines())
    return [re.sub(r"<(\S+)>$", r"\1", line) for line in lines if line]


def identity_section(index: DatasetIndex) -> Section:
    """Return the identities of a version."""
    rows = [(name, getattr(index, name), of) for name, of in IDENTITIES]
    return section("identity", "Identities", "version_identity.html", rows=rows)
