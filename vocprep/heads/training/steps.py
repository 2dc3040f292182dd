"""One training step, and the epoch that repeats it, in one process or in each of several.

Several heads may be trained on one pass over the batches. Each then takes the steps that it would
take alone, with the same random numbers, so that its bits are those of a training of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vocprep.features.compiling import compiler_options, compiling
from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.losses import Losses, compute_losses, with_shared_targets
from vocprep.heads.model.spiking import reset_spike_counts, spike_rates
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.runs.options import StepPrecision, TrainOptions
from vocprep.heads.training.distributed import Processes
from vocprep.heads.training.feed import Feed
from vocprep.heads.training.weight_mean import WeightMean
from vocprep.progress import NO_PROGRESS, Progress, advancing
from vocprep.shards.feed.batches import Batch


@dataclass(frozen=True, kw_only=True)
class Training:
    """Heads in training, and what every step of it needs."""

    options: TrainOptions
    processes: Processes
    feed: Feed
    model: TFDetHeads
    compute_losses: Callable[[Batch], Losses]
    """Forward pass and losses of this rank's part of a batch; the gradients that flow through them
    are means over all ranks."""
    optimizer: torch.optim.Optimizer
    precision: Literal["bf16", "fp32"]
    """Of the matrix products."""
    mean: WeightMean | None = None
    """Of the weights in training; None where ``ema`` is 0."""

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0."""
        total_steps = self.options.epochs * len(self.feed.batch_sizes)
        return learning_rate(step, total_steps, self.options)

    @property
    def mean_model(self) -> TFDetHeads | None:
        """The heads with the mean of the weights."""
        return None if self.mean is None else self.mean.model

    @property
    def kept_model(self) -> TFDetHeads:
        """The heads that are validated and that the run keeps."""
        return self.mean_model or self.model


@dataclass(frozen=True, kw_only=True)
class EpochLosses:
    """The result of an epoch's steps, over all ranks."""

    class_loss: float
    mask_loss: float
    lr: float
    """Of the last step."""
    seconds: float
    spike_rates: dict[str, float]
    """By LIF layer; empty without spikes."""


def train_epoch(
    trainings: Sequence[Training], epoch: int, progress: Progress = NO_PROGRESS
) -> list[EpochLosses]:
    """Train one or several heads on the split once; epochs count from 1.

    All have one feed, one seed and one number of epochs. Every batch is one unit of ``progress``.
    """
    first, started = trainings[0], time.perf_counter()
    options, feed, processes = first.options, first.feed, first.processes
    # Dropout depends on nothing before this epoch, so that a resumed training draws the same.
    torch.manual_seed(_epoch_seed(options.seed, epoch, processes.rank))
    for training in trainings:
        reset_spike_counts(training.model)
        training.model.train()
    loss_sums = torch.zeros(len(trainings), 2, dtype=torch.float64, device=processes.device)
    steps = len(feed.batch_sizes)

    for number, batch in enumerate(advancing(feed.batches(epoch), progress)):
        losses = _step_each(trainings, batch, (epoch - 1) * steps + number)
        # Summed on the device: reading a loss here would make the GPU wait every step.
        loss_sums += losses * feed.batch_sizes[number]

    means = processes.total(loss_sums) / sum(feed.batch_sizes)
    return [
        EpochLosses(
            class_loss=class_loss,
            mask_loss=mask_loss,
            lr=training.learning_rate(epoch * steps - 1),
            seconds=time.perf_counter() - started,
            spike_rates=spike_rates(training.model),
        )
        for training, (class_loss, mask_loss) in zip(trainings, means.tolist(), strict=True)
    ]


def _step_each(trainings: Sequence[Training], batch: Batch, step: int) -> Tensor:
    """Take a step, counted from 0, with each of the heads; return their losses, [N, 2]."""
    device = trainings[0].processes.device
    # Alone, each would draw the numbers from this state on, and as many of them as any other.
    state = None
    if len(trainings) > 1:
        state = _random_state(device)
        batch = with_shared_targets(batch, trainings[0].model.config)
    losses = []
    for training in trainings:
        if state is not None:
            _set_random_state(state, device)
        losses.append(train_step(training, batch, training.learning_rate(step)))
        if training.mean is not None:
            training.mean.update(step)
    return torch.stack(losses)


def train_step(training: Training, batch: Batch, lr: float) -> Tensor:
    """Take one step on this rank's part of a batch and return its class and mask loss, [2]."""
    processes, optimizer = training.processes, training.optimizer
    for group in optimizer.param_groups:
        group["lr"] = lr
    with _compiler_errors(training.options):
        parts = training.compute_losses(batch)
        # Means over the whole batch, so that its parts weigh by their patches and pixels.
        counts = processes.total(torch.stack([parts.patches, parts.entries]))
        losses = torch.stack([parts.class_sum, parts.mask_sum]) / counts.clamp(min=1)
        optimizer.zero_grad(set_to_none=True)
        # The gradients are means over ranks where the sum over the batch's parts is needed.
        (losses.sum() * processes.world_size).backward()  # type: ignore[no-untyped-call]  # torch's own gap
    nn.utils.clip_grad_norm_(training.model.parameters(), training.options.clip)
    optimizer.step()
    return losses.detach()


def learning_rate(step: int, total_steps: int, options: TrainOptions) -> float:
    """Return the rate of a step counted from 0: a linear rise to ``lr``, then a cosine to 0.

    >>> options = TrainOptions(lr=1.0, warmup=0.2)
    >>> [round(learning_rate(step, 10, options), 2) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    warmup_steps = int(options.warmup * total_steps)
    if step < warmup_steps:
        return options.lr * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return options.lr * 0.5 * (1 + math.cos(math.pi * progress))


def set_up(
    config: HeadsConfig, options: TrainOptions, feed: Feed, processes: Processes
) -> Training:
    """Return fresh heads with their optimizer, the same on every rank."""
    torch.manual_seed(options.seed)
    model = TFDetHeads.from_config(config).to(processes.device)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p *= options.dropout_factor
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout *= options.dropout_factor
    if options.standardise:
        model.standardise.fit(*feed.statistics())
    mean = WeightMean(model, options.ema) if options.ema else None
    groups = parameter_groups(model, options.weight_decay)
    bf16 = uses_bf16(options.precision, processes.device)
    losses_of = _loss_function(processes.wrapped(model), config, bf16)
    return Training(
        options=options,
        processes=processes,
        feed=feed,
        model=model,
        compute_losses=_compiled(losses_of) if options.compiled else losses_of,
        optimizer=torch.optim.AdamW(groups, lr=options.lr, fused=True),
        precision="bf16" if bf16 else "fp32",
        mean=mean,
    )


def _loss_function(model: nn.Module, config: HeadsConfig, bf16: bool) -> Callable[[Batch], Losses]:
    """Return the function from a batch to its losses: the part of a step that can be compiled."""

    def losses_of(batch: Batch) -> Losses:
        padding = batch.padding if batch.has_padding else None
        drawn = batch.mixed if config.draws_mixed_alone else None
        with torch.autocast(batch.embeddings.device.type, torch.bfloat16, enabled=bf16):
            class_logits, mask_logits = model(batch.embeddings, padding, batch.grids, drawn)
        return compute_losses(class_logits, mask_logits, batch, config)

    return losses_of


def _compiled(losses_of: Callable[[Batch], Losses]) -> Callable[[Batch], Losses]:
    compiled: Callable[[Batch], Losses] = torch.compile(losses_of, options=compiler_options())
    return compiled


def _compiler_errors(options: TrainOptions) -> AbstractContextManager[None]:
    """Return what explains the compiler's errors, which come at the first batch of each shape."""
    if not options.compiled:
        return nullcontext()
    from torch._dynamo.exc import TorchDynamoException  # noqa: PLC0415  # slow to load

    return compiling("the heads do", TorchDynamoException)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups: weight decay applies to matrices, not to biases and norms."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def uses_bf16(precision: StepPrecision, device: torch.device) -> bool:
    """Return whether matrix products are in bfloat16: as set, or ``auto`` on hardware with it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Newer torch only; without it a CPU is taken to be an older one.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16"))


def _random_state(device: torch.device) -> Tensor:
    """Return the state of the generator that draws on a device."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(state: Tensor, device: torch.device) -> None:
    """Draw on a device from a state on."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)[0])
