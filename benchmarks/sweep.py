"""What a sweep of values on one pass takes, beside a training with each value, one after another.

Both train the same runs, to the same bits; the sweep reads the shards once, loads each batch once
and computes once what does not depend on the heads. All is processor time of one thread, so that
other work on the machine does not count; sweeps and single trainings take turns. But for the last
row of a preset, in which each training is a command, all run in one process that has its libraries.

Run: python benchmarks/sweep.py [--images 240] [--epochs 15] [--repeats 2] [--presets linear cells]
[--values 0 0.1 1 4] [--no-commands]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from _pictures import SCHEMA, make_pictures
from _report import Cell, Column, Report, Table, command_line

import vocprep
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.presets import load_options, options_toml
from vocprep.heads.runs.sweeps import Sweep, number_text
from vocprep.heads.training.train import train
from vocprep.options import BuildChoices
from vocprep.shards.reader import ShardDataset

COLUMNS = (
    Column("name", ""),
    Column("alone_s", "one after another, s", ".2f"),
    Column("sweep_s", "sweep, s", ".2f"),
    Column("ratio", "times", ".2f"),
)
WAYS: dict[str, dict[str, Any]] = {
    "": {"val_split": ""},
    ", scored after the last epoch": {"val_split": "train"},
    ", streaming": {"val_split": "", "mode": "streaming"},
}
"""Changes of a preset's options, by what is said of them."""
Seconds = Callable[[TrainOptions, Sweep | None], float]


@dataclass(frozen=True)
class Bench:
    """What all rows share."""

    shards: ShardDataset
    folder: Path
    sweep: Sweep
    repeats: int
    has_commands: bool
    """Whether trainings that are commands are measured too."""

    def row(self, name: str, seconds: Seconds, options: TrainOptions) -> dict[str, Cell]:
        """Measure a row: the least of some repeats, in turn."""
        alone, swept = [], []
        for _ in range(self.repeats):
            alone.append(sum(seconds(each, None) for each in self.sweep.options(options)))
            swept.append(seconds(options, self.sweep))
        return {
            "name": name,
            "alone_s": min(alone),
            "sweep_s": min(swept),
            "ratio": min(alone) / min(swept),
        }

    def rows(self, name: str, options: TrainOptions) -> list[dict[str, Cell]]:
        """Measure the rows of a preset."""
        rows = [
            self.row(f"{name}{words}", self.seconds, replace(options, **way))
            for words, way in WAYS.items()
        ]
        if self.has_commands:
            scored = replace(options, val_split="train")
            rows.append(self.row(f"{name}, scored, as commands", self.command_seconds, scored))
        return rows

    def command_seconds(self, options: TrainOptions, sweep: Sweep | None = None) -> float:
        """Return the processor time of a command that trains, or sweeps."""
        out = self.folder / "commands" / ("alone" if sweep is None else "sweep")
        preset = self.folder / "options.toml"
        preset.write_text(options_toml(options))
        words = ["--preset", str(preset), "--overwrite", "--device", "cpu"]
        if sweep is not None:
            values = ",".join(map(number_text, sweep.values))
            words += ["--sweep", f"{sweep.option}={values}"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "vocprep",
                "train",
                str(self.shards.path),
                "--out",
                str(out),
                *words,
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def seconds(self, options: TrainOptions, sweep: Sweep | None = None) -> float:
        """Return the processor time of a training, or of a sweep."""
        started = time.process_time()
        if sweep is None:
            train(self.shards, self.folder / "alone", options)
        else:
            train(self.shards, self.folder / "sweep", options, sweep=sweep)
        return time.process_time() - started


def main() -> None:
    """Build the shards, train, and print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--presets", nargs="+", default=["linear"])
    parser.add_argument("--values", type=float, nargs="+", default=[0.0, 0.1, 1.0, 4.0])
    parser.add_argument("--no-commands", action="store_true", help="leave out the slowest row")
    arguments = parser.parse_args()
    sweep = Sweep(option="weight_decay", values=tuple(arguments.values))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = make_pictures(arguments.images, folder / "data")
        vocprep.build(
            pictures.dataset,
            out=folder / "shards",
            data_dir=pictures.data_dir,
            weights=pictures.weights,
            choices=BuildChoices(schema=SCHEMA),
        )
        samples = {name: getattr(arguments, name) for name in ("images", "epochs", "repeats")}
        report = Report(
            "sweep",
            samples,
            f"{pictures.title}; {arguments.epochs} epochs; {len(sweep.values)} values of "
            f"{sweep.option}; processor seconds of one thread, least of {arguments.repeats}",
        )
        bench = Bench(
            shards=ShardDataset.open(folder / "shards"),
            folder=folder,
            sweep=sweep,
            repeats=arguments.repeats,
            has_commands=not arguments.no_commands,
        )
        changes = {"epochs": arguments.epochs, "validate_every": arguments.epochs}
        changes |= {"device": "cpu", "overwrite": True}
        options = {name: load_options(name, (), changes) for name in arguments.presets}
        bench.seconds(replace(next(iter(options.values())), epochs=1))  # imports, first pages
        rows = [row for name, each in options.items() for row in bench.rows(name, each)]
        report.add(Table("", COLUMNS, rows))
        report.write(arguments.json)


if __name__ == "__main__":
    main()
