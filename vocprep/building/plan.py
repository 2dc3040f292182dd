"""The plan of a dataset version: everything decided about a build, nothing of it done."""

from __future__ import annotations

import platform
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self, TypeVar

from torch import Tensor

from vocprep.backbones import BACKBONES, NORMALISATIONS, Network, Normalisation, backbone_of
from vocprep.data_dir.image_ids import ImageIds
from vocprep.data_dir.layout import (
    JoinedSamples,
    SampleRef,
    SplitSamples,
    list_splits,
    read_split_ids,
)
from vocprep.data_dir.limits import Limit
from vocprep.data_dir.place import default_data_place
from vocprep.data_dir.splits import has_split
from vocprep.features.components import Components
from vocprep.features.libraries.kinds import describe_network
from vocprep.features.libraries.maps import NetworkChoice
from vocprep.features.weights import (
    OFFICIAL,
    WeightsOrigin,
    load_fitting_weights,
    official_source,
    tensor_digest,
    weights_label,
)
from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.labels.decode import LabelRule, label_rule
from vocprep.labels.label_space import LabelSpace, load_label_space
from vocprep.manifests import (
    DatasetManifest,
    SourceManifest,
    load_dataset,
    load_source,
)
from vocprep.options import BuildChoices, Layout, Part
from vocprep.recipe import LabelSpaceId, Precision, Recipe, SplitIds, default_precision, is_own_file
from vocprep.shards.containers import CONTAINERS
from vocprep.storage.places import Place, parse_place

SHARD_NAME = re.compile(
    rf".+-\d{{5}}-of-\d{{5}}({'|'.join(re.escape(each.suffix) for each in CONTAINERS.values())})"
)
"""Names that ``cut_shards`` gives."""
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """One shard that a build makes."""

    name: str
    split: str
    samples: Sequence[SampleRef]

    def image_ids(self) -> Iterator[str]:
        """Yield the ids of its images, in order."""
        return (sample.image_id for sample in self.samples)


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """Everything that a build does."""

    data_dir: Place
    recipe: Recipe
    label_space: LabelSpace
    layout: Layout
    weights: dict[str, Tensor] = field(compare=False)
    """Two plans of equal recipes have equal ones."""
    weights_label: str
    shards: tuple[ShardPlan, ...]
    label_rule: LabelRule = field(default_factory=LabelRule, compare=False)
    """How label files are decoded; the recipe has its digest."""
    weights_origin: WeightsOrigin | None = None
    """The file that the weights were read from."""
    components: Components | None = field(default=None, compare=False)
    """Principal components that embeddings are reduced to; None until a build has fitted them."""
    sources: tuple[SourceManifest, ...] = ()
    """Where images, labels and weights come from, for the dataset's card."""
    left_out: ImageIds = field(default_factory=lambda: ImageIds.of([]))
    """Ids of the dataset's own splits that ``--splits`` or a limit leave out."""
    unlabelled: int = 0
    """Images in the splits' folders that are no samples, since they have no label map."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the dataset's files, in words."""
        if not self.unlabelled:
            return ()
        if self.unlabelled == 1:
            return ("1 image without a label map is left out",)
        return (f"{self.unlabelled:,} images without a label map are left out",)

    def __repr__(self) -> str:
        return (
            f"BuildPlan({self.recipe.short_name}, recipe_id {self.recipe.recipe_id[:12]}…: "
            f"{len(self.samples):,} samples, {len(self.shards):,} {self.layout.format} shards, "
            f"weights {self.weights_label})"
        )

    def restricted(self, part: Part | None) -> Self:
        """Return the plan with the shards of one part only; itself where there is none."""
        return self if part is None else replace(self, shards=tuple(part.choose(self.shards)))

    def with_components(self, components: Components) -> Self:
        """Return the plan with principal components, which its recipe then names."""
        assert self.recipe.reduction is not None
        named = replace(self.recipe.reduction, matrix_sha256=components.sha256)
        return replace(self, recipe=replace(self.recipe, reduction=named), components=components)

    @cached_property
    def samples(self) -> Sequence[SampleRef]:
        """All samples, shard by shard, each made when it is asked for."""
        return JoinedSamples([shard.samples for shard in self.shards])


@dataclass(frozen=True, kw_only=True)
class BuildKey:
    """Everything that decides a build's bytes, except its source files."""

    plan: BuildPlan
    numerics_class: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, which ``differing_fields`` compares.

        The ids of the splits are left out: each shard's description holds its own.
        """
        recipe = self.plan.recipe.to_json()
        del recipe["splits"]
        return {
            **recipe,
            "container": self.plan.layout.format,
            "samples_per_shard": self.plan.layout.samples_per_shard,
            "numerics_class": self.numerics_class,
            "versions": versions(),
        }

    @property
    def digest(self) -> str:
        """Sha256 of the key's canonical JSON."""
        return sha256_hex(canonical_json(self.to_json()))


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide the bytes.

    Before zlib wrote the label maps of records, Pillow did, and its entry was not there.
    """
    packages = ("vocprep", "numpy", "torch", "pillow", "simplejpeg", "h5py")
    return {
        "python": platform.python_version(),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        **{package: version(package) for package in packages},
    }


def plan(
    dataset: str | Path | DatasetManifest,
    *,
    data_dir: str | Place | None = None,
    weights: str | Path | None = None,
    choices: BuildChoices | None = None,
    layout: Layout | None = None,
    allow_missing: bool = False,
) -> BuildPlan:
    """Decide everything about a build without doing any of it.

    ``dataset`` is a name, the path of a manifest, or a manifest; ``data_dir`` the folder of its
    files, by default ``$VOCPREP_DATA_DIR`` or ``./data``; ``weights`` a file or ``random:SEED``,
    by default the downloaded ones. Raises DataDirError when a file is missing that the build would
    read, unless ``allow_missing``: such samples are quarantined when they are read.
    """
    manifest = dataset if isinstance(dataset, DatasetManifest) else load_dataset(str(dataset))
    manifest = manifest.with_flags((choices or BuildChoices()).split_flags)
    data_dir = default_data_place() if data_dir is None else parse_place(data_dir)
    weights = None if weights is None else str(weights)
    choices, layout = choices or BuildChoices(), layout or Layout()
    label_space = load_label_space(
        manifest.schema_for(choices.schema), void_unknown=choices.void_unknown
    )
    by_split = _samples(manifest, data_dir, choices, allow_missing=allow_missing)
    rule = label_rule(manifest, data_dir, tuple(by_split))
    backbone = _choose_backbone(choices)
    state = load_fitting_weights(
        weights,
        data_dir,
        backbone.name,
        backbone.normalisation if _precision(choices) == "exact" else None,
        backbone.network,
    )
    digest = tensor_digest(state)
    label = weights_label(weights, digest, backbone.name, data_dir)
    recipe = _recipe(manifest, choices, label_space, by_split, backbone, digest)
    return BuildPlan(
        data_dir=data_dir,
        recipe=replace(recipe, label_rule=rule.rule_id),
        label_space=label_space,
        label_rule=rule,
        layout=layout,
        weights=state,
        weights_label=label,
        weights_origin=WeightsOrigin.of_build(weights, data_dir, backbone.name, digest),
        shards=tuple(_shard_plans(by_split, layout)),
        sources=_sources(manifest, backbone.name, label, data_dir),
        left_out=_left_out(manifest, data_dir, by_split),
        unlabelled=sum(samples.unlabelled for samples in by_split.values()),
    )


def _samples(
    dataset: DatasetManifest, data_dir: Place, choices: BuildChoices, *, allow_missing: bool
) -> dict[str, SplitSamples]:
    """Return the chosen samples of a dataset by split; DataDirError when a split has none."""
    splits = choices.splits or dataset.splits
    found = list_splits(
        data_dir,
        dataset,
        splits,
        Limit(total=choices.limit, per_split=choices.limit_per_split),
        allow_missing=allow_missing,
        skip_option="--max-failures",
    )
    return dict(sorted(found.items()))


def _recipe(
    dataset: DatasetManifest,
    choices: BuildChoices,
    label_space: LabelSpace,
    by_split: Mapping[str, SplitSamples],
    backbone: _ChosenBackbone,
    weights_sha256: str,
) -> Recipe:
    """Return the recipe of a user's choices; what they leave open follows from the backbone."""
    return Recipe(
        dataset=dataset.name,
        schema=LabelSpaceId(
            name=label_space.name,
            sha256=label_space.sha256,
            void_unknown=label_space.void_unknown,
        ),
        splits={
            split: SplitIds(count=len(members), ids_sha256=members.image_ids.sha256())
            for split, members in by_split.items()
        },
        backbone=backbone.name,
        network=backbone.network,
        weights_sha256=weights_sha256,
        windows=backbone.windows if choices.windows is None else choices.windows,
        layers=backbone.layers,
        geometry=choices.geometry,
        normalisation=backbone.normalisation,
        precision=_precision(choices),
        embedding_dtype=choices.embedding_dtype,
        views=choices.named_views,
        crops=choices.crops,
        reduction=choices.reduction,
    )


@dataclass(frozen=True, kw_only=True)
class _ChosenBackbone:
    """What follows from the choice of a backbone, of its layers and of its normalisation."""

    name: str
    """In the recipe."""
    network: Network | None
    layers: tuple[str, ...]
    windows: tuple[int, ...]
    """By default."""
    normalisation: Normalisation


def _choose_backbone(choices: BuildChoices) -> _ChosenBackbone:
    """Describe the chosen backbone; one that is not built in by its library."""
    name, network, normalisation = choices.backbone, None, None
    layers = choices.layers
    if name not in BACKBONES:
        found = describe_network(
            name,
            NetworkChoice(
                model=name if is_own_file(name) else name.partition(":")[2],
                layers=layers,
                cells=choices.cells,
                geometry=choices.geometry,
            ),
        )
        name, network, layers = found.name, found.network, found.layers
        normalisation = found.normalisation
    if choices.normalisation is not None:
        normalisation = NORMALISATIONS[choices.normalisation]
    known = backbone_of(name, network, normalisation or Normalisation())
    return _ChosenBackbone(
        name=name,
        network=network,
        layers=layers or known.default_layers,
        windows=known.default_windows,
        normalisation=normalisation or known.normalisation,
    )


def _precision(choices: BuildChoices) -> Precision:
    return choices.precision or default_precision(choices.backbone)


def _sources(
    dataset: DatasetManifest, backbone: str, weights_label: str, data_dir: Place
) -> tuple[SourceManifest, ...]:
    """Return the sources of a version; of its weights only when they are the official ones."""
    sources = [load_source(name) for name in dataset.sources if name not in BACKBONES]
    if weights_label.startswith(OFFICIAL):
        sources += filter(None, [official_source(backbone, data_dir)])
    return tuple(sources)


def _left_out(
    dataset: DatasetManifest, data_dir: Place, chosen: Mapping[str, SplitSamples]
) -> ImageIds:
    """Return the ids of the dataset's splits that are not among the samples."""
    left_out = []
    for split in dataset.splits:
        if not has_split(data_dir, dataset, split):
            continue
        image_ids = read_split_ids(data_dir, dataset, split)
        for samples in chosen.values():
            image_ids = image_ids.without(samples.image_ids)
        left_out.append(image_ids)
    return ImageIds.union(left_out)


def _shard_plans(by_split: Mapping[str, SplitSamples], layout: Layout) -> Iterator[ShardPlan]:
    for split, samples in by_split.items():
        for name, members in cut_shards(split, samples, layout):
            yield ShardPlan(name=name, split=split, samples=members)


def cut_shards(
    split: str, items: Sequence[Item], layout: Layout
) -> Iterator[tuple[str, Sequence[Item]]]:
    """Cut the samples or records of a split into shards: each one's file name and its items.

    >>> list(cut_shards("val", "abc", Layout(samples_per_shard=2)))
    [('val-00000-of-00002.h5', 'ab'), ('val-00001-of-00002.h5', 'c')]
    """
    size, suffix = layout.samples_per_shard, CONTAINERS[layout.format].suffix
    count = -(-len(items) // size)
    for number in range(count):
        name = f"{split}-{number:05d}-of-{count:05d}{suffix}"
        yield name, items[number * size : (number + 1) * size]
