"""Training: from fresh heads, over cached embeddings, to a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import overload

import torch

from vocprep.building.output.components import components_of
from vocprep.features.compiling import require_compiler
from vocprep.features.components import Components
from vocprep.features.weights import WeightsOrigin
from vocprep.files.writing import write_atomic
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.folder import begin_or_resume, check_folder, decide_lanes, hold_folder
from vocprep.heads.runs.log import EpochMetrics, draw_curves, open_log, truncate_history
from vocprep.heads.runs.options import DEFAULT_PRESET, TrainOptions, fit_splits
from vocprep.heads.runs.overfitting import find_turn
from vocprep.heads.runs.presets import load_options
from vocprep.heads.runs.run import CURVES_FILE
from vocprep.heads.runs.state import CHECKPOINT_FILE, restore, save_checkpoint, save_weights
from vocprep.heads.runs.weights import weights_origin
from vocprep.heads.training.distributed import Processes, join_processes
from vocprep.heads.training.feed import open_feed, require_splits
from vocprep.heads.training.notes import notes_on
from vocprep.heads.training.seeds import OnSeedEpoch, SeedsJob, checked_seeds, train_seeds
from vocprep.heads.training.steps import Training, set_up, train_epoch
from vocprep.heads.training.summary import RunSummary, SeedsSummary, summary_of
from vocprep.heads.training.validation import (
    ScoredImages,
    check_finite,
    open_scored_images,
    validate,
)
from vocprep.labels.label_space import LabelSpace
from vocprep.memory import memory_errors
from vocprep.progress import NO_PROGRESS, Progress, task
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


def train(  # noqa: PLR0913  # what, where, how; two ways to observe it; weights and seeds
    shards: ShardDataset | str | Place,
    out: str | Path,
    options: TrainOptions | str | Path = DEFAULT_PRESET,
    on_epoch: Callable[..., None] | None = None,
    progress: Progress = NO_PROGRESS,
    weights: str | Path | None = None,
    *,
    seeds: Sequence[int] | None = None,
) -> RunSummary | SeedsSummary:
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
    if options.compiled:
        require_compiler()
    chosen = None if seeds is None else checked_seeds(seeds)
    job = _Job(
        dataset=dataset,
        run_dir=local_path(out),
        options=options,
        origin=weights_origin(dataset, weights),
        components=components_of(dataset.path, dataset.index),
        on_epoch=on_epoch or _ignore,
        progress=progress,
    )
    with (
        memory_errors("use a smaller --batch-size or --mode streaming, or free memory"),
        join_processes(options.device) as processes,
        _kept_random_state(processes.device),
    ):
        if chosen is None:
            return _train_with(job, processes)
        return _train_each(job, chosen, weights, processes)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What ``train`` was given."""

    dataset: ShardDataset
    run_dir: Path
    options: TrainOptions
    origin: WeightsOrigin | None
    components: Components | None
    on_epoch: Callable[..., None]
    progress: Progress


def _ignore(*_: object) -> None:
    """Ignore an epoch, where nobody watches the training."""


def _train_each(
    job: _Job, seeds: tuple[int, ...], weights: str | Path | None, processes: Processes
) -> SeedsSummary:
    """Train a run with each of several seeds."""
    options = fit_splits(job.options, job.dataset.splits)
    require_splits(job.dataset, options)
    several = SeedsJob(
        dataset=job.dataset,
        out=job.run_dir,
        options=options,
        seeds=seeds,
        weights=weights,
        on_epoch=job.on_epoch,
        progress=job.progress,
    )

    def train_one(seed: int, progress: Progress) -> RunSummary:
        own = replace(
            job,
            run_dir=several.folder(seed),
            options=several.options_of(seed),
            on_epoch=partial(job.on_epoch, seed),
            progress=progress,
        )
        return _train_with(own, processes)

    return train_seeds(several, train_one, processes)


def _train_with(job: _Job, processes: Processes) -> RunSummary:
    """Train on this rank: begin or resume the run, then one epoch after another."""
    if not processes.leads:
        job = replace(job, on_epoch=_ignore, progress=NO_PROGRESS)
    dataset, run_dir = job.dataset, job.run_dir
    job = replace(job, options=fit_splits(job.options, dataset.splits))
    require_splits(dataset, job.options)
    shards = len(dataset.shard_names(job.options.train_split))
    with _held_folder(job, processes):
        options = processes.on_leader(lambda: decide_lanes(run_dir, job.options, shards))
        new = processes.on_leader(lambda: RunConfig.of(dataset, options))
        # Before the splits are read, which may take minutes.
        processes.on_leader(lambda: check_folder(run_dir, new))
        feed = open_feed(dataset, options, processes, job.progress)
        new = replace(new, class_pixels=feed.class_pixels())
        scored = open_scored_images(dataset, options, processes, job.progress)
        config = processes.on_leader(
            lambda: begin_or_resume(run_dir, new, job.origin, job.components)
        )
        training = set_up(config.heads, options, feed, processes)
        return _train_epochs(job, training, config, scored)


@contextmanager
def _held_folder(job: _Job, processes: Processes) -> Iterator[None]:
    """Hold the run folder's file lock, on rank 0; its refusal is raised on every rank."""
    with ExitStack() as held:
        lock = hold_folder(job.run_dir, job.progress.note)
        processes.on_leader(lambda: held.enter_context(lock))
        yield


def _train_epochs(
    job: _Job, training: Training, config: RunConfig, scored: ScoredImages | None
) -> RunSummary:
    """Restore the run's checkpoint, if any, and train the epochs that are left."""
    options, run_dir, processes = job.options, job.run_dir, training.processes
    started = time.perf_counter()
    steps = len(training.feed.batch_sizes)
    model, mean = training.model, training.mean_model
    done = restore(run_dir, config, model, training.optimizer, steps, mean)
    processes.wait()  # until all ranks have read the checkpoint, which rank 0 replaces
    history = processes.on_leader(lambda: truncate_history(run_dir, done))
    notes = tuple(notes_on(job.dataset, options, run_dir, done))
    for note in notes:
        job.progress.note(note)

    with _recorder(training, run_dir, config, done) as record:
        for epoch in range(done + 1, options.epochs + 1):
            metrics = _run_epoch(training, scored, config.labels, epoch, job.progress)
            check_finite(metrics, run_dir, resumed=0 < done == epoch - 1)
            history.append(metrics)
            record(metrics)
            job.on_epoch(metrics)
    if done < options.epochs and (turn := find_turn(history)) is not None:
        notes = (*notes, f"{run_dir}: {turn.note}")
        job.progress.note(notes[-1])
    if processes.leads:
        write_atomic(run_dir / CURVES_FILE, draw_curves(history))
        (run_dir / CHECKPOINT_FILE).unlink(missing_ok=True)
    seconds = time.perf_counter() - started
    return summary_of(training, run_dir, history, notes, done, seconds)


def _kept_random_state(device: torch.device) -> AbstractContextManager[None]:
    """Return a context after which torch's random state is what it was before."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def _recorder(
    training: Training, run_dir: Path, config: RunConfig, done: int
) -> Iterator[Callable[[EpochMetrics], None]]:
    """Yield a function that logs an epoch and saves the state after it; on rank 0 alone.

    Weights are saved where they were validated, checkpoints ``checkpoint_every`` seconds at most.
    """
    if not training.processes.leads:
        yield lambda metrics: None
        return
    options, saved = training.options, time.monotonic()
    model, mean = training.model, training.mean_model
    with open_log(run_dir, done) as log:

        def record(metrics: EpochMetrics) -> None:
            nonlocal saved
            log(metrics)
            epoch = metrics.epoch
            if options.validates(epoch):
                save_weights(run_dir, config, training.kept_model, epoch)
            is_due = time.monotonic() - saved >= options.checkpoint_every
            if is_due and epoch < options.epochs:
                save_checkpoint(run_dir, config, model, training.optimizer, epoch, mean)
                saved = time.monotonic()

        yield record


def _run_epoch(
    training: Training,
    scored: ScoredImages | None,
    labels: LabelSpace,
    epoch: int,
    progress: Progress,
) -> EpochMetrics:
    """Train on the split once, validate where it is due, and return the metrics."""
    started, options = time.perf_counter(), training.options
    with task(progress, f"epoch {epoch} of {options.epochs}", len(training.feed.batch_sizes)):
        losses = train_epoch(training, epoch, progress)
    validation = {}
    if scored is not None and options.validates(epoch):
        with task(progress, f"validation after epoch {epoch}", len(scored)):
            validation = validate(training, scored, labels, progress)
    return EpochMetrics(
        epoch=epoch,
        lr=losses.lr,
        loss=losses.class_loss + losses.mask_loss,
        class_loss=losses.class_loss,
        mask_loss=losses.mask_loss,
        images_per_second=sum(training.feed.batch_sizes) / losses.seconds,
        seconds=time.perf_counter() - started,
        device=str(training.processes.device),
        precision=training.precision,
        compiled=options.compiled,
        spike_rates=losses.spike_rates or None,
        **validation,
    )
