"""A network in integers: what exact arithmetic computes with, as plain arrays.

``exact_integers`` derives it from float weights, ``exact`` runs it.

Shape legend: O outputs and I inputs of a convolution, k side of its kernels, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

SUM_LIMIT = 1 << 24
"""Every partial sum of a convolution is smaller than this, so that float32 holds it exactly."""
ACTIVATION_MAX = 2040
"""Largest activation, an integer of 8 significant bits."""

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Range:
    """The integers that stand for inputs, per channel [C]: real value = step × integer."""

    step: Reals
    low: Integers
    high: Integers

    @classmethod
    def of_activations(cls, step: Reals) -> Self:
        """Return the range after a ReLU: 0 to ``ACTIVATION_MAX``."""
        low = np.zeros(step.shape, dtype=np.int64)
        return cls(step=step, low=low, high=low + ACTIVATION_MAX)


@dataclass(frozen=True, kw_only=True)
class IntegerConvolution:
    """A convolution and its batch norm: output = round((sum + bias) × multiplier)."""

    weight: Integers
    """[O, I, k, k], of at most 8 significant bits."""
    bias: Integers
    """[O], below 2²⁴."""
    multiplier: NDArray[np.float32]
    """[O]"""
    largest_sum: int
    """What no partial sum exceeds in absolute value, whatever the input; below 2²⁴."""
    stride: int = 1


@dataclass(frozen=True, kw_only=True)
class IntegerBlock:
    """The convolutions of a ``BasicBlock``."""

    first: IntegerConvolution
    second: IntegerConvolution
    shortcut: IntegerConvolution | None


@dataclass(frozen=True, kw_only=True)
class IntegerStage:
    """Blocks whose outputs have the same steps, so that shortcuts are added as integers."""

    blocks: tuple[IntegerBlock, ...]
    step: Reals
    """[C], of 8 significant bits each."""


@dataclass(frozen=True, kw_only=True)
class IntegerNetwork:
    """A ``CifarResNet`` in integers, without its classifier."""

    centre: Integers
    """[3]: what is subtracted from each pixel, so that padding by zeros is padding by the mean."""
    stem: IntegerConvolution
    stages: tuple[IntegerStage, ...]

    def convolutions(self) -> Iterator[tuple[str, IntegerConvolution]]:
        """Yield every convolution with its name in the float network."""
        yield "conv1", self.stem
        for number, stage in enumerate(self.stages, 1):
            for place, block in enumerate(stage.blocks):
                name = f"layer{number}.{place}"
                yield f"{name}.conv1", block.first
                yield f"{name}.conv2", block.second
                if block.shortcut is not None:
                    yield f"{name}.downsample", block.shortcut
