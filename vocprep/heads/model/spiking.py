"""Spikformer: an encoder of spiking neurons (Zhou et al., ICLR 2023).

Layers pass spikes on, 0 or 1, at each of T time steps; residual sums are small whole numbers.
Padded places are kept at zero, so that they affect no other place, neither through attention nor
through the statistics of a norm.

Shape legend: T time steps, B batch, P patches, W = 256 width, d = W / heads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn

from vocprep.heads.model.config import WIDTH

STEPS = 4
"""T: how often the input is presented."""
DEPTH = 4
"""Blocks, as in the authors' Spikformer-4."""
ATTENTION_HEADS = 8
HIDDEN = 4 * WIDTH
ATTENTION_SCALE = 0.125
"""The authors' constant, which bounds the sums of spikes in place of a softmax."""
ATTENTION_THRESHOLD = 0.5
"""The authors' threshold of the neurons behind the attention; all others have 1."""


class _ATanSpike(torch.autograd.Function):
    """A step function whose gradient is that of arctan, with spikingjelly's default width."""

    @staticmethod
    def forward(ctx: Any, excess: Tensor) -> Tensor:
        ctx.save_for_backward(excess)
        return (excess >= 0).to(excess.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (excess,) = ctx.saved_tensors
        gradient: Tensor = gradients[0] / (1 + (math.pi * excess).square())
        return gradient


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons: tau 2, hard reset to 0, ATan surrogate gradient.

    The membrane moves half-way towards the input, fires at ``threshold`` and is reset to 0. As
    in the authors' code, no gradient flows through the reset.
    """

    tau = 2.0
    fired: Tensor
    sites: Tensor

    def __init__(self, threshold: float = 1.0) -> None:
        super().__init__()
        self.threshold = threshold
        # Summed where the spikes are, so that counting does not make a GPU wait.
        for name in ("fired", "sites"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64), persistent=False)

    def forward(self, current: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the spikes [T, …] of input currents float [T, …].

        ``keep`` is 1 or 0 and broadcasts against one step: places of 0 neither fire nor count.
        """
        membrane = torch.zeros_like(current[0])
        spikes = []
        for step in current.unbind(0):
            membrane = membrane + (step - membrane) / self.tau
            spike: Tensor = _ATanSpike.apply(membrane - self.threshold)
            membrane = membrane * (1 - spike.detach())
            spikes.append(spike if keep is None else spike * keep)
        train = torch.stack(spikes)
        if not torch.compiler.is_exporting():  # an exported program has no state
            self._count(train.detach(), keep)
        return train

    def _count(self, train: Tensor, keep: Tensor | None) -> None:
        self.fired += train.sum(dtype=torch.float64)
        if keep is None:
            self.sites += train.numel()
        else:
            self.sites += keep.sum(dtype=torch.float64) * (train.numel() / keep.numel())


class RealBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of [T, B, P, C] with the statistics of the real patches alone.

    Where several processes train together, of those of all ranks, so that their number changes
    nothing.
    """

    def forward(self, inputs: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the normalised inputs; ``keep`` is 1 or 0 [B, P, 1], None for all real."""
        inputs = _full_precision(inputs)
        if not self.training:
            return self._scaled(inputs, self._buffer("running_mean"), self._buffer("running_var"))
        together = dist.is_available() and dist.is_initialized()
        # torch's own is fused, and refuses a batch of one patch.
        if keep is None and not together and inputs[..., 0].numel() > 1:
            normalised: Tensor = super().forward(inputs.flatten(0, -2)).view_as(inputs)
            return normalised
        weight = (
            torch.ones_like(inputs[..., :1]) if keep is None else keep.expand_as(inputs[..., :1])
        )
        places = tuple(range(inputs.ndim - 1))
        count = _over_processes(weight.sum(), together)
        mean = _over_processes((inputs * weight).sum(places), together) / count.clamp(min=1)
        squares = ((inputs - mean).square() * weight).sum(places)
        variance = _over_processes(squares, together) / count.clamp(min=1)
        self._update_statistics(mean.detach(), variance.detach(), count)
        return self._scaled(inputs, mean, variance)

    def _scaled(self, inputs: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return (inputs - mean) * (torch.rsqrt(variance + self.eps) * self.weight) + self.bias

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Update the running statistics; a step without a real patch changes nothing."""
        share = (self.momentum or 0.0) * (count > 0)
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self._buffer("running_mean").lerp_(mean, share)
        self._buffer("running_var").lerp_(unbiased, share)
        self._buffer("num_batches_tracked").add_(1)

    def _buffer(self, name: str) -> Tensor:
        return self.get_buffer(name)


def _full_precision(values: Tensor) -> Tensor:
    """Return bfloat16 of autocast as float32, which membranes and statistics need."""
    return values.float() if values.dtype == torch.bfloat16 else values


def _over_processes(value: Tensor, together: bool) -> Tensor:
    """Return the sum of a value over all ranks, gradients included."""
    if not together:
        return value
    summed: Tensor = dist_nn.all_reduce(value)  # type: ignore[no-untyped-call]  # torch's own gap
    return summed


class SpikingLinear(nn.Module):
    """LIF(BN(Linear)) over [T, B, P, ·]; the norm's shift serves as the layer's bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = RealBatchNorm(outputs)
        self.lif = LIF()

    def forward(self, spikes: Tensor, keep: Tensor | None) -> Tensor:
        """Return spikes [T, B, P, outputs]."""
        fired: Tensor = self.lif(self.norm(self.linear(spikes), keep), keep)
        return fired


class SpikingAttention(nn.Module):
    """Spiking self-attention: (q kᵀ) v · scale of spikes q, k, v, no softmax; then LIF, Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (SpikingLinear(WIDTH, WIDTH) for _ in range(3))
        self.lif = LIF(ATTENTION_THRESHOLD)
        self.project = SpikingLinear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor, keep: Tensor | None) -> Tensor:
        """Return spikes [T, B, P, W]; padded keys have no spikes and add nothing."""
        q, k, v = (
            layer(tokens, keep).unflatten(-1, (ATTENTION_HEADS, -1)).transpose(-3, -2)
            for layer in (self.q, self.k, self.v)
        )
        # Without a softmax the product may be computed from the right: d×d sums, not P×P. They are
        # whole numbers, the same either way.
        mixed = (q @ (k.transpose(-2, -1) @ v)).transpose(-3, -2).flatten(-2)
        spikes = self.lif(_full_precision(mixed) * ATTENTION_SCALE, keep)
        projected: Tensor = self.project(spikes, keep)
        return projected


class SpikingBlock(nn.Module):
    """Attention and an MLP, each adding its spikes to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SpikingAttention()
        self.expand = SpikingLinear(WIDTH, HIDDEN)
        self.contract = SpikingLinear(HIDDEN, WIDTH)

    def forward(self, tokens: Tensor, keep: Tensor | None) -> Tensor:
        """Return small whole numbers [T, B, P, W]."""
        tokens = tokens + self.attention(tokens, keep)
        added: Tensor = self.contract(self.expand(tokens, keep), keep)
        return tokens + added


class Spikformer(nn.Module):
    """The encoder: the tokens presented T times, spiking blocks, the mean over time."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm = RealBatchNorm(WIDTH)
        self.lif = LIF()
        self.blocks = nn.ModuleList(SpikingBlock() for _ in range(DEPTH))

    def forward(
        self, tokens: Tensor, padding: Tensor | None = None, grids: Tensor | None = None
    ) -> Tensor:
        """Return float [B, P, W] of tokens [B, P, W]; 0 where padded."""
        del grids  # the position code is in the tokens
        keep = None if padding is None else (~padding).unsqueeze(-1).to(tokens.dtype)
        if padding is not None:
            tokens = tokens.masked_fill(padding.unsqueeze(-1), 0)
        # The same input at every step needs one Linear and one norm.
        current = self.norm(self.embed(tokens).unsqueeze(0), keep)
        spikes = self.lif(current.expand(STEPS, *current.shape[1:]), keep)
        for block in self.blocks:
            spikes = block(spikes, keep)
        encoded: Tensor = spikes.mean(dim=0)
        return encoded


def reset_spike_counts(model: nn.Module) -> None:
    """Set the spike counts of all LIF layers to 0."""
    for module in model.modules():
        if isinstance(module, LIF):
            module.fired.zero_()
            module.sites.zero_()


def spike_rates(model: nn.Module) -> dict[str, float]:
    """Return each LIF layer's share of neurons and steps that fired, by the layer's name.

    Counted over the real patches since the last reset, on all ranks; empty without spikes.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, LIF)}
    if not layers:
        return {}
    counts = torch.stack([torch.stack([m.fired, m.sites]) for m in layers.values()])
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(counts)
    rates = (counts[:, 0] / counts[:, 1].clamp(min=1)).tolist()
    return dict(zip(layers, rates, strict=True))
