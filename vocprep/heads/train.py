"""Training: one loop over cached embeddings, from fresh heads to a run folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vocprep.errors import RunError
from vocprep.heads.checkpoint import load_checkpoint, save_checkpoint
from vocprep.heads.events import open_events
from vocprep.heads.feed import Feed, StepBatch, make_feed
from vocprep.heads.history import EpochMetrics, append_epoch, truncate_history
from vocprep.heads.losses import compute_losses
from vocprep.heads.options import HeadsConfig, StepPrecision, TrainOptions, require_split
from vocprep.heads.processes import Processes, joined
from vocprep.heads.run import (
    CHECKPOINT_FILE,
    MODEL_FILE,
    LabelSpace,
    RunConfig,
    prepare_run_dir,
    read_config,
    read_tensors,
    save_weights,
)
from vocprep.heads.score import embedding_dim, score_split
from vocprep.heads.spiking import reset_spike_counts, spike_rates
from vocprep.heads.tfdet import TFDetHeads
from vocprep.shards.reader import Loader, LoaderOptions, ShardDataset


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
    history: tuple[EpochMetrics, ...]

    @property
    def final(self) -> EpochMetrics:
        """The last epoch, whose weights the run holds."""
        return self.history[-1]


@dataclass(frozen=True, kw_only=True)
class _Training:
    """What every epoch needs."""

    options: TrainOptions
    processes: Processes
    feed: Feed
    model: TFDetHeads
    wrapped: nn.Module
    """The model as it is called: its gradients are means over all processes."""
    optimizer: torch.optim.Optimizer
    bf16: bool


def train(
    dataset: ShardDataset,
    run_dir: Path,
    options: TrainOptions | None = None,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
) -> RunSummary:
    """Train fresh heads on a dataset's train split and leave a run in ``run_dir``.

    ``on_epoch`` is called after each epoch, in the process that writes. On one CPU and torch
    version a seed gives the same weights, bit for bit, whether the training was interrupted and
    resumed or not. The caller's random state is left as it was.

    Raises UsageError, before anything is written, when a split or the device is missing or the
    folder holds a run that is neither to be replaced nor to go on with; RunError when the loss
    stops being a number.
    """
    options = options or TrainOptions()
    with joined(options.device) as processes:
        feed, val_loader = _sources(dataset, options, processes)
        config = _run_config(dataset, options)
        if processes.leads:
            config = prepare_run_dir(run_dir, config)
        processes.wait()
        started, device = time.perf_counter(), processes.device

        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            training = _set_up(config, options, feed, processes)
            done, history = _go_on(training, run_dir, config)
            processes.wait()
            saved = time.monotonic()

            with open_events(run_dir if processes.leads else None, done) as write_events:
                for epoch in range(done + 1, options.epochs + 1):
                    metrics = _run_epoch(training, val_loader, config.labels, epoch)
                    _check_finite(metrics, run_dir)
                    history.append(metrics)
                    if not processes.leads:
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
        if processes.leads:
            (run_dir / CHECKPOINT_FILE).unlink(missing_ok=True)

    return RunSummary(
        run_dir=run_dir,
        device=str(device),
        precision="bf16" if training.bf16 else "fp32",
        leads=processes.leads,
        images=feed.samples,
        parameters=sum(p.numel() for p in training.model.parameters() if p.requires_grad),
        seconds=time.perf_counter() - started,
        history=tuple(history),
    )


def _run_epoch(
    training: _Training, val_loader: Loader | None, labels: LabelSpace, epoch: int
) -> EpochMetrics:
    """Learn from the split once, score where it is time to, and return what came of it."""
    options, processes, model = training.options, training.processes, training.model
    started = time.perf_counter()
    # Dropout depends on nothing before this epoch, so that a resumed training draws the same.
    torch.manual_seed(_epoch_seed(options.seed, epoch, processes.rank))
    reset_spike_counts(model)
    model.train()
    loss_sums = torch.zeros(2, dtype=torch.float64, device=processes.device)
    first_step = (epoch - 1) * training.feed.steps

    for step, batch in enumerate(training.feed.batches(epoch), start=first_step):
        rate = learning_rate(step, options.epochs * training.feed.steps, options)
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        losses = _losses(training, batch)
        training.optimizer.zero_grad(set_to_none=True)
        # The wrapped model takes the mean over processes where the losses' parts want the sum.
        (losses.sum() * processes.world).backward()  # type: ignore[no-untyped-call]  # torch's own gap
        nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        training.optimizer.step()
        # Summed on the device: reading a loss here would make the GPU wait every step.
        loss_sums += losses.detach() * batch.images

    category_loss, mask_loss = (processes.total(loss_sums) / training.feed.samples).tolist()
    train_seconds = time.perf_counter() - started
    rates = spike_rates(model)
    scored = processes.leads and _is_scored(epoch, options)
    validation = _validate(model, val_loader, labels) if scored else {}
    return EpochMetrics(
        epoch=epoch,
        lr=rate,
        loss=category_loss + mask_loss,
        category_loss=category_loss,
        mask_loss=mask_loss,
        images_per_second=training.feed.samples / train_seconds,
        seconds=time.perf_counter() - started,
        spike_rates=rates or None,
        **validation,
    )


def _losses(training: _Training, batch: StepBatch) -> Tensor:
    """Return this process's part of the batch's category and mask loss, [2]."""
    config, device = training.model.config, training.processes.device
    with torch.autocast(device.type, torch.bfloat16, enabled=training.bf16):
        category_logits, mask_logits = training.wrapped(
            batch.embeddings, batch.padding, batch.grids
        )
    losses = compute_losses(category_logits, mask_logits, batch, config.category_loss, config.slots)
    # Means over the whole batch, so that its parts weigh by what they teach.
    counts = training.processes.total(torch.stack([losses.patches, losses.entries]))
    return torch.stack([losses.category_sum, losses.mask_sum]) / counts.clamp(min=1)


def learning_rate(step: int, total_steps: int, options: TrainOptions) -> float:
    """Return the rate of a step counted from 0: a linear rise to ``lr``, then a cosine to 0."""
    warmup_steps = int(options.warmup * total_steps)
    if step < warmup_steps:
        return options.lr * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return options.lr * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups: decay pulls on matrices, not on biases and norms."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def uses_bf16(precision: StepPrecision, device: torch.device) -> bool:
    """Say whether matrix products are in bfloat16: told so, or ``auto`` on hardware that has it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Newer torch only; without it a CPU is taken to be an older one.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16"))


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


def _run_config(dataset: ShardDataset, options: TrainOptions) -> RunConfig:
    """Decide the run: sizes from the data, everything else from the options."""
    labels = LabelSpace.of(dataset.schema)
    index = dataset.index
    return RunConfig(
        heads=HeadsConfig(
            categories=labels.categories,
            embedding_dim=embedding_dim(dataset, options.train_split),
            position=options.position,
            encoder=options.encoder,
            category_loss=options.category_loss,
            slots=options.slots,
        ),
        options=options,
        labels=labels,
        recipe=index.recipe,
        content_id=index.content_id,
        source_id=index.source_id,
    )


def _set_up(
    config: RunConfig, options: TrainOptions, feed: Feed, processes: Processes
) -> _Training:
    """Return fresh heads with their optimizer, the same in every process."""
    torch.manual_seed(options.seed)
    model = TFDetHeads.from_config(config.heads).to(processes.device)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p *= options.dropout
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout *= options.dropout
    if options.standardise:
        model.standardise.fit(*feed.statistics())
    groups = parameter_groups(model, options.weight_decay)
    return _Training(
        options=options,
        processes=processes,
        feed=feed,
        model=model,
        wrapped=processes.wrapped(model),
        optimizer=torch.optim.AdamW(groups, lr=options.lr, fused=True),
        bf16=uses_bf16(options.precision, processes.device),
    )


def _go_on(training: _Training, run_dir: Path, config: RunConfig) -> tuple[int, list[EpochMetrics]]:
    """Bring a resumed training to its last complete checkpoint; return its epoch and the history.

    All epochs where the run is finished, 0 where there is nothing to go on from.
    """
    if not training.options.resume:
        return 0, []
    config = read_config(run_dir)
    done = load_checkpoint(run_dir, config, training.model, training.optimizer)
    if (run_dir / MODEL_FILE).is_file():
        epoch, state = read_tensors(run_dir / MODEL_FILE, config)
        if epoch == training.options.epochs:
            training.model.load_state_dict(state)
            done = epoch
    if not training.processes.leads:
        return done, []
    return done, truncate_history(run_dir, done)


def _is_scored(epoch: int, options: TrainOptions) -> bool:
    return epoch % options.validate_every == 0 or epoch == options.epochs


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)[0])


def _validate(model: TFDetHeads, loader: Loader | None, labels: LabelSpace) -> dict[str, float]:
    """Return the validation fields of EpochMetrics; none without a validation split."""
    if loader is None:
        return {}
    counts = score_split(model.eval(), loader, labels, constant=[min(labels.names)])
    return {
        "val_loss": counts.category_loss + counts.mask_loss,
        "val_category_loss": counts.category_loss,
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
