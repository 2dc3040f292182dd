"""The integers of the exact arithmetic, derived from a network's float weights.

docs/format.md, "Exact arithmetic", is normative. Every number follows from the weights by single,
correctly rounded operations of IEEE 754 binary64, by ``math.fsum``, whose result is the exact sum
rounded once, and by integers: no result depends on a library's order of summation, and each machine
derives the same integers.

Shape legend: O outputs and I inputs of a convolution, k side of its kernels, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vocprep.backbones import Normalisation
from vocprep.errors import WeightsError
from vocprep.features.integer_network import (
    ACTIVATION_MAX,
    SUM_LIMIT,
    IntegerBlock,
    IntegerConvolution,
    IntegerNetwork,
    Integers,
    IntegerStage,
    Range,
    Reals,
)
from vocprep.features.networks import BasicBlock, CifarResNet

SIGNIFICANT_BITS = 8
"""Of weights and activations, as bfloat16 has them."""
WEIGHT_MAX = 1020
"""What a channel's largest weight is scaled to, unless the bound on sums makes it smaller."""
DEVIATIONS = 11
"""Standard deviations above its mean at which an activation reaches ``ACTIVATION_MAX``."""
LEAST_RANGE = 2.0**-20
"""Range of a channel whose batch norm says that it is constant and not positive."""
LEAST_MULTIPLIER = 2.0**-24
"""With a smaller one all of a channel's sums would round to zero."""
MULTIPLIER_LIMIT = 2.0**60
"""Multipliers of a trained network are far below; beyond, float32 could overflow."""

Number = TypeVar("Number", bound=np.generic)


def derive_integers(network: CifarResNet, normalisation: Normalisation) -> IntegerNetwork:
    """Return the integers of a network and the normalisation of its inputs.

    Raises WeightsError for weights that no such integers stand for, since they are not finite when
    multiplied with their batch norms, or far out of the range of trained ones.
    """
    with np.errstate(all="ignore"):  # _quantise refuses what is not finite
        return _derive(network, normalisation)


def _derive(network: CifarResNet, normalisation: Normalisation) -> IntegerNetwork:
    mean = 255 * np.array(normalisation.mean)
    centre = np.rint(mean).astype(np.int64)
    pixels = Range(step=1 / (255 * np.array(normalisation.std)), low=-centre, high=255 - centre)
    stem = _fold(network.conv1, network.bn1)
    off_centre = (stem.weight * _per_input(pixels.step)) * _per_input(centre - mean)
    stem.shift = stem.shift + np.array([math.fsum(taps.ravel()) for taps in off_centre])
    moments = stem.moments
    parts: list[Sequence[BasicBlock]] = [network.layer1, network.layer2, network.layer3]  # type: ignore[list-item]  # of nn.Sequential
    stages: list[IntegerStage] = []
    trunk = pixels
    for blocks in parts:
        step, moments = _trunk_step(blocks, moments)
        inputs, trunk = trunk, Range.of_activations(step)
        if not stages:
            first = _quantise("conv1", stem, inputs, step)
            inputs = trunk
        name = f"layer{len(stages) + 1}"
        made = [
            _derive_block(f"{name}.{place}", block, inputs if place == 0 else trunk, step)
            for place, block in enumerate(blocks)
        ]
        stages.append(IntegerStage(blocks=tuple(made), step=step))
    return IntegerNetwork(centre=centre, stem=first, stages=tuple(stages))


def _derive_block(name: str, block: BasicBlock, inputs: Range, step: Reals) -> IntegerBlock:
    """Return a block's integers; ``step`` is that of its output."""
    first, second = _fold(block.conv1, block.bn1), _fold(block.conv2, block.bn2)
    inner = Range.of_activations(_step(first.moments.peak))
    shortcut = _downsample(block)
    return IntegerBlock(
        first=_quantise(f"{name}.conv1", first, inputs, inner.step),
        second=_quantise(f"{name}.conv2", second, inner, step),
        shortcut=None
        if shortcut is None
        else _quantise(f"{name}.downsample", shortcut, inputs, step),
    )


@dataclass(frozen=True)
class _Moments:
    """Mean and variance of activations, per channel [C]."""

    mean: Reals
    variance: Reals

    @property
    def peak(self) -> Reals:
        """What is taken for the largest value after a ReLU."""
        deviation = np.sqrt(self.variance)
        highest: Reals = np.maximum(self.mean + DEVIATIONS * deviation, deviation)
        return np.maximum(highest, LEAST_RANGE)

    def __add__(self, other: _Moments) -> _Moments:
        """Return the moments of the sum of independent activations."""
        return _Moments(self.mean + other.mean, self.variance + other.variance)

    def after_relu(self) -> _Moments:
        """Return roughly the moments of the positive part, taken to be normally distributed.

        The share above zero is taken as (1 + m/r) / 2 with r² = m² + 0.64 v, which gives the mean
        of a normal variable's positive part within 7 % of its standard deviation.
        """
        r = np.sqrt(self.mean * self.mean + 0.64 * self.variance)
        share = (1 + self.mean / np.maximum(r, LEAST_RANGE)) / 2
        return _Moments(share * r, share * self.variance)


@dataclass
class _Folded:
    """A convolution times the scale of its batch norm, and what is added to its output."""

    weight: Reals
    """[O, I, k, k]"""
    shift: Reals
    """[O]"""
    moments: _Moments
    """Of the output over the data that the network was trained on, by the batch norm."""
    stride: int


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> _Folded:
    gamma, beta = _reals(norm.weight), _reals(norm.bias)
    mean, variance = _reals(norm.running_mean), _reals(norm.running_var)
    scale = gamma / np.sqrt(variance + norm.eps)
    return _Folded(
        weight=_reals(convolution.weight) * scale[:, None, None, None],
        shift=beta - mean * scale,
        moments=_Moments(beta, gamma * gamma),
        stride=convolution.stride[0],
    )


def _downsample(block: BasicBlock) -> _Folded | None:
    return None if block.downsample is None else _fold(*block.downsample)  # type: ignore[misc]  # of nn.Sequential


def _trunk_step(blocks: Sequence[BasicBlock], moments: _Moments) -> tuple[Reals, _Moments]:
    """Return the step of a stage's outputs and the moments of its last one, before the ReLU.

    ``moments`` are those of what enters it, before the ReLU.
    """
    peaks = []
    for block in blocks:
        folded = _downsample(block)
        if folded is None:
            peaks.append(moments.peak)
        shortcut = moments.after_relu() if folded is None else folded.moments
        moments = shortcut + _fold(block.conv2, block.bn2).moments
    return _step(np.maximum.reduce([*peaks, moments.peak])), moments


def _step(peak: Reals) -> Reals:
    """Return peak / ``ACTIVATION_MAX`` rounded up to 8 significant bits."""
    fraction, exponent = np.frexp(peak / ACTIVATION_MAX)
    step: Reals = np.ldexp(np.ceil(fraction * 2**SIGNIFICANT_BITS), exponent - SIGNIFICANT_BITS)
    return step


def _quantise(name: str, folded: _Folded, inputs: Range, step: Reals) -> IntegerConvolution:
    """Return the integers of a convolution from ``inputs`` to outputs of a step."""
    weight = folded.weight * _per_input(inputs.step)
    scale = _smallest_scale(weight, folded.shift, inputs, step)
    if not np.isfinite(scale).all() or (scale / step >= MULTIPLIER_LIMIT).any():
        raise WeightsError(
            f"weights: what surrounds {name} is out of the range that precision 'exact' is defined "
            "for; expected weights of a trained network, or use --precision fp32"
        )
    while True:
        integers = _round_taps(weight / scale[:, None, None, None])
        largest = _largest_sums(integers, inputs)
        exceeding = largest >= SUM_LIMIT
        if not exceeding.any():
            break
        scale = np.where(exceeding, scale * (1 + 2.0**-10), scale)
    return IntegerConvolution(
        weight=integers,
        bias=np.rint(folded.shift / scale).astype(np.int64),
        multiplier=(scale / step).astype(np.float32),
        largest_sum=int(largest.max()),
        stride=folded.stride,
    )


def _smallest_scale(weight: Reals, shift: Reals, inputs: Range, step: Reals) -> Reals:
    """Return per output the real value of an integer weight of 1: as small as the bounds allow."""
    products = weight * _per_input(inputs.high), weight * _per_input(inputs.low)
    highest, lowest = np.maximum(*products), np.minimum(*products)
    sums = [
        max(math.fsum(up.ravel()), -math.fsum(down.ravel()))
        for up, down in zip(highest, lowest, strict=True)
    ]
    bounds = (
        np.abs(weight).max(axis=(1, 2, 3)) / WEIGHT_MAX,
        np.array(sums) / (SUM_LIMIT - 1),
        np.abs(shift) / (SUM_LIMIT - 1),
        step * LEAST_MULTIPLIER,
    )
    scale: Reals = np.maximum.reduce(bounds)
    return scale


def _round_taps(weight: Reals) -> Integers:
    """Round weights [O, I, k, k] to integers of 8 significant bits, tap by tap.

    What is lost at one tap of a kernel is added to the next, row by row, so that the sum of each
    kernel is kept: neighbouring pixels are alike, and most of the error cancels.
    """
    taps = weight.reshape(*weight.shape[:2], -1)
    rounded, lost = np.empty_like(taps), np.zeros(taps.shape[:2])
    for tap in range(taps.shape[2]):
        wanted = taps[:, :, tap] + lost
        rounded[:, :, tap] = _to_significant_bits(np.rint(wanted))
        lost = wanted - rounded[:, :, tap]
    return rounded.reshape(weight.shape).astype(np.int64)


def _to_significant_bits(integers: Reals) -> Reals:
    """Round to 8 significant bits, ties to even."""
    fraction, exponent = np.frexp(integers)
    rounded: Reals = np.ldexp(np.rint(fraction * 2**SIGNIFICANT_BITS), exponent - SIGNIFICANT_BITS)
    return rounded


def _largest_sums(weight: Integers, inputs: Range) -> Integers:
    """Return per output what no partial sum exceeds in absolute value, for any input in range.

    Zero lies in the range of every input, so that no subset of the products has a larger sum than
    all products that can be positive, nor a smaller one than all that can be negative.
    """
    products = weight * _per_input(inputs.high), weight * _per_input(inputs.low)
    highest: Integers = np.maximum(*products).sum(axis=(1, 2, 3))
    lowest: Integers = np.minimum(*products).sum(axis=(1, 2, 3))
    return np.maximum(highest, -lowest)


def _per_input(values: NDArray[Number]) -> NDArray[Number]:
    """Shape values per input channel for an array [O, I, k, k]."""
    return values.reshape(-1, 1, 1)


def _reals(tensor: Tensor | None) -> Reals:
    if tensor is None:
        raise WeightsError("weights: precision 'exact' needs batch norms with scale and statistics")
    values: Reals = tensor.detach().cpu().numpy().astype(np.float64)
    return values
