"""Runs that are trained on one pass over the shards: one, or several that share every batch.

What several may differ in changes no batch (``heads.runs.sweeps``). Each is a whole run, with a
folder, a checkpoint and an end of its own, and has the bits of the same training alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from vocprep.errors import RunError
from vocprep.features.components import Components
from vocprep.features.weights import WeightsOrigin
from vocprep.files.writing import write_atomic
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.folder import (
    begin_or_resume,
    check_folder,
    decide_lanes,
    hold_folder,
    holds_run,
)
from vocprep.heads.runs.log import EpochMetrics, draw_curves, truncate_history
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.overfitting import find_turn
from vocprep.heads.runs.run import CURVES_FILE
from vocprep.heads.runs.state import CHECKPOINT_FILE, restore, save_checkpoint, save_weights
from vocprep.heads.runs.tracking.loggers import Log, open_loggers
from vocprep.heads.runs.tracking.mlflow_store import check_mlflow
from vocprep.heads.training.distributed import Processes
from vocprep.heads.training.feed import open_feed
from vocprep.heads.training.notes import notes_on
from vocprep.heads.training.steps import Training, set_up, train_epoch
from vocprep.heads.training.summary import RunSummary, summary_of
from vocprep.heads.training.validation import (
    ScoredImages,
    check_finite,
    open_scored_images,
    validate,
)
from vocprep.labels.label_space import LabelSpace
from vocprep.progress import Progress, task
from vocprep.shards.reader import ShardDataset


@dataclass(frozen=True, kw_only=True)
class RunToTrain:
    """A run that is to be begun or resumed."""

    run_dir: Path
    options: TrainOptions
    """Fitted to the splits of the dataset."""
    on_epoch: Callable[[EpochMetrics], None]


@dataclass(frozen=True, kw_only=True)
class RunInputs:
    """What runs are trained on, and what of it they keep for ``predict``."""

    dataset: ShardDataset
    origin: WeightsOrigin | None
    components: Components | None


@dataclass(kw_only=True, eq=False)
class _RunInTraining:
    """A run between its first step and its last, on one rank."""

    to_train: RunToTrain
    config: RunConfig
    training: Training
    done: int
    """Epochs that were trained before."""
    history: list[EpochMetrics]
    notes: list[str]
    record: Callable[[EpochMetrics], None] = field(init=False)
    """Logs an epoch, and saves the state after it."""
    failure: RunError | None = None
    """What ended its training early."""

    def is_due(self, epoch: int) -> bool:
        """Return whether an epoch is to be trained."""
        return self.failure is None and self.done < epoch

    def take(self, metrics: EpochMetrics) -> None:
        """Take in the metrics of an epoch, or end with a failure where they are not finite."""
        try:
            is_resumed = 0 < self.done == metrics.epoch - 1
            check_finite(metrics, self.to_train.run_dir, resumed=is_resumed)
        except RunError as error:
            self.failure = error
            return
        self.history.append(metrics)
        self.record(metrics)
        self.to_train.on_epoch(metrics)


def train_on_one_pass(
    inputs: RunInputs, runs: Sequence[RunToTrain], processes: Processes, progress: Progress
) -> list[RunSummary | RunError]:
    """Train runs on this rank: begin or resume each, then one epoch after another with all.

    Returns a summary of each, or what its training failed of; the others are trained all the same.
    What is refused of one is raised before any is begun.
    """
    dataset = inputs.dataset
    with _held_folders(runs, processes, progress):
        runs = _with_lanes(dataset, runs, processes)
        options = runs[0].options
        news = [processes.on_leader(partial(RunConfig.of, dataset, run.options)) for run in runs]
        # Before the splits are read, which may take minutes.
        for run, new in zip(runs, news, strict=True):
            processes.on_leader(partial(check_folder, run.run_dir, new))
        if options.mlflow is not None:
            processes.on_leader(partial(check_mlflow, options.mlflow))
        feed = open_feed(dataset, options, processes, progress)
        class_pixels = feed.class_pixels()
        scored = open_scored_images(dataset, options, processes, progress)
        in_training = []
        for run, new in zip(runs, news, strict=True):
            config = replace(new, class_pixels=class_pixels)
            config = processes.on_leader(
                partial(begin_or_resume, run.run_dir, config, inputs.origin, inputs.components)
            )
            training = set_up(config.heads, run.options, feed, processes)
            in_training.append(_restored(dataset, run, config, training))
        started = time.perf_counter()
        _note_all(in_training, progress)
        _train_epochs(in_training, scored, progress)
        return [_finish(run, time.perf_counter() - started, progress) for run in in_training]


@contextmanager
def _held_folders(
    runs: Sequence[RunToTrain], processes: Processes, progress: Progress
) -> Iterator[None]:
    """Hold the file lock of each folder, on rank 0; its refusal is raised on every rank."""
    with ExitStack() as held:
        for run in runs:
            lock = hold_folder(run.run_dir, progress.note)
            processes.on_leader(partial(held.enter_context, lock))
        yield


def _with_lanes(
    dataset: ShardDataset, runs: Sequence[RunToTrain], processes: Processes
) -> list[RunToTrain]:
    """Return runs with the number of lanes, which is that of the first that is begun, if any."""
    shards = len(dataset.shard_names(runs[0].options.train_split))

    def decide() -> int | None:
        first = next((run for run in runs if holds_run(run.run_dir)), runs[0])
        return decide_lanes(first.run_dir, first.options, shards).lanes

    lanes = processes.on_leader(decide)
    return [replace(run, options=replace(run.options, lanes=lanes)) for run in runs]


def _restored(
    dataset: ShardDataset, run: RunToTrain, config: RunConfig, training: Training
) -> _RunInTraining:
    """Return a run in the state of its checkpoint, if there is one."""
    processes, steps = training.processes, len(training.feed.batch_sizes)
    model, mean = training.model, training.mean_model
    done = restore(run.run_dir, config, model, training.optimizer, steps, mean)
    processes.wait()  # until all ranks have read the checkpoint, which rank 0 replaces
    return _RunInTraining(
        to_train=run,
        config=config,
        training=training,
        done=done,
        history=processes.on_leader(lambda: truncate_history(run.run_dir, done)),
        notes=list(notes_on(dataset, run.options, run.run_dir, done)),
    )


def _note_all(runs: Sequence[_RunInTraining], progress: Progress) -> None:
    """Show the notes of runs, those that they share once."""
    for note in dict.fromkeys(note for run in runs for note in run.notes):
        progress.note(note)


def _train_epochs(
    runs: Sequence[_RunInTraining], scored: ScoredImages | None, progress: Progress
) -> None:
    """Train the epochs that are left, each with the runs that have not come as far."""
    epochs = runs[0].training.options.epochs
    with ExitStack() as logs:
        for run in runs:
            run.record = logs.enter_context(_recorder(run, progress.note))
        for epoch in range(min(run.done for run in runs) + 1, epochs + 1):
            due = [run for run in runs if run.is_due(epoch)]
            if not due:
                break
            trainings = [run.training for run in due]
            found = _run_epoch(trainings, scored, due[0].config.labels, epoch, progress)
            for run, metrics in zip(due, found, strict=True):
                run.take(metrics)


@contextmanager
def _recorder(run: _RunInTraining, note: Callable[[str], None]) -> Iterator[Log]:
    """Yield a function that logs an epoch and saves the state after it; on rank 0 alone.

    Weights are saved where they were validated, checkpoints ``checkpoint_every`` seconds at most;
    the curves are drawn at the end. Logs end as those of a failed training where the run fails.
    """
    training, run_dir = run.training, run.to_train.run_dir
    if not training.processes.leads:
        yield lambda metrics: None
        return
    options, saved = training.options, time.monotonic()
    model, mean = training.model, training.mean_model
    logs = open_loggers(run_dir, run.config, run.history, options.mlflow, note)
    try:
        with logs as log:

            def record(metrics: EpochMetrics) -> None:
                nonlocal saved
                log(metrics)
                epoch = metrics.epoch
                if options.validates(epoch):
                    save_weights(run_dir, run.config, training.kept_model, epoch)
                is_due = time.monotonic() - saved >= options.checkpoint_every
                if is_due and epoch < options.epochs:
                    save_checkpoint(run_dir, run.config, model, training.optimizer, epoch, mean)
                    saved = time.monotonic()

            yield record
            if run.failure is not None:
                raise run.failure
            write_atomic(run_dir / CURVES_FILE, draw_curves(run.history))
    except RunError as error:
        if error is not run.failure:  # which is returned when the other runs have ended
            raise


def _run_epoch(
    trainings: Sequence[Training],
    scored: ScoredImages | None,
    labels: LabelSpace,
    epoch: int,
    progress: Progress,
) -> list[EpochMetrics]:
    """Train on the split once, validate where it is due, and return the metrics of each."""
    started, first = time.perf_counter(), trainings[0]
    options, images = first.options, first.feed.batch_sizes
    with task(progress, f"epoch {epoch} of {options.epochs}", len(images)):
        losses = train_epoch(trainings, epoch, progress)
    validations: list[dict[str, float | None]] = [{} for _ in trainings]
    if scored is not None and options.validates(epoch):
        with task(progress, f"validation after epoch {epoch}", len(scored)):
            validations = validate(trainings, scored, labels, progress)
    return [
        EpochMetrics(
            epoch=epoch,
            lr=each.lr,
            loss=each.class_loss + each.mask_loss,
            class_loss=each.class_loss,
            mask_loss=each.mask_loss,
            images_per_second=sum(images) / each.seconds,
            seconds=time.perf_counter() - started,
            device=str(first.processes.device),
            precision=training.precision,
            compiled=options.compiled,
            spike_rates=each.spike_rates or None,
            **validation,
        )
        for training, each, validation in zip(trainings, losses, validations, strict=True)
    ]


def _finish(run: _RunInTraining, seconds: float, progress: Progress) -> RunSummary | RunError:
    """Write what a run has at its end, and return its summary, or what it failed of."""
    if run.failure is not None:
        return run.failure
    training, run_dir = run.training, run.to_train.run_dir
    if run.done < training.options.epochs and (turn := find_turn(run.history)) is not None:
        run.notes.append(f"{run_dir}: {turn.note}")
        progress.note(run.notes[-1])
    if training.processes.leads:
        (run_dir / CHECKPOINT_FILE).unlink(missing_ok=True)
    return summary_of(training, run_dir, run.history, tuple(run.notes), run.done, seconds)
