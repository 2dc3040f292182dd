"""Exact backbones: networks in integers, whose embeddings have the same bits on every machine.

docs/format.md, "Exact arithmetic", is normative. Weights and activations are integers of at most 8
significant bits, in bfloat16 or float32. Every partial sum of a convolution is an integer below
2²⁴, so that float32 holds it exactly, and no order of summation can change it. What follows the
sum are single, correctly rounded operations per number.

Between convolutions activations are rows of 64 numbers, the channels of 4, 2 or 1 places side by
side in channels-last order: compiled code is several times as fast with these as with 16 channels.

Shape legend: N inputs, O outputs and I inputs of a convolution, s side of a map, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vocprep.backbones import BACKBONES, DEFAULT_BACKBONE, Backbone, Normalisation
from vocprep.features.exact_integers import derive_integers
from vocprep.features.integer_network import (
    ACTIVATION_MAX,
    IntegerBlock,
    IntegerConvolution,
    IntegerNetwork,
    IntegerStage,
)
from vocprep.features.networks import cifar100_resnet32
from vocprep.features.weights import StateDict, load_strictly
from vocprep.geometry import PATCH


@dataclass(frozen=True)
class Carrier:
    """What computes the convolutions: the bits are the same with each that is exact."""

    dtype: torch.dtype
    """Which holds the integers: bfloat16 or float32."""
    tf32: bool = False
    """Whether a GPU may round float32 inputs to TF32, which holds the integers as well."""
    by_matmul: bool = False
    """Whether convolutions are matrix products of unfolded inputs: slower, but no library replaces
    these by an algorithm of another arithmetic, such as Winograd's."""

    def __str__(self) -> str:
        words = str(self.dtype).removeprefix("torch."), "tf32", "matmul"
        return " ".join(compress(words, (True, self.tf32, self.by_matmul)))


FLOAT32 = Carrier(torch.float32)
COLUMNS = 64
"""Numbers in a row of activations."""


def _constant(values: Tensor) -> nn.Parameter:
    """Return a parameter without gradient: the compiler lays out parameters, but not buffers."""
    return nn.Parameter(values, requires_grad=False)


def round_to_bfloat16(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Round float32 to 8 significant bits, ties to even, and return them as ``dtype``."""
    return values.to(torch.bfloat16).to(dtype)


def to_rows(x: Tensor) -> Tensor:
    """Return a map [N, C, s, s] as rows [N·s²·C/64, 64]."""
    return x.permute(0, 2, 3, 1).reshape(-1, COLUMNS)


def to_map(rows: Tensor, channels: int, side: int) -> Tensor:
    """Return contiguous rows as a map [N, C, s, s] in channels-last order.

    ``as_strided``, since the compiler copies the numbers one by one for ``view`` and ``permute``;
    exported programs have these.
    """
    if torch.compiler.is_exporting():
        return rows.view(-1, side, side, channels).permute(0, 3, 1, 2)
    count = rows.numel() // (channels * side * side)
    strides = side * side * channels, 1, side * channels, channels
    return rows.as_strided((count, channels, side, side), strides)


class ExactConvolution(nn.Module):
    """A convolution with its batch norm: map [N, I, s, s] → rows of [N, O, s', s']."""

    def __init__(self, integers: IntegerConvolution, carrier: Carrier) -> None:
        super().__init__()
        weight = torch.from_numpy(integers.weight).to(carrier.dtype)
        bias = torch.from_numpy(integers.bias).float()
        multiplier = torch.from_numpy(integers.multiplier)
        self.weight = _constant(weight.contiguous(memory_format=torch.channels_last))
        self.bias = _constant(bias.repeat(COLUMNS // len(bias)))
        self.multiplier = _constant(multiplier.repeat(COLUMNS // len(bias)))
        self.stride = integers.stride
        self.padding = weight.shape[-1] // 2
        self.by_matmul = carrier.by_matmul

    def forward(self, x: Tensor) -> Tensor:
        """Return round((sum + bias) × multiplier), the sum rounded to 8 significant bits."""
        sums = self._convolve_unfolded(x) if self.by_matmul else self._convolve(x)
        rounded = round_to_bfloat16(to_rows(sums), torch.float32)
        return rounded.add_(self.bias).mul_(self.multiplier).round_()

    def _convolve(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, stride=self.stride, padding=self.padding)

    def _convolve_unfolded(self, x: Tensor) -> Tensor:
        side = self.weight.shape[-1]
        columns = F.unfold(x, side, padding=self.padding, stride=self.stride)
        sums = self.weight.flatten(1) @ columns
        height, width = ((size - 1) // self.stride + 1 for size in x.shape[-2:])
        return sums.view(len(x), -1, height, width)


class ExactBlock(nn.Module):
    """Two convolutions with a shortcut, as ``networks.BasicBlock``: integers to integers."""

    def __init__(self, integers: IntegerBlock, carrier: Carrier, side: int) -> None:
        super().__init__()
        self.conv1 = ExactConvolution(integers.first, carrier)
        self.conv2 = ExactConvolution(integers.second, carrier)
        shortcut = integers.shortcut
        self.downsample = None if shortcut is None else ExactConvolution(shortcut, carrier)
        outputs, inputs = integers.first.weight.shape[:2]
        self.inputs = inputs, side
        self.inner = outputs, side // integers.first.stride
        self.dtype = carrier.dtype

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows of integers 0..2040 float32 of such rows."""
        rows = round_to_bfloat16(rows, self.dtype)
        x = to_map(rows, *self.inputs)
        shortcut = rows if self.downsample is None else self.downsample(x)
        y = round_to_bfloat16(self.conv1(x).clamp_(0, ACTIVATION_MAX), self.dtype)
        total: Tensor = self.conv2(to_map(y, *self.inner))
        return total.add_(shortcut).clamp_(0, ACTIVATION_MAX)


class ExactStage(nn.Module):
    """Blocks one after the other, and the real value of 1 in each channel of their output."""

    def __init__(self, integers: IntegerStage, carrier: Carrier, side: int) -> None:
        super().__init__()
        after = side // integers.blocks[0].first.stride
        self.blocks = nn.Sequential(
            *(
                ExactBlock(block, carrier, after if place else side)
                for place, block in enumerate(integers.blocks)
            )
        )
        self.outputs = len(integers.step), after
        self.step = _constant(torch.from_numpy(integers.step).float().view(-1, 1, 1))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the last block's output."""
        found: Tensor = self.blocks(rows)
        return found

    def pool(self, rows: Tensor, cells: int) -> Tensor:
        """Return means over square cells as real values [N, C·cells²].

        Nothing is rounded: a sum of 16 integers has at most 15 bits and a step has 8, so that
        float32 holds their product.
        """
        x = to_map(rows, *self.outputs)
        return (F.adaptive_avg_pool2d(x, cells) * self.step).flatten(1)


class ExactBackbone(nn.Module):
    """Pixels uint8 [N, 3, 32, 32] → embeddings float32 [N, D], as ``backbone.FrozenBackbone``.

    >>> from pathlib import Path
    >>> from vocprep.features.weights import load_weights
    >>> exact = ExactBackbone.from_weights(load_weights("random:0", Path("data")))
    >>> exact(torch.zeros(5, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([5, 256])
    """

    def __init__(
        self,
        integers: IntegerNetwork,
        backbone: Backbone,
        layers: Sequence[str],
        carrier: Carrier = FLOAT32,
    ) -> None:
        super().__init__()
        self.centre = _constant(torch.from_numpy(integers.centre).float().view(-1, 1, 1))
        self.stem = ExactConvolution(integers.stem, carrier)
        names = [f"layer{number}" for number in range(1, len(integers.stages) + 1)]
        last = max(names.index(name) for name in layers)
        self.names = names[: last + 1]
        sides = (PATCH >> max(place - 1, 0) for place in range(last + 1))
        self.stages = nn.Sequential(
            *(
                ExactStage(stage, carrier, side)
                for stage, side in zip(integers.stages, sides, strict=False)
            )
        )
        self.layers = tuple(layers)
        self.cells = {name: backbone.layers[name].cells for name in layers}
        self.dtype = carrier.dtype

    @classmethod
    def from_weights(
        cls,
        weights: StateDict,
        backbone: str = DEFAULT_BACKBONE,
        layers: Sequence[str] | None = None,
        normalisation: Normalisation | None = None,
        carrier: Carrier = FLOAT32,
    ) -> Self:
        """Build it from a network's full state dict; WeightsError when that does not fit."""
        described = BACKBONES[backbone]
        integers = integers_of(weights, normalisation or Normalisation())
        return cls(integers, described, layers or described.default_layers, carrier)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return embeddings."""
        centred = pixels.to(self.dtype, memory_format=torch.channels_last).sub_(self.centre)
        rows = self.stem(centred).clamp_(0, ACTIVATION_MAX)
        found = {}
        for name, stage in zip(self.names, self.stages, strict=True):
            rows = stage(rows)
            if name in self.cells:
                found[name] = cast(ExactStage, stage).pool(rows, self.cells[name])
        return torch.cat([found[name] for name in self.layers], dim=1)


def without_signed_zeros(embeddings: Tensor) -> NDArray[np.float32]:
    """Return embeddings on the CPU with +0 for -0.

    Clamping -0 to 0 gives either, by the instruction set. Done outside of the network, since a
    compiler may leave out what changes nothing but the sign of a zero.
    """
    found: NDArray[np.float32] = embeddings.cpu().numpy()
    found += 0
    return found


def integers_of(weights: StateDict, normalisation: Normalisation) -> IntegerNetwork:
    """Return the integers of a state dict; WeightsError when that does not fit."""
    network = cifar100_resnet32()
    load_strictly(network, weights)
    return derive_integers(network, normalisation)
