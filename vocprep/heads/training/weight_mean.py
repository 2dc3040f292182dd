"""The exponential moving average of weights in training, which is what the run keeps then."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vocprep.heads.model.tfdet import TFDetHeads


class WeightMean:
    """A copy of the heads whose weights are the exponential mean of those after each step.

    Running statistics are averaged too. Unlike torch's ``AveragedModel``, it gets the number of the
    step from its caller: one that is counted on the device would make every step wait for it.
    """

    def __init__(self, model: TFDetHeads, decay: float) -> None:
        """``decay`` is the share that the mean keeps in a step, 0 < decay < 1."""
        self.model = deepcopy(model).eval().requires_grad_(requires_grad=False)
        self._decay = decay
        # These share their memory with the weights.
        pairs = zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        self._averaged, self._copied = _by_kind(list(pairs))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the model's weights after a step, counted from 0."""
        decay = decay_at(step, self._decay)
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's own gap
        average(*self._averaged, step)
        for mean, count in zip(*self._copied, strict=True):
            mean.copy_(count)


def decay_at(step: int, decay: float) -> float:
    """Return the share that the mean keeps in a step, counted from 0.

    It rises from 0.1 to ``decay``, so that the mean is that of the last tenth of a short training,
    and the initial weights, which say nothing, are soon out of it.

    >>> [round(decay_at(step, 0.99), 3) for step in (0, 10, 90, 889, 10_000)]
    [0.1, 0.55, 0.91, 0.99, 0.99]
    """
    return min(decay, (1 + step) / (10 + step))


Columns = tuple[list[Tensor], list[Tensor]]


def _by_kind(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Columns, Columns]:
    """Return the tensors of the mean and of the model: of real numbers, then of counts."""
    real = [pair for pair in pairs if pair[0].is_floating_point()]
    counts = [pair for pair in pairs if not pair[0].is_floating_point()]
    averaged, copied = (
        ([mean for mean, _ in kind], [value for _, value in kind]) for kind in (real, counts)
    )
    return averaged, copied
