"""Building small dataset versions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.building.local import build_plan
from vocprep.building.output.publish import write_dataset
from vocprep.building.plan import BuildPlan, plan
from vocprep.labels.label_space import LabelSpace, load_label_space
from vocprep.options import BuildChoices, BuildOptions, Layout, MaxFailures
from vocprep.recipe import LabelSpaceId, Recipe, SplitIds
from vocprep.shards.index import DatasetIndex, read_index, write_index
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record

WEIGHTS = "random:0"
ENGINE = BuildOptions(device="cpu", workers=1)
TWO_VIEWS = BuildChoices(limit_per_split=2, views=("identity", "flip"), precision="fp32")
ONE_PER_SHARD = Layout(samples_per_shard=1)
TWO_PER_SHARD = Layout(samples_per_shard=2)
VOC = Path("VOCdevkit/VOC2010")
JPEGS = VOC / "JPEGImages"


@dataclass(frozen=True)
class Built:
    """A finished dataset version with the plan that it came from."""

    plan: BuildPlan
    path: Path
    index: DatasetIndex

    @property
    def dataset(self) -> ShardDataset:
        return ShardDataset.open(self.path)

    @property
    def records(self) -> dict[str, Record]:
        """All records by id, in the order of the shards."""
        dataset = self.dataset
        return {
            record.image_id: record
            for shard in self.index.shards
            for record in dataset.read_shard(shard.name, all_views=True)
        }


def make_plan(
    tree: Path, choices: BuildChoices | None = None, layout: Layout | None = None
) -> BuildPlan:
    return plan("pascal-context", data_dir=tree, weights=WEIGHTS, choices=choices, layout=layout)


def build(
    tree: Path,
    out: Path,
    choices: BuildChoices | None = None,
    layout: Layout | None = None,
    *,
    max_failures: int = 0,
    reuse: Path | None = None,
) -> Built:
    made = make_plan(tree, choices, layout)
    options = replace(ENGINE, max_failures=MaxFailures(count=max_failures), reuse=reuse)
    return Built(made, out, build_plan(made, out, options).index)


def version_files(folder: Path) -> dict[str, bytes]:
    """The files of a version by name: of what it was pushed from and is pulled to, byte by byte."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def first_jpeg(tree: Path) -> Path:
    """The first image of a tree in the layout of VOC 2010."""
    return sorted((tree / JPEGS).iterdir())[0]


def write_records(
    out: Path, records: Sequence[Record], layout: Layout | None = None, **recipe: Any
) -> Path:
    """Write made-up records as a version of one split."""
    return write_splits(out, {"train": records}, layout, **recipe)


def write_splits(
    out: Path,
    splits: Mapping[str, Sequence[Record]],
    layout: Layout | None = None,
    space: LabelSpace | None = None,
    **recipe: Any,
) -> Path:
    """Write made-up records as a version; their label space is context460 unless one is given."""
    schema = space or load_label_space("context460")
    fields: dict[str, Any] = {
        "dataset": "made",
        "schema": LabelSpaceId(name=schema.name, sha256=schema.sha256),
        "splits": {
            split: SplitIds.of([record.image_id for record in records])
            for split, records in splits.items()
        },
        "backbone": "resnet32-cifar100",
        "weights_sha256": "00" * 32,
    }
    write_dataset(out, Recipe(**{**fields, **recipe}), splits, layout, label_space=space)
    return out


def change_embeddings(
    path: Path, change: Callable[[NDArray[np.floating]], object], **index: Any
) -> None:
    """Write a version again with other embeddings, as whoever made it would have."""
    dataset = ShardDataset.open(path)
    splits: dict[str, list[Record]] = {}
    for shard in dataset.index.shards:
        for record in dataset.read_shard(shard.name, all_views=True):
            change(record.embeddings)
            splits.setdefault(shard.split, []).append(record)
    old = dataset.index
    layout = Layout(format=old.container, samples_per_shard=old.samples_per_shard)
    shutil.rmtree(path)
    write_dataset(path, old.recipe, splits, layout)
    kept = {name: getattr(old, name) for name in ("numerics_class", "versions", "weights")}
    write_index(path, read_index(path).model_copy(update={**kept, **index}).sealed())
