"""Small records, batches and datasets for the heads' tests; embeddings carry their labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vocprep.backbones import Layer, Normalisation
from vocprep.building.output.publish import write_dataset
from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.geometry import Geometry, Grid
from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.log import EpochMetrics, append_epoch
from vocprep.heads.runs.options import RENAMED, EvaluateOptions, TrainOptions
from vocprep.heads.runs.run import CONFIG_FILE, Run
from vocprep.heads.runs.state import save_weights
from vocprep.labels.label_space import load_label_space
from vocprep.labels.png import encode_png
from vocprep.labels.targets import make_targets
from vocprep.options import Layout
from vocprep.recipe import LabelSpaceId, Recipe, SplitIds
from vocprep.shards.reader import Batch, ShardDataset
from vocprep.shards.record import Record

SCHEMA = "voc21"
VOID = 255
CPU = EvaluateOptions(device="cpu", batch_size=2)
DIM = 256
ADDED_IN_6 = ("depth", "feedforward", "norm_first", "mask_head", "cells", "layers")
"""Fields of a ``run.json`` that format 6 added."""
ADDED_IN_7 = (
    *("mask_loss", "mask_dropout", "cell_context", "windows"),
    *("input_layer", "input_dropout", "ema", "label_smoothing", "crops"),
)
"""And format 7."""


def random_label_map(grid: Grid, rng: np.random.Generator, labels: int = 6) -> NDArray[np.uint16]:
    """Blocks of 8×8 pixels with random labels 0..labels−1 and some void."""
    blocks = rng.integers(0, labels, size=(grid[0] * 4, grid[1] * 4))
    blocks[rng.random(blocks.shape) < 0.1] = VOID
    return np.kron(blocks, np.ones((8, 8))).astype(np.uint16)


def make_record(
    image_id: str, split: str, label_map: NDArray[np.uint16], embeddings: NDArray[np.float16]
) -> Record:
    targets = make_targets(label_map, VOID)
    return Record(
        image_id=image_id,
        split=split,
        grid=(label_map.shape[0] // 32, label_map.shape[1] // 32),
        embeddings=embeddings,
        slot_labels=targets.slot_labels,
        slot_pixels=targets.slot_pixels,
        label_count=targets.label_count,
        slot_planes=targets.slot_planes,
        label_png=encode_png(label_map),
        image_sha256="00" * 32,
        label_sha256="11" * 32,
    )


def random_records(split: str, grids: Sequence[Grid], seed: int = 0) -> list[Record]:
    rng = np.random.default_rng([seed, sum(split.encode())])
    records = []
    for number, grid in enumerate(grids):
        embeddings = rng.normal(size=(grid[0] * grid[1], DIM)).astype(np.float16)
        label_map = random_label_map(grid, rng)
        records.append(make_record(f"{split}_{number:02d}", split, label_map, embeddings))
    return records


def banded_records(split: str, number: int) -> list[Record]:
    """Two patches an image, each of four bands of unequal height: the slots' order is plain."""
    rng = np.random.default_rng(0)
    records = []
    for image in range(number):
        bands = [np.repeat(rng.permutation(6)[:4], [15, 9, 5, 3]) for _ in range(2)]
        label_map = np.stack(bands, axis=1).repeat(32, axis=1).astype(np.uint16)
        label_map[0] = VOID
        embeddings = rng.normal(size=(2, DIM)).astype(np.float16)
        records.append(make_record(f"{split}_{image:02d}", split, label_map, embeddings))
    return records


def make_recipe(splits: Mapping[str, Sequence[Record]], **changes: object) -> Recipe:
    schema = load_label_space(SCHEMA)
    fields: dict[str, object] = {
        "dataset": "made",
        "schema": LabelSpaceId(name=SCHEMA, sha256=schema.sha256),
        "splits": {name: SplitIds.of([r.image_id for r in rs]) for name, rs in splits.items()},
        "backbone": "resnet32-cifar100",
        "weights_sha256": "ab" * 32,
        "geometry": Geometry(geometry="native"),
        "normalisation": Normalisation(),
    }
    return Recipe(**{**fields, **changes})  # type: ignore[arg-type]


def make_dataset(
    out: Path,
    splits: Mapping[str, Sequence[Record]],
    layout: Layout | None = None,
    **recipe_changes: object,
) -> ShardDataset:
    """Write real shards, of HDF5 and one a split by default, and open the folder."""
    write_dataset(out, make_recipe(splits, **recipe_changes), splits, layout)
    return ShardDataset.open(out)


def make_batch(records: Sequence[Record], patches: int | None = None) -> Batch:
    """Pad records to one batch by hand; ``patches`` pads further than the largest."""
    width = patches or max(len(record.embeddings) for record in records)
    batch = Batch(
        image_ids=tuple(record.image_id for record in records),
        grids=torch.tensor([record.grid for record in records]),
        padding=torch.ones(len(records), width, dtype=torch.bool),
        has_padding=any(len(record.embeddings) < width for record in records),
        embeddings=torch.zeros(len(records), width, records[0].embeddings.shape[1]),
        slot_labels=torch.full((len(records), width, 4), -1),
        slot_pixels=torch.zeros(len(records), width, 4, dtype=torch.int64),
        slot_planes=torch.zeros(len(records), width, 3, 128, dtype=torch.uint8),
        label_maps=tuple(record.label_map for record in records),
    )
    batch.slot_planes[:, :, [0, 2]] = 255  # state 5: void
    for row, record in enumerate(records):
        own = slice(0, len(record.embeddings))
        batch.padding[row, own] = False
        batch.embeddings[row, own] = torch.from_numpy(record.embeddings.astype(np.float32))
        batch.slot_labels[row, own] = torch.from_numpy(record.slot_labels.astype(np.int64))
        batch.slot_pixels[row, own] = torch.from_numpy(record.slot_pixels.astype(np.int64))
        batch.slot_planes[row, own] = torch.from_numpy(record.slot_planes)
    return batch


def as_older_run(run_dir: Path, version: int, changes: Callable[[dict[str, Any]], None]) -> str:
    """Rewrite a run's files in the names of an older format and return its run_id.

    ``changes`` edits what else that format has otherwise in its ``run.json``.
    """
    value = json.loads((run_dir / "run.json").read_text())
    value["run_format_version"] = version
    if version < 6:
        for name in ADDED_IN_6:
            value["heads"].pop(name, None)
            value["options"].pop(name, None)
    if version < 7:
        value.pop("class_pixels", None)
        for name in ADDED_IN_7:
            value["heads"].pop(name, None)
            value["options"].pop(name, None)
    if version < 5:
        del value["options"]["lanes"]
    if version < 4:
        _as_before_presets(run_dir, value)
    changes(value)
    (run_dir / "run.json").write_text(json.dumps(value))
    run_id = sha256_hex(canonical_json(value))
    for path in run_dir.glob("*.safetensors"):
        with safe_open(path, framework="pt") as stream:
            epoch = json.loads(stream.metadata()["vocprep"])["epoch"]
        about = json.dumps({"run_id": run_id, "epoch": epoch})
        save_file(load_file(path), path, metadata={"vocprep": about})
    return run_id


def _as_before_presets(run_dir: Path, value: dict[str, Any]) -> None:
    for part in (value["heads"], value["options"]):
        for old, new in RENAMED.items():
            if new in part:
                part[old] = part.pop(new)
    (run_dir / "options.toml").rename(run_dir / "recipe.toml")
    history = run_dir / "metrics.jsonl"
    if history.exists():
        lines = [json.loads(line) for line in history.read_text().splitlines()]
        known = [{k: v for k, v in line.items() if not k.startswith("train_")} for line in lines]
        text = "".join(f"{json.dumps(line)}\n" for line in known)
        history.write_text(text.replace("class_loss", "category_loss"))


def run_for(dataset: ShardDataset, model: TFDetHeads | None = None) -> Run:
    labels = load_label_space("voc21")
    heads = HeadsConfig(outputs=labels.outputs)
    config = RunConfig(
        heads=heads,
        options=TrainOptions(epochs=7),
        labels=labels,
        recipe=dataset.index.recipe,
        content_id=dataset.index.content_id,
        source_id=dataset.index.source_id,
    )
    torch.manual_seed(0)
    model = model or TFDetHeads.from_config(heads)
    return Run(path=Path("runs/mine"), config=config, model=model.eval(), epoch=7)


MASK_HEADS: dict[str, dict[str, Any]] = {
    "slots": {},
    "mixed slots": {"mask_loss": "mixed"},
    "cells": {"mask_head": "cells", "cells": 2, "layers": (Layer(channels=64, cells=2),)},
    "cells in context": {
        **{"mask_head": "cells", "cells": 4, "cell_context": 2, "windows": (32, 64)},
        "layers": (Layer(channels=32, cells=2), Layer(channels=32, cells=2)),
    },
    "none": {"mask_head": "none"},
}
"""Every mask head as fields of ``HeadsConfig``, for embeddings of the ResNet-32."""


TRAINED_HEADS: dict[str, dict[str, Any]] = {
    "slots": {"encoder": "none", "slots": "area", "mask_loss": "all"},
    "mixed slots": {"depth": 1, "feedforward": 64, "slots": "predicted", "mask_dropout": 0.5},
    "cells": {
        **{"mask_head": "cells", "cell_context": 2, "input_layer": True, "ema": 0.9},
        **{"depth": 1, "feedforward": 64, "norm_first": True, "input_dropout": 0.2},
    },
    "spiking cells": {"encoder": "spikformer", "mask_head": "cells", "ema": 0.9},
    "none": {"encoder": "none", "mask_head": "none"},
}
"""Heads of every kind as small ones are trained: fields of ``TrainOptions``."""


def cell_heads(outputs: int = 21, **changes: object) -> HeadsConfig:
    """Heads of 2×2 cells with one small layer, for embeddings of the ResNet-32."""
    fields: dict[str, object] = {
        **{"depth": 1, "feedforward": 64, "norm_first": True},
        **{"mask_head": "cells", "cells": 2, "layers": (Layer(channels=64, cells=2),)},
        **{"cell_context": 1},
    }
    return HeadsConfig(outputs=outputs, **{**fields, **changes})  # type: ignore[arg-type]


def always_says(label: int) -> TFDetHeads:
    """Heads that put one label on every pixel of every patch."""
    model = TFDetHeads(outputs=21)
    with torch.no_grad():
        for parameter in (*model.cat.parameters(), *model.reg[4].parameters()):
            parameter.zero_()
        model.cat.bias[:4] = torch.tensor([3.0, 2.0, 2.5, 2.25])
        model.cat.bias[label] = 5.0
        model.reg[4].bias[::4] = 5.0
    return model


def make_two_splits(folder: Path) -> ShardDataset:
    """Make a version of three records to train on and one to validate on."""
    splits = {
        "train": random_records("train", [(1, 2), (2, 1), (1, 1)]),
        "val": random_records("val", [(1, 2)]),
    }
    return make_dataset(folder, splits)


def save_run(run: Run, path: Path, epochs: Sequence[EpochMetrics] = ()) -> Path:
    """Write a run's folder as a training leaves it, without its checkpoint; return the folder."""
    path.mkdir(parents=True)
    (path / CONFIG_FILE).write_text(json.dumps(run.config.to_json()))
    save_weights(path, run.config, run.model, run.epoch)
    for metrics in epochs:
        append_epoch(path, metrics)
    return path


def epoch_metrics(epoch: int, loss: float, val_loss: float | None = None) -> EpochMetrics:
    """Return the metrics of an epoch, validated where there is a validation loss."""
    validated = val_loss is not None
    return EpochMetrics(
        epoch=epoch,
        lr=1e-3,
        loss=loss,
        class_loss=loss / 2,
        mask_loss=loss / 2,
        images_per_second=50.0,
        seconds=1.0,
        device="cpu",
        precision="fp32",
        val_loss=val_loss,
        val_miou=epoch / 100 if validated else None,
        val_pixel_accuracy=epoch / 50 if validated else None,
    )
