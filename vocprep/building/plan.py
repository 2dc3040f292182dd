"""The plan of a dataset version: everything decided about a build, nothing of it done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from torch import Tensor

from vocprep.backbones import BACKBONES, NORMALISATIONS, Normalisation, NormalisationName
from vocprep.data_dir.layout import SampleRef, list_samples, read_split
from vocprep.errors import DataError, WeightsError
from vocprep.features.backbone import (
    RANDOM_PREFIX,
    load_strictly,
    load_weights,
    official_weights,
    tensor_digest,
)
from vocprep.features.image import jpeg_size, read_image_file
from vocprep.features.networks import MAKERS
from vocprep.geometry import PATCH, patch_grid
from vocprep.labels.label_space import LabelSpace, load_label_space
from vocprep.manifests import DatasetManifest, SourceManifest, load_dataset, load_source
from vocprep.options import BuildChoices, Layout
from vocprep.recipe import LabelSpaceId, Recipe, SplitIds, differing_fields
from vocprep.shards.containers import CONTAINERS

_UNTRAINED, _OFFICIAL = "untrained (", "official "


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """One shard to be made."""

    name: str
    split: str
    samples: tuple[SampleRef, ...]

    @property
    def image_ids(self) -> frozenset[str]:
        """The pictures that it is to hold."""
        return frozenset(sample.image_id for sample in self.samples)


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """All that a build is going to do."""

    data_dir: Path
    recipe: Recipe
    schema: LabelSpace
    layout: Layout
    weights: dict[str, Tensor]
    weights_label: str
    shards: tuple[ShardPlan, ...]
    sources: tuple[SourceManifest, ...] = ()
    """Where pictures, labels and weights come from, for the dataset's card."""
    left_out: frozenset[str] = frozenset()
    """Ids of the dataset's own splits that ``--splits`` or ``--limit`` leave out."""

    @property
    def samples(self) -> list[SampleRef]:
        """All samples, shard by shard."""
        return [sample for shard in self.shards for sample in shard.samples]


@dataclass(frozen=True, kw_only=True)
class AgainFrom:
    """Where a version's sources are, to make it again."""

    data_dir: Path
    dataset: str | None = None
    """Name or path of the dataset's manifest; the recipe's own name when None."""
    weights: str | None = None
    """As in ``load_weights``; untrained ones are known by their label."""
    weights_label: str = ""


def plan_build(
    dataset: DatasetManifest,
    data_dir: Path,
    weights: str | None,
    choices: BuildChoices,
    layout: Layout,
    *,
    may_lack: bool = False,
) -> BuildPlan:
    """Decide everything about a build without doing any of it.

    ``weights`` as in ``load_weights``. Every file that the build will read is seen to exist, unless
    some ``may_lack``: those become bad samples when they are read.
    """
    schema = load_label_space(dataset.schema_for(choices.schema), void_unknown=choices.void_unknown)
    splits = choices.splits or dataset.splits
    samples = list_samples(data_dir, dataset, splits, choices.limit, may_lack=may_lack)
    if not samples:
        raise DataError(f"{data_dir}: the split files of dataset {dataset.name} hold no image id")
    state = _fitting_weights(weights, data_dir, choices.backbone)
    digest = tensor_digest(state)
    label = _weights_label(weights, digest, choices.backbone)
    by_split = _by_split(samples)
    backbone = BACKBONES[choices.backbone]
    recipe = Recipe(
        dataset=dataset.name,
        schema=LabelSpaceId(
            name=schema.name, sha256=schema.sha256, void_unknown=schema.void_unknown
        ),
        splits={
            split: SplitIds.of([sample.image_id for sample in members])
            for split, members in by_split.items()
        },
        backbone=choices.backbone,
        weights_sha256=digest,
        windows=backbone.default_windows if choices.windows is None else choices.windows,
        layers=backbone.default_layers if choices.layers is None else choices.layers,
        geometry=choices.geometry,
        normalisation=NORMALISATIONS[choices.normalisation or backbone.normalisation],
        precision=choices.precision,
        embedding_dtype=choices.embedding_dtype,
        views=choices.views,
    )
    return BuildPlan(
        data_dir=data_dir,
        recipe=recipe,
        schema=schema,
        layout=layout,
        weights=state,
        weights_label=label,
        shards=tuple(
            shard for split, members in by_split.items() for shard in _cut(split, members, layout)
        ),
        sources=_sources(dataset, choices.backbone, label),
        left_out=_left_out(dataset, data_dir, samples),
    )


def _sources(
    dataset: DatasetManifest, backbone: str, weights_label: str
) -> tuple[SourceManifest, ...]:
    """Return where a version's parts come from; weights only when they are the official ones."""
    names = [name for name in dataset.sources if name not in BACKBONES]
    if weights_label.startswith(_OFFICIAL):
        names.append(backbone)
    return tuple(load_source(name) for name in names)


def _left_out(
    dataset: DatasetManifest, data_dir: Path, samples: Sequence[SampleRef]
) -> frozenset[str]:
    """Return the ids of the dataset's splits that are not among the samples."""
    chosen = {sample.image_id for sample in samples}
    present = [s for s in dataset.splits if (data_dir / dataset.split_files / f"{s}.txt").is_file()]
    return (
        frozenset(
            image_id for split in present for image_id in read_split(data_dir, dataset, split)
        )
        - chosen
    )


def _fitting_weights(weights: str | None, data_dir: Path, backbone: str) -> dict[str, Tensor]:
    """Load the weights and see that they fit the backbone, before any picture is read."""
    state = load_weights(weights, data_dir, backbone)
    try:
        load_strictly(MAKERS[backbone](), state)
    except WeightsError as error:
        where = weights or data_dir / official_weights(backbone).path
        raise WeightsError(f"{where}: {error} for {backbone}") from error
    return state


def _weights_label(weights: str | None, digest: str, backbone: str) -> str:
    published = official_weights(backbone).tensors_sha256
    if digest == published or (weights is None and published is None):
        return f"{_OFFICIAL}{BACKBONES[backbone].title}"
    is_random = weights is not None and weights.startswith(RANDOM_PREFIX)
    return f"{_UNTRAINED}{weights})" if is_random else f"own ({digest[:12]}…)"


def plan_again(recipe: Recipe, layout: Layout, sources: AgainFrom) -> BuildPlan:
    """Plan the very build that a recipe tells of; DataError naming what has changed since.

    Which pictures a ``--limit`` chose is not in a recipe, but how many of each split are.
    """
    choices = BuildChoices(
        splits=tuple(recipe.splits),
        limit=max(split.count for split in recipe.splits.values()),
        schema=recipe.schema.name,
        void_unknown=recipe.schema.void_unknown,
        geometry=recipe.geometry,
        backbone=recipe.backbone,
        windows=recipe.windows,
        layers=recipe.layers,
        normalisation=_named(recipe.normalisation),
        precision=recipe.precision,
        embedding_dtype=recipe.embedding_dtype,
        views=recipe.views,
    )
    weights = sources.weights
    if weights is None and sources.weights_label.startswith(_UNTRAINED):
        weights = sources.weights_label.removeprefix(_UNTRAINED).removesuffix(")")
    dataset = load_dataset(sources.dataset or recipe.dataset)
    plan = plan_build(dataset, sources.data_dir, weights, choices, layout, may_lack=True)
    differing = differing_fields(recipe.to_json(), plan.recipe.to_json())
    if differing:
        raise DataError(
            f"{sources.data_dir}: does not give the recipe {recipe.recipe_id[:12]}…, asked for and "
            f"found {'; '.join(differing)}; use the data, weights and vocprep that it was made with"
        )
    return plan


def _named(normalisation: Normalisation) -> NormalisationName:
    for name, constants in NORMALISATIONS.items():
        if constants == normalisation:
            return name
    raise DataError(
        f"normalisation {normalisation}: expected that of {' or '.join(NORMALISATIONS)}; this "
        "version of vocprep makes no other"
    )


def _by_split(samples: Sequence[SampleRef]) -> dict[str, list[SampleRef]]:
    ordered = sorted(samples, key=lambda sample: (sample.split, sample.image_id))
    return {split: list(group) for split, group in groupby(ordered, lambda sample: sample.split)}


def _cut(split: str, samples: Sequence[SampleRef], layout: Layout) -> Iterator[ShardPlan]:
    """Cut a split's samples, in id order, into shards."""
    count = -(-len(samples) // layout.samples_per_shard)
    suffix = CONTAINERS[layout.format].suffix
    for number in range(count):
        first = number * layout.samples_per_shard
        yield ShardPlan(
            name=f"{split}-{number:05d}-of-{count:05d}{suffix}",
            split=split,
            samples=tuple(samples[first : first + layout.samples_per_shard]),
        )


def count_patches(plan: BuildPlan) -> int:
    """Return how many patches the build will make; native geometry reads the pictures' headers."""
    geometry = plan.recipe.geometry
    total = 0
    for sample in plan.samples:
        size = (0, 0)
        if geometry.geometry == "native":
            size = jpeg_size(read_image_file(sample.image_path), str(sample.image_path))
        try:
            ny, nx = patch_grid(*size, geometry)
        except DataError as error:
            raise type(error)(f"{sample.image_path}: {error}") from error
        total += ny * nx
    return total * len(plan.recipe.views)


def estimated_bytes(patches: int, recipe: Recipe) -> int:
    """Return about how large the shards will be: exact but for the compressed label maps."""
    targets = 4 * 2 + 4 * 2 + 1 + 3 * 128
    label_map = PATCH * PATCH // 16  # pixels that real label maps take a byte for, as PNG
    return patches * (
        recipe.embedding_size * np.dtype(recipe.embedding_dtype).itemsize + targets + label_map
    )
