"""Training: one loop over cached embeddings, from fresh heads to a run folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from vocprep.errors import RunError
from vocprep.features.compiling import require_compiler
from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.runs.checkpoint import load_checkpoint, save_checkpoint
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.events import open_events
from vocprep.heads.runs.history import EpochMetrics, append_epoch, truncate_history
from vocprep.heads.runs.options import TrainOptions, require_split
from vocprep.heads.runs.run import CHECKPOINT_FILE, MODEL_FILE, prepare_run_dir, save_weights
from vocprep.heads.runs.tensors import read_tensors
from vocprep.heads.scoring.split_pass import score_split
from vocprep.heads.training.feed import Feed, make_feed
from vocprep.heads.training.processes import Processes, joined
from vocprep.heads.training.steps import Training, learn_epoch, set_up
from vocprep.labels.label_space import LabelSpace
from vocprep.options import LoaderOptions
from vocprep.shards.reader import Loader, ShardDataset


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a training came to."""

    run_dir: Path
    device: str
    precision: str
    """``bf16`` or ``fp32``."""
    leads: bool
    """Whether this process wrote the run; the others of a ``torchrun`` did not."""
    images: int
    """Samples an epoch, views included."""
    parameters: int
    """Trainable ones."""
    seconds: float
    """Of the epochs that were run now."""
    gone_on_from: int
    """Epochs that were there already; 0 for a training from the start."""
    history: tuple[EpochMetrics, ...]

    @property
    def final(self) -> EpochMetrics:
        """The last epoch, whose weights the run holds."""
        return self.history[-1]


def train(
    dataset: ShardDataset,
    run_dir: Path,
    options: TrainOptions | None = None,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
) -> RunSummary:
    """Train fresh heads on a dataset's train split and leave a run in ``run_dir``.

    ``on_epoch`` is called after each epoch, in the process that writes. On one CPU and torch
    version a seed gives the same weights, bit for bit, whether the training was interrupted and
    resumed or not, unless the step is compiled. The caller's random state is left as it was.

    Raises UsageError, before anything is written, when a split, the device or a wanted compiler is
    missing or the folder holds a run that is neither to be replaced nor to go on with; RunError
    when the loss stops being a number.
    """
    options = options or TrainOptions()
    if options.compiled:
        require_compiler()
    with joined(options.device) as processes:
        feed, val_loader = _sources(dataset, options, processes)
        config = _begun(run_dir, _run_config(dataset, options), processes)
        started, device = time.perf_counter(), processes.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            training = set_up(config.heads, options, feed, processes)
            done, history = _run_epochs(training, val_loader, run_dir, config, on_epoch)
        if processes.leads:
            (run_dir / CHECKPOINT_FILE).unlink(missing_ok=True)

    return RunSummary(
        run_dir=run_dir,
        device=str(device),
        precision=training.precision,
        leads=processes.leads,
        images=feed.samples,
        parameters=sum(p.numel() for p in training.model.parameters() if p.requires_grad),
        seconds=time.perf_counter() - started,
        gone_on_from=done,
        history=tuple(history),
    )


def _begun(run_dir: Path, config: RunConfig, processes: Processes) -> RunConfig:
    """Make the folder ready, once for all processes; return the configuration of its run."""
    return processes.once(lambda: prepare_run_dir(run_dir, config))


def _run_epochs(
    training: Training,
    val_loader: Loader | None,
    run_dir: Path,
    config: RunConfig,
    on_epoch: Callable[[EpochMetrics], None] | None,
) -> tuple[int, list[EpochMetrics]]:
    """Run the epochs that are still to be run and keep what came of each.

    Returns how many were there already, and all of them.
    """
    options, leads = training.options, training.processes.leads
    done, history = _go_on(training, run_dir, config)
    training.processes.wait()
    saved = time.monotonic()
    with open_events(run_dir if leads else None, done) as write_events:
        for epoch in range(done + 1, options.epochs + 1):
            metrics = _run_epoch(training, val_loader, config.labels, epoch)
            _check_finite(metrics, run_dir)
            history.append(metrics)
            if not leads:
                continue
            append_epoch(run_dir, metrics)
            write_events(metrics)
            if _is_scored(epoch, options):
                save_weights(run_dir, config, training.model, epoch)
            is_due = time.monotonic() - saved >= options.checkpoint_every
            if is_due and epoch < options.epochs:
                save_checkpoint(run_dir, config, training.model, training.optimizer, epoch)
                saved = time.monotonic()
            if on_epoch is not None:
                on_epoch(metrics)
    return done, history


def _run_epoch(
    training: Training, val_loader: Loader | None, labels: LabelSpace, epoch: int
) -> EpochMetrics:
    """Learn from the split once, score where it is time to, and return what came of it."""
    started = time.perf_counter()
    losses = learn_epoch(training, epoch)
    scored = training.processes.leads and _is_scored(epoch, training.options)
    validation = _validate(training.model, val_loader, labels) if scored else {}
    return EpochMetrics(
        epoch=epoch,
        lr=losses.lr,
        loss=losses.class_loss + losses.mask_loss,
        class_loss=losses.class_loss,
        mask_loss=losses.mask_loss,
        images_per_second=training.feed.samples / losses.seconds,
        seconds=time.perf_counter() - started,
        device=str(training.processes.device),
        precision=training.precision,
        compiled=training.options.compiled,
        spike_rates=losses.spike_rates or None,
        **validation,
    )


def _sources(
    dataset: ShardDataset, options: TrainOptions, processes: Processes
) -> tuple[Feed, Loader | None]:
    """Open what is learnt from (shuffled) and what is scored (identity view, or None)."""
    require_split(dataset.splits, options.train_split, "train_split")
    if options.val_split:
        require_split(dataset.splits, options.val_split, "val_split")
    train_options = LoaderOptions(
        batch_size=options.batch_size,
        mode=options.mode,
        shuffle=True,
        seed=options.seed,
        all_views=options.flip,
    )
    feed = make_feed(dataset, options.train_split, train_options, processes)
    if not (options.val_split and processes.leads):
        return feed, None
    val_options = LoaderOptions(batch_size=options.batch_size, mode=options.mode, label_maps=True)
    return feed, dataset.loader(options.val_split, val_options)


def _embedding_size(dataset: ShardDataset, split: str) -> int:
    """Return D of a split's records, which one's own features may have other than the recipe."""
    first = next(dataset.read_shard(dataset.shard_names(split)[0]))
    return int(first.embeddings.shape[-1])


def _run_config(dataset: ShardDataset, options: TrainOptions) -> RunConfig:
    """Decide the run: sizes from the data, everything else from the options."""
    labels = dataset.schema
    index = dataset.index
    return RunConfig(
        heads=HeadsConfig(
            outputs=labels.outputs,
            embedding_dim=_embedding_size(dataset, options.train_split),
            position=options.position,
            encoder=options.encoder,
            class_loss=options.class_loss,
            slots=options.slots,
        ),
        options=options,
        labels=labels,
        recipe=index.recipe,
        content_id=index.content_id,
        source_id=index.source_id,
    )


def _go_on(training: Training, run_dir: Path, config: RunConfig) -> tuple[int, list[EpochMetrics]]:
    """Bring a resumed training to its last complete checkpoint; return its epoch and the history.

    All epochs where the run is finished, 0 where there is nothing to go on from.
    """
    if not training.options.resume:
        return 0, []
    done = load_checkpoint(run_dir, config, training.model, training.optimizer)
    if (run_dir / MODEL_FILE).is_file():
        epoch, state = read_tensors(run_dir / MODEL_FILE, config.run_id)
        if epoch == training.options.epochs:
            training.model.load_state_dict(state)
            done = epoch
    if not training.processes.leads:
        return done, []
    return done, truncate_history(run_dir, done)


def _is_scored(epoch: int, options: TrainOptions) -> bool:
    return epoch % options.validate_every == 0 or epoch == options.epochs


def _validate(model: TFDetHeads, loader: Loader | None, labels: LabelSpace) -> dict[str, float]:
    """Return the validation fields of EpochMetrics; none without a validation split."""
    if loader is None:
        return {}
    counts = score_split(model.eval(), loader, labels)
    return {
        "val_loss": counts.class_loss + counts.mask_loss,
        "val_class_loss": counts.class_loss,
        "val_mask_loss": counts.mask_loss,
        "val_miou": counts.model.miou_present(),
        "val_pixel_accuracy": counts.model.pixel_accuracy(),
    }


def _check_finite(metrics: EpochMetrics, run_dir: Path) -> None:
    for loss in (metrics.loss, metrics.val_loss or 0.0):
        if not math.isfinite(loss):
            raise RunError(
                f"{run_dir}: expected a finite loss in epoch {metrics.epoch}, found {loss}; train "
                "again with a smaller --lr"
            )
