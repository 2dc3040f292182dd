"""Building: the plan of a dataset version, and the work of one shard.

The engines decide where and in which order shards are made; what a shard holds is decided here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vocprep.errors import DataError, LabelDecodeError, WeightsError
from vocprep.features.backbone import (
    EMBEDDING_DIM,
    NAME,
    OFFICIAL_TENSORS_SHA256,
    WEIGHTS_PATH,
    cifar100_resnet32,
    load_strictly,
    load_weights,
    tensor_digest,
)
from vocprep.features.embed import Embedder
from vocprep.features.image import decode_jpeg, jpeg_size, read_image_file
from vocprep.files import sha256_hex
from vocprep.geometry import (
    PATCH,
    Grid,
    mirror,
    patch_grid,
    place_image,
    place_labels,
    split_patches,
)
from vocprep.labels.decode import decode_label_map, read_label_file
from vocprep.labels.png import encode_png
from vocprep.labels.schema import Schema, load_schema
from vocprep.labels.statistics import label_areas
from vocprep.labels.targets import STATE_OTHER, Targets, make_targets, unpack_states
from vocprep.recipe import (
    Choices,
    EmbeddingDtype,
    Layout,
    Recipe,
    SchemaIdentity,
    SplitIds,
    View,
)
from vocprep.shards.accounts import Accounts
from vocprep.shards.index import SampleEntry, ShardEntry, container_of
from vocprep.shards.record import FLIP_SUFFIX, Record
from vocprep.sources.manifest import DatasetManifest
from vocprep.sources.tree import SampleRef, list_samples


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """One shard to be made."""

    name: str
    split: str
    samples: tuple[SampleRef, ...]


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """All that a build is going to do."""

    recipe: Recipe
    schema: Schema
    layout: Layout
    weights: dict[str, Tensor]
    weights_label: str
    shards: tuple[ShardPlan, ...]

    @property
    def samples(self) -> list[SampleRef]:
        """All samples, shard by shard."""
        return [sample for shard in self.shards for sample in shard.samples]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One view of one picture, ready to be embedded."""

    sample: SampleRef
    view: View
    grid: Grid
    patches: NDArray[np.uint8]
    """[P, 32, 32, 3]"""
    targets: Targets
    label_png: bytes
    image_sha256: str
    label_sha256: str


@dataclass(frozen=True, kw_only=True)
class BuiltShard:
    """What the index says of a finished shard."""

    entry: ShardEntry
    samples: tuple[SampleEntry, ...]
    statistics: Counter[str]
    label_pixels: Counter[int]


def plan_build(
    dataset: DatasetManifest, data_dir: Path, weights: str | None, choices: Choices, layout: Layout
) -> BuildPlan:
    """Decide everything about a build without doing any of it.

    ``weights`` as in ``load_weights``. Every file that the build will read is seen to exist.
    """
    schema = load_schema(dataset.schema_for(choices.schema), void_unknown=choices.void_unknown)
    samples = list_samples(data_dir, dataset, choices.splits or dataset.splits, choices.limit)
    if not samples:
        raise DataError(f"{data_dir}: the split files of dataset {dataset.name} hold no image id")
    state = _fitting_weights(weights, data_dir)
    digest = tensor_digest(state)
    by_split = _by_split(samples)
    recipe = Recipe(
        dataset=dataset.name,
        schema=SchemaIdentity(
            name=schema.name, sha256=schema.sha256, void_unknown=schema.void_unknown
        ),
        splits={
            split: SplitIds.of([sample.image_id for sample in members])
            for split, members in by_split.items()
        },
        backbone=NAME,
        weights_sha256=digest,
        geometry=choices.geometry,
        precision=choices.precision,
        embedding_dtype=choices.embedding_dtype,
        views=choices.views,
    )
    return BuildPlan(
        recipe=recipe,
        schema=schema,
        layout=layout,
        weights=state,
        weights_label=_weights_label(weights, digest),
        shards=tuple(
            shard for split, members in by_split.items() for shard in _cut(split, members, layout)
        ),
    )


def _fitting_weights(weights: str | None, data_dir: Path) -> dict[str, Tensor]:
    """Load the weights and see that they fit the backbone, before any picture is read."""
    state = load_weights(weights, data_dir)
    try:
        load_strictly(cifar100_resnet32(), state)
    except WeightsError as error:
        raise WeightsError(f"{weights or data_dir / WEIGHTS_PATH}: {error}") from error
    return state


def _weights_label(weights: str | None, digest: str) -> str:
    if digest == OFFICIAL_TENSORS_SHA256:
        return "official CIFAR-100 ResNet-32"
    return f"untrained ({weights})" if weights and ":" in weights else f"own ({digest[:12]}…)"


def _by_split(samples: Sequence[SampleRef]) -> dict[str, list[SampleRef]]:
    ordered = sorted(samples, key=lambda sample: (sample.split, sample.image_id))
    return {split: list(group) for split, group in groupby(ordered, lambda sample: sample.split)}


def _cut(split: str, samples: Sequence[SampleRef], layout: Layout) -> Iterator[ShardPlan]:
    """Cut a split's samples, in id order, into shards."""
    count = -(-len(samples) // layout.samples_per_shard)
    suffix = container_of(layout.format).SUFFIX
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
        EMBEDDING_DIM * np.dtype(recipe.embedding_dtype).itemsize + targets + label_map
    )


def prepare_sample(
    sample: SampleRef, recipe: Recipe, schema: Schema, accounts: Accounts
) -> list[Prepared]:
    """Read, decode and place one sample: one entry a view.

    Raises ImageDecodeError or LabelDecodeError naming the file.
    """
    with accounts.stage("read"):
        image_bytes = read_image_file(sample.image_path)
        label_bytes = read_label_file(sample.label_path)
        digests = sha256_hex(image_bytes), sha256_hex(label_bytes)
    with accounts.stage("decode"):
        image = decode_jpeg(image_bytes, str(sample.image_path))
        raw = decode_label_map(label_bytes, sample.label_path)
        label_map = schema.apply(raw, str(sample.label_path))
    if raw.shape != image.shape[:2]:
        raise LabelDecodeError(
            f"{sample.label_path}: label map of {raw.shape[1]}×{raw.shape[0]} pixels: expected "
            f"{image.shape[1]}×{image.shape[0]} as its picture {sample.image_path}"
        )
    with accounts.stage("geometry"):
        try:
            placed = place_image(image, recipe.geometry)
        except DataError as error:
            raise type(error)(f"{sample.image_path}: {error}") from error
        labels = place_labels(label_map, recipe.geometry, schema.void)
    with accounts.stage("targets"):
        return [
            _prepare_view(sample, view, placed, labels, schema.void, digests)
            for view in recipe.views
        ]


def _prepare_view(
    sample: SampleRef,
    view: View,
    image: NDArray[np.uint8],
    labels: NDArray[np.uint16],
    void: int,
    digests: tuple[str, str],
) -> Prepared:
    if view == "flip":
        image, labels = mirror(image), mirror(labels)
    return Prepared(
        sample=sample,
        view=view,
        grid=(labels.shape[0] // PATCH, labels.shape[1] // PATCH),
        patches=split_patches(image),
        targets=make_targets(labels, void),
        label_png=encode_png(labels),
        image_sha256=digests[0],
        label_sha256=digests[1],
    )


def embed_group(
    group: Sequence[Prepared], embedder: Embedder, dtype: EmbeddingDtype, accounts: Accounts
) -> list[Record]:
    """Turn prepared views into records, embedding the patches of all of them together."""
    with accounts.stage("embed"):
        embeddings = embedder.embed(np.concatenate([item.patches for item in group]))
    ends = np.cumsum([len(item.patches) for item in group])
    return [
        Record(
            image_id=item.sample.image_id + (FLIP_SUFFIX if item.view == "flip" else ""),
            split=item.sample.split,
            grid=item.grid,
            embeddings=rows.astype(dtype),
            slot_labels=item.targets.slot_labels,
            slot_pixels=item.targets.slot_pixels,
            label_count=item.targets.label_count,
            slot_planes=item.targets.slot_planes,
            label_png=item.label_png,
            image_sha256=item.image_sha256,
            label_sha256=item.label_sha256,
        )
        for item, rows in zip(group, np.split(embeddings, ends[:-1]), strict=True)
    ]


def finish_shard(
    shard: ShardPlan, records: Sequence[Record], layout: Layout
) -> tuple[bytes, BuiltShard]:
    """Return a shard's bytes, and what the index says of it."""
    data = container_of(layout.format).encode(records)
    label_pixels: Counter[int] = Counter()
    for record in records:
        label_pixels.update(label_areas(record.label_map))
    built = BuiltShard(
        entry=ShardEntry(
            name=shard.name,
            split=shard.split,
            records=len(records),
            patches=sum(len(record.embeddings) for record in records),
            bytes=len(data),
            sha256=sha256_hex(data),
        ),
        samples=tuple(
            SampleEntry.of(record, shard.name, row) for row, record in enumerate(records)
        ),
        statistics=_statistics(records),
        label_pixels=label_pixels,
    )
    return data, built


def _statistics(records: Sequence[Record]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for record in records:
        states = np.bincount(unpack_states(record.slot_planes).ravel(), minlength=6)
        counts.update(
            records=1,
            patches=len(record.embeddings),
            pixels=int(states.sum()),
            void_pixels=int(states[-1]),
            other_pixels=int(states[STATE_OTHER]),
            patches_without_label=int((record.label_count == 0).sum()),
            patches_with_more_labels=int((record.label_count > 4).sum()),
        )
    return counts


def dataset_statistics(shards: Sequence[BuiltShard], void: int) -> dict[str, Any]:
    """Return dataset.json's statistics: counts a split, and the pixels of each label."""
    splits: dict[str, Counter[str]] = {}
    label_pixels: Counter[int] = Counter()
    for shard in shards:
        splits.setdefault(shard.entry.split, Counter()).update(shard.statistics)
        label_pixels.update(shard.label_pixels)
    label_pixels.pop(void, None)
    return {
        "splits": {split: dict(counts) for split, counts in sorted(splits.items())},
        "label_pixels": {str(label): label_pixels[label] for label in sorted(label_pixels)},
    }
