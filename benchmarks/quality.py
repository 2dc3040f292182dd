"""What heads are worth on photographs: the shipped presets beside what they stand on.

One row is one way to train: another preset, encoder, backbone, normalisation or embedding, the rest
as in ``default``. Heads are scored on the val split after their last epoch, never the best one;
a row is the mean over seeds. Every row sees each training picture equally often: where it learns
from mirrored views too, each view counts. So all rows take the same number of steps, but for the
last, smaller batches of an epoch.

What is in ``--work`` already (shards, finished and interrupted runs) is taken from there. Without
real pictures it runs on generated ones, whose scores mean nothing.

Run: python benchmarks/quality.py [--passes 20] [--batch-size 32] [--seeds 2] [--work FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from _pictures import SCHEMA, find_photographs, weights_at_hand
from _report import Cell, Column, Report, Table, command_line

import vocprep
from vocprep.errors import VocprepError
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.presets import load_options
from vocprep.heads.scoring.evaluate import evaluate
from vocprep.heads.scoring.measures.counters import MaskQuality
from vocprep.heads.scoring.measures.oracles import RowKind
from vocprep.heads.scoring.scores import RunScores
from vocprep.heads.training.train import train
from vocprep.options import BuildChoices
from vocprep.recipe import View
from vocprep.shards.reader import ShardDataset

VIEWS: tuple[View, ...] = ("identity", "flip")
UNTRAINED = "random:0"
GENERATED = 48
"""Pictures that are drawn where there are no real ones."""


@dataclass(frozen=True)
class Embeddings:
    """Shards to learn from, as they differ from the usual ones."""

    choices: BuildChoices
    weights: str | None = "cifar100_resnet32.pth"
    """File of the backbone's weights; untrained ones when None."""


@dataclass(frozen=True)
class Variant:
    """One row: a preset on some shards, with settings laid over it."""

    title: str
    preset: str = "default"
    shards: str = "base"
    settings: tuple[str, ...] = ()


EMBEDDINGS = {
    "base": Embeddings(BuildChoices(views=VIEWS)),
    "wide": Embeddings(
        BuildChoices(views=VIEWS, windows=(32, 64, 128), layers=("layer3", "layer2")),
    ),
    "fp32": Embeddings(BuildChoices(views=VIEWS, precision="fp32")),
    "wide-fp32": Embeddings(
        BuildChoices(
            views=VIEWS, windows=(32, 64, 128), layers=("layer3", "layer2"), precision="fp32"
        ),
    ),
    "random": Embeddings(BuildChoices(views=VIEWS), weights=None),
    "imagenet": Embeddings(BuildChoices(views=VIEWS, normalisation="imagenet")),
    "efficientnet": Embeddings(
        BuildChoices(
            views=VIEWS,
            backbone="timm:tf_efficientnet_lite0",
            layers=("final", "blocks.4"),
            cells=2,
        ),
        weights="tf_efficientnet_lite0.safetensors",
    ),
}
VARIANTS = {
    "default": Variant("default"),
    "seed": Variant("seed", preset="seed"),
    "none": Variant("default, encoder none", settings=("encoder=none",)),
    "spikformer": Variant("default, encoder spikformer", settings=("encoder=spikformer",)),
    "random": Variant("default, untrained backbone", shards="random"),
    "imagenet": Variant("default, ImageNet normalisation", shards="imagenet"),
    "wide": Variant("wide: windows 32, 64, 128, layer3 + layer2", preset="wide", shards="wide"),
    "fp32": Variant("default, fp32", shards="fp32"),
    "wide-fp32": Variant("wide, fp32", preset="wide", shards="wide-fp32"),
    "cells": Variant("cells", preset="cells"),
    "linear": Variant("linear", preset="linear"),
    "wide-cells": Variant("cells, embeddings of wide", preset="cells", shards="wide"),
    "efficientnet-default": Variant("default, EfficientNet-Lite0", shards="efficientnet"),
    "efficientnet-linear": Variant(
        "linear, EfficientNet-Lite0", preset="linear", shards="efficientnet"
    ),
    "efficientnet-cells": Variant(
        "cells, EfficientNet-Lite0", preset="cells", shards="efficientnet"
    ),
}
ASKED = (
    ("default", "seed", 2.0),
    ("default", "random", 8.0),
    ("wide", "default", 5.0),
    ("default", "fp32", -0.5),
    ("wide", "wide-fp32", -0.5),
)
"""The first row's lead over the second that is asked for, in points of mIoU ≥1 %."""
LEAST = (("efficientnet-linear", 58.0), ("efficientnet-cells", 66.0))
"""The mIoU ≥1 % that is asked of rows."""

MASK_IOU: dict[RowKind, Callable[[MaskQuality], float]] = {
    RowKind.MODEL: lambda masks: masks.iou,
    RowKind.PATCH_MAJORITY: lambda masks: masks.iou_of_largest,
}
"""The kinds of rows that have a mask IoU."""

COLUMNS = (
    Column("name", ""),
    Column("miou_frequent", "mIoU ≥1 %", ".1f"),
    Column("lowest", "lowest", ".1f"),
    Column("highest", "highest", ".1f"),
    Column("miou_present", "mIoU present", ".1f"),
    Column("pixel_accuracy", "pixel acc.", ".1f"),
    Column("patch_top1", "top-1", ".1f"),
    Column("mask_iou", "mask IoU", ".1f"),
    Column("parameters", "parameters", ",d"),
    Column("epochs", "epochs", "d"),
)
LEADS = (
    Column("name", ""),
    Column("asked", "at least", ".1f"),
    Column("measured", "measured", ".1f"),
)


@dataclass(frozen=True)
class Bench:
    """What all rows share."""

    work: Path
    images: int | None
    """Pictures of each split, all when None."""
    passes: int
    """How often each training picture is seen, mirrored or not."""
    batch_size: int
    seeds: int

    def options(self, variant: Variant, seed: int) -> TrainOptions:
        """Return how a row is trained: as many steps as every other one."""
        views = len(VIEWS) if load_options(variant.preset, variant.settings).flip else 1
        epochs = self.passes // views
        settings = (*variant.settings, f"batch_size={self.batch_size}", f"seed={seed}")
        length = {"epochs": epochs, "validate_every": epochs, "resume": True}
        return load_options(variant.preset, settings, length)


def build(bench: Bench, name: str) -> ShardDataset:
    """Return the shards of that name, built where they are not there yet."""
    wanted, out = EMBEDDINGS[name], bench.work / "shards" / name
    found = find_photographs(bench.work, bench.images or GENERATED)
    weights = UNTRAINED if wanted.weights is None else weights_at_hand(wanted.weights)
    choices = replace(wanted.choices, schema=SCHEMA, limit_per_split=bench.images)
    vocprep.build(found.dataset, out=out, data_dir=found.data_dir, weights=weights, choices=choices)
    return ShardDataset.open(out)


def score(bench: Bench, name: str, shards: ShardDataset) -> tuple[list[RunScores], int]:
    """Train a row once per seed, where that is still to be done; score the runs, count parameters.

    Parameters are those that are trained.
    """
    scores: list[RunScores] = []
    for seed in range(bench.seeds):
        run_dir = bench.work / "runs" / f"{name}-{seed}"
        trained = train(shards, run_dir, bench.options(VARIANTS[name], seed))
        scores += evaluate(run_dir, shards, "val").runs
    return scores, trained.parameters


def fill_row(
    title: str,
    scores: Sequence[RunScores],
    row: RowKind = RowKind.MODEL,
    parameters: int | None = None,
) -> dict[str, Cell]:
    """Return a line of the table from the row of that kind in each run's scores."""
    rows = [run_scores.row(row) for run_scores in scores]
    frequent = [100 * found.miou_frequent for found in rows]
    own = row is RowKind.MODEL
    mask_iou = MASK_IOU.get(row)
    return {
        "name": title,
        "miou_frequent": mean(frequent),
        "lowest": min(frequent) if own else None,
        "highest": max(frequent) if own else None,
        "miou_present": mean(100 * found.miou_present for found in rows),
        "pixel_accuracy": mean(100 * found.pixel_accuracy for found in rows),
        "patch_top1": mean(100 * found.patch_top1 for found in rows),
        "mask_iou": mean(100 * mask_iou(s.masks) for s in scores) if mask_iou else None,
        "parameters": parameters,
        "epochs": scores[0].epoch if own else None,
    }


def compare_least(rows: dict[str, dict[str, Cell]]) -> Table:
    """Return what is asked of rows by themselves beside what was measured."""
    lines: list[dict[str, Cell]] = [
        {
            "name": VARIANTS[name].title,
            "asked": asked,
            "measured": float(rows[name]["miou_frequent"] or 0),
        }
        for name, asked in LEAST
        if name in rows
    ]
    return Table("mIoU ≥1 %", LEADS, lines)


def compare(rows: dict[str, dict[str, Cell]]) -> Table:
    """Return what is asked of the rows' order beside what was measured."""
    lines: list[dict[str, Cell]] = []
    for better, worse, asked in ASKED:
        if better in rows and worse in rows:
            one, other = (float(rows[name]["miou_frequent"] or 0) for name in (better, worse))
            title = f"{VARIANTS[better].title}, above: {VARIANTS[worse].title}"
            lines.append({"name": title, "asked": asked, "measured": one - other})
    return Table("points of mIoU ≥1 %", LEADS, lines)


def main() -> None:
    """Build, train and score all rows, and print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, help="of each split; all when not given")
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--work", type=Path, help="folder that keeps shards and runs")
    arguments = parser.parse_args()
    if arguments.passes < 1 or arguments.passes % len(VIEWS):
        parser.error(f"--passes {arguments.passes}: expected a multiple of {len(VIEWS)}, the views")
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(
            work=arguments.work or Path(name),
            images=arguments.images,
            passes=arguments.passes,
            batch_size=arguments.batch_size,
            seeds=arguments.seeds,
        )
        try:
            measure(bench, arguments.rows, arguments.json)
        except VocprepError as error:
            raise SystemExit(f"error: {error}") from error


def measure(bench: Bench, names: Sequence[str], json: Path | None) -> None:
    """Print the tables of the rows of these names, and write them."""
    sizes = {"passes": bench.passes, "batch_size": bench.batch_size, "seeds": bench.seeds}
    base = build(bench, "base")
    images = {split: base.count(split) for split in ("train", "val")}
    kind = find_photographs(bench.work, GENERATED).kind
    report = Report(
        "quality",
        {**sizes, **images},
        f"{images['train']:,} + {images['val']:,} {kind}, weights {Path(weights_at_hand()).name}; "
        f"{bench.passes} passes in batches of {bench.batch_size}, last epoch, mean of "
        f"{bench.seeds} seeds",
    )
    rows: dict[str, dict[str, Cell]] = {}
    for name in names:
        variant = VARIANTS[name]
        scores, parameters = score(
            bench, name, base if variant.shards == "base" else build(bench, variant.shards)
        )
        rows[name] = fill_row(variant.title, scores, parameters=parameters)
        print(f"{variant.title}: {rows[name]['miou_frequent']:.1f}", file=sys.stderr, flush=True)
    oracles = {kind: kind.display_name for kind in (RowKind.GT_TOP_4, RowKind.PATCH_MAJORITY)} | {
        RowKind.MAJORITY: "one class everywhere"
    }
    lines = [fill_row(title, scores[:1], row) for row, title in oracles.items()]
    report.add(Table("%", COLUMNS, [*rows.values(), *lines]))
    for table in (compare(rows), compare_least(rows)):
        if table.rows:
            report.add(table)
    report.write(json)


if __name__ == "__main__":
    main()
