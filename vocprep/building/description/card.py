"""README.md of a dataset version: what it is, what it holds, how to load it, on which terms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vocprep.building.description.loading import FOLDER, how_to_load
from vocprep.building.plan import BuildPlan
from vocprep.features.components import COMPONENTS_FILE
from vocprep.recipe import Recipe
from vocprep.shards.index import DatasetIndex
from vocprep.shards.reader import ShardDataset
from vocprep.shards.version import read_listed

CARD_FILE = "README.md"
MOST_CLASSES = 10
"""Classes that the card lists, those with most pixels first."""
_TERMS = "## Terms of use"
_MOST_BYTES = 1 << 20
"""Bytes of a card: that of VOC 2012 has 2 kB."""


def dataset_card(index: DatasetIndex, plan: BuildPlan) -> str:
    """Return the card as Markdown."""
    recipe = index.recipe
    sections = (
        f"# {recipe.dataset}: {index.short_id}",
        _about(recipe, index.weights),
        _identities(index),
        "## What is inside\n\n" + _splits(index) + "\n" + _classes(index, plan),
        _quarantine(index),
        "## How to load it\n\n" + how_to_load(index),
        "## How to check it\n\n" + _checking(index),
        f"{_TERMS}\n\n" + _terms(plan),
    )
    return "\n".join(section for section in sections if section)


def stated_terms(dataset: ShardDataset) -> str:
    """Return the terms of use that the card of a finished version states; empty without a card."""
    if all(entry.name != CARD_FILE for entry in dataset.index.files):
        return ""
    card = read_listed(dataset.path, dataset.index, CARD_FILE, _MOST_BYTES)
    return card.decode(errors="replace").partition(_TERMS)[2].strip()


def _about(recipe: Recipe, weights: str) -> str:
    return (
        f"\nEmbeddings of {recipe.backbone} (frozen, {recipe.precision}, stored as "
        f"{recipe.embedding_dtype}; weights: {weights})\n"
        f"and top-4 targets for each 32×32 patch, under the label space `{recipe.schema.name}`,\n"
        f"geometry `{recipe.geometry.short_name}`, views "
        f"{', '.join(map(str, recipe.chosen_views))}. `dataset.json` holds the whole recipe.\n"
    )


def _identities(index: DatasetIndex) -> str:
    rows = (
        ("recipe_id", index.recipe_id, "the choices"),
        ("source_id", index.source_id, "the pictures and label maps it was made of"),
        ("content_id", index.content_id, "the records"),
        ("targets_id", index.targets_id, "the records without embeddings"),
    )
    return _table(("identity", "sha256", "of"), [(a, f"`{b}`", c) for a, b, c in rows])


def _splits(index: DatasetIndex) -> str:
    rows = [
        (
            split,
            f"{facts['records']:,}",
            f"{facts['patches']:,}",
            f"{100 * facts['void_pixels'] / max(facts['pixels'], 1):.1f}",
            f"{100 * facts['other_pixels'] / max(facts['pixels'], 1):.1f}",
        )
        for split, facts in index.statistics["splits"].items()
    ]
    return _table(("split", "records", "patches", "void %", "outside top 4 %"), rows)


def _classes(index: DatasetIndex, plan: BuildPlan) -> str:
    pixels: dict[str, int] = index.statistics["label_pixels"]
    total = max(sum(pixels.values()), 1)
    largest = sorted(pixels.items(), key=lambda item: (-item[1], int(item[0])))[:MOST_CLASSES]
    rows = [
        (
            label,
            plan.label_space.names.get(int(label), ""),
            f"{count:,}",
            f"{100 * count / total:.1f}",
        )
        for label, count in largest
    ]
    return (
        f"{len(pixels)} labels occur; those with most pixels, of all that are not void:\n\n"
        + _table(("id", "label", "pixels", "%"), rows)
    )


def _quarantine(index: DatasetIndex) -> str:
    if not index.quarantined:
        return ""
    return (
        f"**Missing pictures: {index.quarantined:,}.** No record could be made of them; "
        "`quarantine.jsonl` says which and why.\n"
    )


def _checking(index: DatasetIndex) -> str:
    return (
        "```\n"
        f"vocprep verify {FOLDER}                  # every file's digest\n"
        f"vocprep verify {FOLDER} --level content  # every record\n"
        "```\n\n" + _makers(index)
    )


def _makers(index: DatasetIndex) -> str:
    """Return what made the version; exact arithmetic names no machine, so that cards agree."""
    if "probe" in index.numerics_class:
        reduction = index.recipe.reduction
        is_fitted = reduction is not None and reduction.kind == "pca"
        given = f" with this `{COMPONENTS_FILE}`" if is_fitted else ""
        return (
            f"In exact arithmetic every machine makes the same records{given}, `content_id` "
            f"included. Made by vocprep {index.versions['vocprep']}.\n"
        )
    return (
        f"Made on {index.numerics_class.get('device', 'an unknown device')}, "
        f"{index.numerics_class.get('instruction_set', '')}, torch "
        f"{index.numerics_class.get('torch', '')}, vocprep {index.versions['vocprep']}.\n"
    )


def _terms(plan: BuildPlan) -> str:
    if not plan.sources:
        return "Those of the pictures and label maps that it was made of.\n"
    lines = [
        f"- {source.title}: {source.terms}" + (f" <{source.homepage}>" if source.homepage else "")
        for source in plan.sources
    ]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
