"""Steps: what one epoch of training does, in one process or in each of several."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vocprep.features.compiling import compiling
from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.losses import Losses, compute_losses
from vocprep.heads.model.spiking import reset_spike_counts, spike_rates
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.runs.options import StepPrecision, TrainOptions
from vocprep.heads.training.feed import Feed, StepBatch
from vocprep.heads.training.processes import Processes


@dataclass(frozen=True, kw_only=True)
class Training:
    """Heads in training, and what every epoch of it needs."""

    options: TrainOptions
    processes: Processes
    feed: Feed
    model: TFDetHeads
    compute_losses: Callable[[StepBatch], Losses]
    """Forward pass and losses of this process's part; the gradients that flow through them are
    means over all processes."""
    optimizer: torch.optim.Optimizer
    precision: Literal["bf16", "fp32"]
    """Of the matrix products."""


@dataclass(frozen=True, kw_only=True)
class EpochLosses:
    """What the steps of an epoch came to, over all processes."""

    class_loss: float
    mask_loss: float
    lr: float
    """Of the last step."""
    seconds: float
    spike_rates: dict[str, float]
    """By LIF layer; empty without spikes."""


def set_up(
    config: HeadsConfig, options: TrainOptions, feed: Feed, processes: Processes
) -> Training:
    """Return fresh heads with their optimizer, the same in every process."""
    torch.manual_seed(options.seed)
    model = TFDetHeads.from_config(config).to(processes.device)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p *= options.dropout_factor
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout *= options.dropout_factor
    if options.standardise:
        model.standardise.fit(*feed.statistics())
    groups = parameter_groups(model, options.weight_decay)
    bf16 = uses_bf16(options.precision, processes.device)
    return Training(
        options=options,
        processes=processes,
        feed=feed,
        model=model,
        compute_losses=_losses_of(processes.wrapped(model), config, bf16, options.compiled),
        optimizer=torch.optim.AdamW(groups, lr=options.lr, fused=True),
        precision="bf16" if bf16 else "fp32",
    )


def _losses_of(
    model: nn.Module, config: HeadsConfig, bf16: bool, compiled: bool
) -> Callable[[StepBatch], Losses]:
    """Return the function from a batch to its losses, compiled where that is wanted."""

    def losses_of(batch: StepBatch) -> Losses:
        with torch.autocast(batch.embeddings.device.type, torch.bfloat16, enabled=bf16):
            class_logits, mask_logits = model(batch.embeddings, batch.padding, batch.grids)
        return compute_losses(class_logits, mask_logits, batch, config.class_loss, config.slots)

    return torch.compile(losses_of) if compiled else losses_of


def learn_epoch(training: Training, epoch: int) -> EpochLosses:
    """Learn from the split once; epochs count from 1."""
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
        with _compiler_of(options):
            losses = _losses(training, batch)
            training.optimizer.zero_grad(set_to_none=True)
            # The gradients are means over processes where the losses' parts want the sum.
            (losses.sum() * processes.world).backward()  # type: ignore[no-untyped-call]  # torch's own gap
        nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        training.optimizer.step()
        # Summed on the device: reading a loss here would make the GPU wait every step.
        loss_sums += losses.detach() * batch.images

    class_loss, mask_loss = (processes.total(loss_sums) / training.feed.samples).tolist()
    return EpochLosses(
        class_loss=class_loss,
        mask_loss=mask_loss,
        lr=rate,
        seconds=time.perf_counter() - started,
        spike_rates=spike_rates(model),
    )


def _compiler_of(options: TrainOptions) -> AbstractContextManager[None]:
    """Return what tells the compiler's failures, which come at the first batch of each shape."""
    if not options.compiled:
        return nullcontext()
    from torch._dynamo.exc import TorchDynamoException  # noqa: PLC0415  # slow to load

    return compiling("the heads do", TorchDynamoException)


def _losses(training: Training, batch: StepBatch) -> Tensor:
    """Return this process's part of the batch's class and mask loss, [2]."""
    losses = training.compute_losses(batch)
    # Means over the whole batch, so that its parts weigh by what they teach.
    counts = training.processes.total(torch.stack([losses.patches, losses.entries]))
    return torch.stack([losses.class_sum, losses.mask_sum]) / counts.clamp(min=1)


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


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)[0])
