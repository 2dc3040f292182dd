"""Training: one loop over cached embeddings, from fresh heads to a run folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vocprep.errors import RunError
from vocprep.features.embed import choose_device
from vocprep.heads.history import EpochMetrics, append_epoch
from vocprep.heads.losses import compute_losses
from vocprep.heads.options import TrainOptions, require_split
from vocprep.heads.run import LabelSpace, RunConfig, prepare_run_dir, save_weights
from vocprep.heads.score import embedding_dim, score_split
from vocprep.heads.tfdet import HeadsConfig, TFDetHeads
from vocprep.shards.reader import Loader, LoaderOptions, ShardDataset


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a training came to."""

    run_dir: Path
    device: str
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


def train(
    dataset: ShardDataset,
    run_dir: Path,
    options: TrainOptions | None = None,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
) -> RunSummary:
    """Train fresh heads on a dataset's train split and leave a run in ``run_dir``.

    ``on_epoch`` is called after each epoch. On one CPU and torch version a seed gives the same
    weights, bit for bit. The caller's random state is left as it was.

    Raises UsageError, before anything is written, when a split or the device is missing or the
    folder holds a run; RunError when the loss stops being a number.
    """
    options = options or TrainOptions()
    device = choose_device(options.device)
    train_loader, val_loader = _loaders(dataset, options)
    config = _run_config(dataset, options)
    prepare_run_dir(run_dir, config)
    started, history = time.perf_counter(), []

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(options.seed)
        model = TFDetHeads.from_config(config.heads).to(device)
        groups = parameter_groups(model, options.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=options.lr, fused=True)
        total_steps, step = options.epochs * len(train_loader), 0

        for epoch in range(1, options.epochs + 1):
            epoch_started = time.perf_counter()
            train_loader.set_epoch(epoch)
            model.train()
            loss_sums = torch.zeros(2, dtype=torch.float64, device=device)

            for loaded in train_loader:
                batch = loaded.to(device)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, total_steps, options)
                category_logits, mask_logits = model(batch.embeddings, batch.padding, batch.grids)
                losses = compute_losses(category_logits, mask_logits, batch)
                optimizer.zero_grad(set_to_none=True)
                losses.total.backward()  # type: ignore[no-untyped-call]  # torch's own gap
                nn.utils.clip_grad_norm_(model.parameters(), options.clip)
                optimizer.step()
                # Summed on the device: reading a loss here would make the GPU wait every step.
                batch_losses = torch.stack([losses.category, losses.mask]).detach()
                loss_sums += batch_losses * len(batch.image_ids)
                step += 1

            category_loss, mask_loss = (loss_sums / train_loader.samples).tolist()
            train_seconds = time.perf_counter() - epoch_started
            scored = epoch % options.validate_every == 0 or epoch == options.epochs
            validation = _validate(model, val_loader, config.labels) if scored else {}
            metrics = EpochMetrics(
                epoch=epoch,
                lr=optimizer.param_groups[0]["lr"],
                loss=category_loss + mask_loss,
                category_loss=category_loss,
                mask_loss=mask_loss,
                images_per_second=train_loader.samples / train_seconds,
                seconds=time.perf_counter() - epoch_started,
                **validation,
            )
            _check_finite(metrics, run_dir)
            append_epoch(run_dir, metrics)
            if scored:
                save_weights(run_dir, config, model, epoch)
            history.append(metrics)
            if on_epoch is not None:
                on_epoch(metrics)

    return RunSummary(
        run_dir=run_dir,
        device=str(device),
        images=train_loader.samples,
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        seconds=time.perf_counter() - started,
        history=tuple(history),
    )


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


def _loaders(dataset: ShardDataset, options: TrainOptions) -> tuple[Loader, Loader | None]:
    """Open what is learnt from (shuffled, all views) and what is scored (identity, or None)."""
    require_split(dataset.splits, options.train_split, "train_split")
    if options.val_split:
        require_split(dataset.splits, options.val_split, "val_split")
    train_loader = dataset.loader(
        options.train_split,
        LoaderOptions(
            batch_size=options.batch_size,
            mode=options.mode,
            shuffle=True,
            seed=options.seed,
            all_views=True,
        ),
    )
    if not options.val_split:
        return train_loader, None
    val_options = LoaderOptions(batch_size=options.batch_size, mode=options.mode, label_maps=True)
    return train_loader, dataset.loader(options.val_split, val_options)


def _run_config(dataset: ShardDataset, options: TrainOptions) -> RunConfig:
    """Decide the run: sizes from the data, everything else from the options."""
    labels = LabelSpace.of(dataset.schema)
    index = dataset.index
    return RunConfig(
        heads=HeadsConfig(
            categories=labels.categories,
            embedding_dim=embedding_dim(dataset, options.train_split),
            position=options.position,
        ),
        options=options,
        labels=labels,
        recipe=index.recipe,
        content_id=index.content_id,
        source_id=index.source_id,
    )


def _validate(model: TFDetHeads, loader: Loader | None, labels: LabelSpace) -> dict[str, float]:
    """Return the validation fields of EpochMetrics; none without a validation split."""
    if loader is None:
        return {}
    counts = score_split(model.eval(), loader, labels)
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
