"""Runs that differ in their seed alone, trained by one call.

Each is a whole run in ``OUT/seed-N``. On a CPU they are trained in processes side by side, as many
as there are cores; on a GPU and under ``torchrun`` one after another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch

from vocprep.errors import RunError, UsageError, VocprepError
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.folder import (
    check_folder,
    check_folder_of_several,
    decide_lanes,
    hold_folder,
)
from vocprep.heads.runs.log import EpochMetrics
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.run import seed_folder
from vocprep.heads.runs.tracking.mlflow_store import check_mlflow
from vocprep.heads.training.distributed import Processes
from vocprep.heads.training.side_by_side import TrainCall, train_side_by_side
from vocprep.heads.training.summary import RunSummary, SeedsSummary
from vocprep.options import usable_cores
from vocprep.progress import Progress, task
from vocprep.shards.reader import ShardDataset
from vocprep.validation import LARGEST, printable

Number = TypeVar("Number", int, float)
OnSeedEpoch = Callable[[int, EpochMetrics], None]
"""Called with a seed and the metrics of an epoch of its run."""


@dataclass(frozen=True, kw_only=True)
class SeedsJob:
    """What is trained with each of several seeds."""

    dataset: ShardDataset
    out: Path
    options: TrainOptions
    """Fitted to the splits of the dataset; the seed in them does not count."""
    seeds: tuple[int, ...]
    weights: str | Path | None
    on_epoch: OnSeedEpoch
    progress: Progress

    def folder(self, seed: int) -> Path:
        """Return the folder of a seed's run."""
        return seed_folder(self.out, seed)

    def options_of(self, seed: int) -> TrainOptions:
        """Return the options of a seed's run."""
        return replace(self.options, seed=seed)


TrainOne = Callable[[int, Progress], RunSummary]
"""Trains the run of a seed in this process, with notes to a progress of its own."""


def checked_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return seeds; UsageError unless they are whole numbers from 0, each there once."""
    found = tuple(seeds)
    are_numbers = all(type(seed) is int and 0 <= seed <= LARGEST for seed in found)
    if not found or not are_numbers or len(set(found)) < len(found):
        shown = printable(repr(list(found)), 60)
        raise UsageError(f"seeds {shown}: expected whole numbers from 0 to {LARGEST}, each once")
    return found


def train_seeds(job: SeedsJob, train_one: TrainOne, processes: Processes) -> SeedsSummary:
    """Train a run with each seed; see ``train``.

    A run that fails leaves the others to be trained; what it failed of is raised after them.
    """
    processes.on_leader(lambda: check_seed_folders(job))
    started = time.perf_counter()
    at_once = min(len(job.seeds), usable_cores())
    job = replace(job, progress=_DistinctNotes(job.progress))
    if at_once > 1 and processes.world_size == 1 and processes.device.type == "cpu":
        outcomes = dict(_side_by_side(job, at_once))
    else:
        outcomes = dict(_in_turn(job, train_one))
    raise_first({seed: outcomes[seed] for seed in job.seeds}, "seed", str)
    runs = [outcomes[seed] for seed in job.seeds]
    return SeedsSummary(
        out=job.out,
        seeds=job.seeds,
        runs=tuple(run for run in runs if isinstance(run, RunSummary)),
        seconds=time.perf_counter() - started,
    )


def check_seed_folders(job: SeedsJob) -> None:
    """Raise what any of the trainings would be refused with, before the first of them begins."""
    check_folder_of_several(job.out, "seed")
    shards = len(job.dataset.shard_names(job.options.train_split))
    for seed in job.seeds:
        folder, options = job.folder(seed), job.options_of(seed)
        if folder.exists():
            with hold_folder(folder, lambda _note: None):
                options = decide_lanes(folder, options, shards)
                check_folder(folder, RunConfig.of(job.dataset, options))
    if job.options.mlflow is not None:
        check_mlflow(job.options.mlflow)


def _in_turn(job: SeedsJob, train_one: TrainOne) -> Iterator[tuple[int, RunSummary | Exception]]:
    for seed in job.seeds:
        try:
            yield seed, train_one(seed, _NamedTasks(job.progress, f"seed {seed}, "))
        except RunError as error:  # of this run alone
            yield seed, error


def _side_by_side(job: SeedsJob, at_once: int) -> Iterator[tuple[int, RunSummary | Exception]]:
    threads = max(1, min(torch.get_num_threads(), usable_cores() // at_once))
    calls = {
        seed: TrainCall(
            dataset=job.dataset,
            run_dir=job.folder(seed),
            options=job.options_of(seed),
            weights=job.weights,
            threads=threads,
        )
        for seed in job.seeds
    }
    epochs = len(job.seeds) * job.options.epochs
    with task(job.progress, f"epochs of {len(job.seeds)} seeds", epochs):
        for call, message in train_side_by_side(list(calls.values()), at_once):
            seed = call.options.seed
            match message.kind:
                case "note":
                    job.progress.note(message.value)
                case "epoch":
                    job.progress.advance(1)
                    job.on_epoch(seed, message.value)
                case _:
                    yield seed, message.value


def raise_first(
    outcomes: Mapping[Number, RunSummary | Exception], option: str, text: Callable[[Number], str]
) -> None:
    """Raise what the first of several runs failed of, if any, and tell which others are whole.

    ``outcomes`` are those of each value of an option, of which ``text`` gives the words.
    """
    failures = {value: each for value, each in outcomes.items() if isinstance(each, Exception)}
    if not failures:
        return
    first, *others = failures.values()
    if not isinstance(first, VocprepError):
        raise first
    failed = ", ".join(list(map(text, failures))[1:])
    also = f"; training failed with {option} {failed} too" if others else ""
    whole = ", ".join(text(value) for value in outcomes if value not in failures)
    rest = f"; the runs of {option} {whole} are whole" if whole else ""
    raise type(first)(f"{first}{also}{rest}") from first


class _DistinctNotes:
    """A progress that shows a note once, whichever of several trainings it comes from."""

    def __init__(self, progress: Progress) -> None:
        self._shown: set[str] = set()
        self._progress = progress
        self.begin, self.expect = progress.begin, progress.expect
        self.advance, self.end = progress.advance, progress.end

    def note(self, text: str) -> None:
        """Show a note that was not shown before."""
        if text not in self._shown:
            self._shown.add(text)
            self._progress.note(text)


class _NamedTasks:
    """A progress whose tasks are named after the training that they are of."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name
        self.expect, self.advance = progress.expect, progress.advance
        self.note, self.end = progress.note, progress.end

    def begin(self, name: str, total: int | None, done: int) -> None:
        """Start a task."""
        self._progress.begin(f"{self._name}{name}", total, done)
