"""Training: from fresh heads, over cached embeddings, to a run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import overload

import torch

from vocprep.building.output.components import components_of
from vocprep.errors import RunError, UsageError
from vocprep.features.compiling import require_compiler
from vocprep.heads.runs.log import EpochMetrics
from vocprep.heads.runs.options import DEFAULT_PRESET, TrainOptions, fit_splits
from vocprep.heads.runs.presets import load_options
from vocprep.heads.runs.sweeps import Sweep
from vocprep.heads.runs.weights import weights_origin
from vocprep.heads.training.distributed import Processes, join_processes
from vocprep.heads.training.feed import require_splits
from vocprep.heads.training.one_pass import RunInputs, RunToTrain, train_on_one_pass
from vocprep.heads.training.seeds import OnSeedEpoch, SeedsJob, checked_seeds, train_seeds
from vocprep.heads.training.summary import RunSummary, SeedsSummary, SweepSummary
from vocprep.heads.training.sweep import OnSweepEpoch, SweepJob, train_sweep
from vocprep.memory import memory_errors
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.reader import ShardDataset
from vocprep.storage.places import Place, local_path


@overload
def train(
    shards: ShardDataset | str | Place,
    out: str | Path,
    options: TrainOptions | str | Path = ...,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    progress: Progress = ...,
    weights: str | Path | None = None,
) -> RunSummary: ...


@overload
def train(  # as the function itself
    shards: ShardDataset | str | Place,
    out: str | Path,
    options: TrainOptions | str | Path = ...,
    on_epoch: OnSeedEpoch | None = None,
    progress: Progress = ...,
    weights: str | Path | None = None,
    *,
    seeds: Sequence[int],
) -> SeedsSummary: ...


@overload
def train(
    shards: ShardDataset | str | Place,
    out: str | Path,
    options: TrainOptions | str | Path = ...,
    on_epoch: OnSweepEpoch | None = None,
    progress: Progress = ...,
    weights: str | Path | None = None,
    *,
    sweep: Sweep | str,
) -> SweepSummary: ...


def train(  # noqa: PLR0913  # what, where, how; two ways to observe it; weights; several runs
    shards: ShardDataset | str | Place,
    out: str | Path,
    options: TrainOptions | str | Path = DEFAULT_PRESET,
    on_epoch: Callable[..., None] | None = None,
    progress: Progress = NO_PROGRESS,
    weights: str | Path | None = None,
    *,
    seeds: Sequence[int] | None = None,
    sweep: Sweep | str | None = None,
) -> RunSummary | SeedsSummary | SweepSummary:
    """Train heads on a dataset version's train split and leave a run in the folder ``out``.

    ``options`` may be the name of a preset or the path of one. ``on_epoch`` is called after each
    epoch; ``progress`` is told of the shards that are read, the steps of each epoch and the batches
    of each validation, and gets the notes: both in the process that writes
    alone. ``weights`` is where the shards' backbone weights are, for ``predict``; by default what
    the build left.

    With ``seeds`` a run is trained with each of them, in ``out/seed-N``, and ``on_epoch`` is called
    with the seed and the metrics. On a CPU as many as there are cores are trained at once, in
    processes that share out the threads, so that the bits of each are those of a training alone
    with as many threads; else one is trained after another. What is refused of one is refused of
    all before any begins; the RunError of one comes after the others are trained.

    With ``sweep``, such as ``weight_decay=0,0.01,0.1``, a run is trained with each value in
    ``out/weight_decay-0`` and on, all on one pass over the shards: each batch is loaded once, and
    every run takes its step on it. ``on_epoch`` is called with the value and the metrics. Each run
    has the bits of a training alone. ``out/sweep.json`` has the scores of all. Neither compiled
    steps nor ``torchrun`` go with it.

    On one CPU and torch version a seed gives the same weights, bit for bit, whether the training
    was interrupted and resumed or not, unless the step is compiled. The caller's random state is
    left as it was.

    Raises UsageError, before anything is written, when a split, the device or a compiler
    that ``compiled`` needs is missing, the folder holds a run that is neither to be replaced nor to
    be resumed, or another training writes there; RunError when a file of the run to resume does not
    fit it, or when the loss is not finite; OutOfMemoryError.
    """
    dataset = shards if isinstance(shards, ShardDataset) else ShardDataset.open(shards)
    options = options if isinstance(options, TrainOptions) else load_options(options)
    if seeds is not None and sweep is not None:
        raise UsageError(
            "sweep and seeds: expected one of them; choose a value by a sweep, then train it with "
            "several seeds"
        )
    if options.compiled:
        require_compiler()
    swept = Sweep.parse(sweep) if isinstance(sweep, str) else sweep
    chosen = None if seeds is None else checked_seeds(seeds)
    job = _Job(
        inputs=RunInputs(
            dataset=dataset,
            origin=weights_origin(dataset, weights),
            components=components_of(dataset.path, dataset.index),
        ),
        out=local_path(out),
        options=fit_splits(options, dataset.splits),
        on_epoch=on_epoch or _ignore,
        progress=progress,
    )
    with (
        memory_errors("use a smaller --batch-size or --mode streaming, or free memory"),
        join_processes(options.device) as processes,
        _kept_random_state(processes.device),
    ):
        require_splits(dataset, job.options)
        if swept is not None:
            return train_sweep(SweepJob(sweep=swept, **vars(job)), processes)
        if chosen is not None:
            return _train_seeds(job, chosen, weights, processes)
        return _train_one(job, processes)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What ``train`` was given."""

    inputs: RunInputs
    out: Path
    options: TrainOptions
    """Fitted to the splits of the dataset."""
    on_epoch: Callable[..., None]
    progress: Progress


def _ignore(*_: object) -> None:
    """Ignore an epoch, where nobody watches the training."""


def _train_one(job: _Job, processes: Processes) -> RunSummary:
    """Train one run on this rank."""
    if not processes.leads:
        job = replace(job, on_epoch=_ignore, progress=NO_PROGRESS)
    run = RunToTrain(run_dir=job.out, options=job.options, on_epoch=job.on_epoch)
    (outcome,) = train_on_one_pass(job.inputs, [run], processes, job.progress)
    if isinstance(outcome, RunError):
        raise outcome
    return outcome


def _train_seeds(
    job: _Job, seeds: tuple[int, ...], weights: str | Path | None, processes: Processes
) -> SeedsSummary:
    """Train a run with each of several seeds."""
    several = SeedsJob(
        dataset=job.inputs.dataset,
        out=job.out,
        options=job.options,
        seeds=seeds,
        weights=weights,
        on_epoch=job.on_epoch,
        progress=job.progress,
    )

    def train_one(seed: int, progress: Progress) -> RunSummary:
        own = replace(
            job,
            out=several.folder(seed),
            options=several.options_of(seed),
            on_epoch=partial(job.on_epoch, seed),
            progress=progress,
        )
        return _train_one(own, processes)

    return train_seeds(several, train_one, processes)


def _kept_random_state(device: torch.device) -> AbstractContextManager[None]:
    """Return a context after which torch's random state is what it was before."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
