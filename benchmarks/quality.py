"""What heads are worth on photographs: the shipped presets, or other ways to train (``--rows``).

Heads are scored on the val split after their last epoch, never the best one; a row is the mean over
seeds, beside the lowest and the highest. Every row sees each training picture equally often: where
it learns from mirrored views too, each view counts. So all rows take the same number of steps but
for what their batches are.

Several trainings run at once, each with its share of the cores (``--jobs``). What is in ``--work``
already is taken from there: shards, finished and interrupted trainings. The folder of a training is
named by its configuration, so that a preset that has changed is trained anew, and two rows that
come to the same are trained once. Without real pictures it runs on generated ones, whose scores
mean nothing.

Run: python benchmarks/quality.py [--rows cells wide] [--passes 24] [--seeds 2] [--work FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median

import torch
from _pictures import SCHEMA, find_photographs, weights_at_hand
from _recipes import ASKED, EMBEDDINGS, PRESETS, VARIANTS, Asked, Variant
from _report import Cell, Column, Report, Table, command_line, usable_cores

import vocprep
from vocprep.errors import VocprepError
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.presets import load_options
from vocprep.heads.scoring.evaluate import evaluate
from vocprep.heads.scoring.measures.oracles import RowKind
from vocprep.heads.scoring.scores import RunScores
from vocprep.heads.training.train import train
from vocprep.shards.reader import ShardDataset

UNTRAINED = "random:0"
GENERATED = 48
"""Pictures that are drawn where there are no real ones."""

SCORES: dict[str, Callable[[RunScores, RowKind], float | None]] = {
    "miou_frequent": lambda scores, kind: scores.row(kind).miou_frequent,
    "pixel_accuracy": lambda scores, kind: scores.row(kind).pixel_accuracy,
    "mask_iou": lambda scores, kind: {
        RowKind.MODEL: scores.masks.iou,
        RowKind.PATCH_MAJORITY: scores.masks.iou_of_largest,
    }.get(kind),
    "own_mask_iou": lambda scores, kind: scores.masks.own_iou if kind is RowKind.MODEL else None,
    "boundary_iou_3": lambda scores, kind: scores.row(kind).boundary_iou_3,
    "boundary_iou_8": lambda scores, kind: scores.row(kind).boundary_iou_8,
}
"""By key of a column: a score of one of a run's rows, 0..1; None where the row has none."""
COLUMNS = (
    Column("name", ""),
    Column("miou_frequent", "mIoU ≥1 %", ".1f", spread=True),
    Column("pixel_accuracy", "pixel accuracy", ".1f", spread=True),
    Column("mask_iou", "mask IoU", ".1f", spread=True),
    Column("own_mask_iou", "of own class", ".1f", spread=True),
    Column("boundary_iou_3", "boundary 3 px", ".1f", spread=True),
    Column("boundary_iou_8", "8 px", ".1f", spread=True),
    Column("parameters", "parameters", ",d"),
    Column("images_per_second", "images/s", ".0f"),
    Column("epochs", "epochs", "d"),
)
COMPARED = (
    Column("name", ""),
    Column("at_least", "at least", ".1f"),
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
    jobs: int
    """Trainings at once."""

    def options(self, variant: Variant, seed: int) -> TrainOptions:
        """Return how a row is trained: every picture as often as in every other one."""
        has_views = load_options(variant.preset, variant.settings).flip
        views = EMBEDDINGS[variant.shards].views if has_views else 1
        epochs, batch_size = self.passes // views, variant.batch_size or self.batch_size
        settings = (*variant.settings, f"batch_size={batch_size}", f"seed={seed}")
        length = {"epochs": epochs, "validate_every": epochs, "resume": True}
        # Two presets may come to the same, so that their name is left out.
        return replace(load_options(variant.preset, settings, length), preset="quality")


@dataclass(frozen=True)
class Training:
    """One training to do, or done before."""

    shards: Path
    run_dir: Path
    options: TrainOptions


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    scores: RunScores
    parameters: int
    """Those that are trained."""
    images_per_second: float
    """Of the median epoch, validation left out."""


def build(bench: Bench, name: str) -> ShardDataset:
    """Return the shards of that name, built where they are not there yet."""
    wanted, out = EMBEDDINGS[name], bench.work / "shards" / name
    found = find_photographs(bench.work, bench.images or GENERATED)
    weights = UNTRAINED if wanted.weights is None else weights_at_hand(wanted.weights)
    choices = replace(wanted.choices, schema=SCHEMA, limit_per_split=bench.images)
    vocprep.build(found.dataset, out=out, data_dir=found.data_dir, weights=weights, choices=choices)
    return ShardDataset.open(out)


def trainings(bench: Bench, names: Sequence[str]) -> dict[str, list[Training]]:
    """Return the trainings of each row, one per seed; builds the shards that they need."""
    shards = {name: build(bench, name) for name in dict.fromkeys(VARIANTS[n].shards for n in names)}
    found: dict[str, list[Training]] = {}
    for name in names:
        dataset = shards[VARIANTS[name].shards]
        all_options = [bench.options(VARIANTS[name], seed) for seed in range(bench.seeds)]
        keys = [RunConfig.of(dataset, options).run_id[:16] for options in all_options]
        found[name] = [
            Training(bench.work / "shards" / VARIANTS[name].shards, bench.work / "runs" / key, each)
            for key, each in zip(keys, all_options, strict=True)
        ]
    return found


def carry_out(training: Training) -> Trained:
    """Train, where that is still to be done, and score the run."""
    dataset = ShardDataset.open(training.shards)
    done = train(dataset, training.run_dir, training.options)
    return Trained(
        scores=evaluate(training.run_dir, dataset, "val").runs[0],
        parameters=done.parameters,
        images_per_second=median(epoch.images_per_second for epoch in done.history),
    )


def carry_out_all(bench: Bench, wanted: Mapping[str, list[Training]]) -> Iterator[list[Trained]]:
    """Yield what comes of each row, in their order; what two rows share is done once."""
    threads = max(1, usable_cores() // bench.jobs)
    with ProcessPoolExecutor(
        bench.jobs, get_context("spawn"), torch.set_num_threads, (threads,)
    ) as pool:
        todo = {each.run_dir: each for row in wanted.values() for each in row}
        running = {run_dir: pool.submit(carry_out, each) for run_dir, each in todo.items()}
        try:
            for row in wanted.values():
                yield [running[each.run_dir].result() for each in row]
        finally:
            pool.shutdown(cancel_futures=True)


def fill_row(title: str, scores: Sequence[RunScores], kind: RowKind) -> dict[str, Cell]:
    """Return a line of the table from the row of that kind in each run's scores, in percent."""
    line: dict[str, Cell] = {"name": title}
    for key, score in SCORES.items():
        values = [100 * found for each in scores if (found := score(each, kind)) is not None]
        if values:
            line |= {key: mean(values)}
        if len(values) > 1:
            line |= {f"{key}_lowest": min(values), f"{key}_highest": max(values)}
    return line


def row_of(title: str, trained: Sequence[Trained]) -> dict[str, Cell]:
    """Return the line of heads that were trained with several seeds."""
    return {
        **fill_row(title, [each.scores for each in trained], RowKind.MODEL),
        "parameters": trained[0].parameters,
        "images_per_second": mean(each.images_per_second for each in trained),
        "epochs": trained[0].scores.epoch,
    }


def compare(asked: Asked, rows: Mapping[str, Mapping[str, Cell]]) -> dict[str, Cell] | None:
    """Return a number that is asked for beside the measured one; None without the rows for it."""
    names = [name for name in (asked.row, asked.above, asked.times) if name is not None]
    if any(name not in rows for name in names):
        return None
    heading = next(column.heading for column in COLUMNS if column.key == asked.score)
    title, measured = f"{VARIANTS[asked.row].title}: {heading}", _number(rows, asked.row, asked)
    if asked.above is not None:
        title += f" above {VARIANTS[asked.above].title}"
        measured -= _number(rows, asked.above, asked)
    elif asked.times is not None:
        title += f", times {VARIANTS[asked.times].title}"
        measured /= _number(rows, asked.times, asked)
    return {"name": title, "at_least": asked.at_least, "measured": measured}


def _number(rows: Mapping[str, Mapping[str, Cell]], row: str, asked: Asked) -> float:
    return float(rows[row][asked.score] or 0)


def main() -> None:
    """Build, train and score all rows, and print the tables."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, help="of each split; all when not given")
    parser.add_argument("--passes", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=32, help="of rows without their own")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", nargs="+", choices=VARIANTS, default=list(PRESETS))
    parser.add_argument("--jobs", type=int, help="trainings at once; one per core, or one on a GPU")
    parser.add_argument("--work", type=Path, help="folder that keeps shards and runs")
    arguments = parser.parse_args()
    views = max(EMBEDDINGS[VARIANTS[name].shards].views for name in arguments.rows)
    if arguments.passes < 1 or arguments.passes % views:
        parser.error(f"--passes {arguments.passes}: expected a multiple of {views}, the views")
    for name in ("batch_size", "seeds", "jobs"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value}: expected 1 or more")
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(
            work=arguments.work or Path(name),
            images=arguments.images,
            passes=arguments.passes,
            batch_size=arguments.batch_size,
            seeds=arguments.seeds,
            jobs=arguments.jobs or (1 if torch.cuda.is_available() else usable_cores()),
        )
        try:
            measure(bench, arguments.rows, arguments.json)
        except VocprepError as error:
            raise SystemExit(f"error: {error}") from error


def measure(bench: Bench, names: Sequence[str], json: Path | None) -> None:
    """Print the tables of the rows of these names, and write them."""
    wanted = trainings(bench, names)
    report = start_report(bench, ShardDataset.open(wanted[names[0]][0].shards))
    rows: dict[str, dict[str, Cell]] = {}
    for name, trained in zip(names, carry_out_all(bench, wanted), strict=True):
        rows[name] = row_of(VARIANTS[name].title, trained)
        print(f"{name}: {rows[name]['miou_frequent']:.1f}", file=sys.stderr, flush=True)
    oracles = {kind: kind.display_name for kind in (RowKind.GT_TOP_4, RowKind.PATCH_MAJORITY)} | {
        RowKind.MAJORITY: "one class everywhere"
    }
    first = [trained[0].scores]
    lines = [fill_row(title, first, kind) for kind, title in oracles.items()]
    report.add(Table("%", COLUMNS, [*rows.values(), *lines]))
    compared = [line for asked in ASKED if (line := compare(asked, rows)) is not None]
    if compared:
        report.add(Table("asked beside measured", COMPARED, compared))
    report.write(json)


def start_report(bench: Bench, dataset: ShardDataset) -> Report:
    """Return the report on what all rows share, without its tables."""
    images = {split: dataset.count(split) for split in ("train", "val")}
    kind = find_photographs(bench.work, GENERATED).kind
    sizes = {name: getattr(bench, name) for name in ("passes", "batch_size", "seeds", "jobs")}
    return Report(
        "quality",
        {**sizes, **images},
        f"{images['train']:,} + {images['val']:,} {kind}, weights {Path(weights_at_hand()).name}; "
        f"{bench.passes} passes in batches of {bench.batch_size} unless a row has its own, last "
        f"epoch, mean of {bench.seeds} seeds (lowest-highest); {bench.jobs} trainings at once",
    )


if __name__ == "__main__":
    main()
