"""Weights of a seed: the same bits on every machine, for any network."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from vocprep.errors import UsageError

RANDOM_PREFIX = "random:"
_DAMPED = 0.5
"""Scale of what ends a residual branch."""
_NORM = re.compile(r"bn\d")


def untrained_weights(spec: str, network: nn.Module) -> dict[str, Tensor]:
    """Return weights by ``random:SEED`` that are the same bits on every machine.

    Matrices and kernels are uniform after He et al. 2015 from numpy's generator, in the order of
    their names, since torch's normal numbers differ between instruction sets. Biases are 0. Scales
    that the network starts at 1 stay so, and all other vectors are 0.5: those that it starts near
    0 or draws, and the last batch norm of each residual block, so that the activations of many
    stacked blocks keep their size. Buffers and whole numbers are those of the network.
    """
    generator = np.random.default_rng(_seed(spec))
    weights = network.state_dict()
    kept, damped = {name for name, _ in network.named_buffers()}, set(_last_norms(network))
    for name in sorted(weights):
        tensor = weights[name]
        if name in kept or not tensor.is_floating_point():
            continue
        if sum(size > 1 for size in tensor.shape) > 1:
            bound = np.float32((6 / tensor[0].numel()) ** 0.5)
            uniform = generator.random(tuple(tensor.shape), dtype=np.float32)
            weights[name] = torch.from_numpy((uniform * 2 - 1) * bound)
        elif name.endswith("bias"):
            weights[name] = torch.zeros_like(tensor)
        elif name in damped or not bool((tensor == 1).all()):
            weights[name] = torch.full_like(tensor, _DAMPED)
    return dict(weights)


def _seed(spec: str) -> int:
    try:
        seed = int(spec.removeprefix(RANDOM_PREFIX))
    except ValueError as error:
        raise UsageError(
            f"weights {reprlib.repr(spec)}: expected {RANDOM_PREFIX}SEED with a whole number, "
            "e.g. random:0"
        ) from error
    if seed < 0:
        raise UsageError(f"weights {reprlib.repr(spec)}: expected a seed of 0 or more")
    return seed


def _last_norms(network: nn.Module) -> Iterator[str]:
    """Yield the names of the scales of the last batch norm of each residual block.

    Blocks of ResNets have a ``downsample``, those of EfficientNets a ``has_skip``.
    """
    for path, module in network.named_modules():
        if hasattr(module, "downsample") or getattr(module, "has_skip", False) is True:
            norms = sorted(name for name, _ in module.named_children() if _NORM.fullmatch(name))
            if norms:
                yield f"{path}.{norms[-1]}.weight"
