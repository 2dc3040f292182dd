"""How long a training still takes, as ``vocprep train`` prints it after each epoch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING

from vocprep.heads.runs.options import TrainOptions

if TYPE_CHECKING:
    from vocprep.heads.runs.log import EpochMetrics

_LATEST = 5
"""Epochs by whose seconds the time left is estimated."""


def seconds_left(trained: Sequence[EpochMetrics], options: TrainOptions) -> float:
    """Estimate how long the other epochs take, by the latest ones of those that were trained now.

    Epochs with a validation take longer: each kind is estimated by the epochs of its kind, or by
    all where none was trained yet.
    """
    seconds = 0.0
    left = [options.validates(epoch) for epoch in range(trained[-1].epoch + 1, options.epochs + 1)]
    for is_validated in set(left):
        alike = [each for each in trained if options.validates(each.epoch) == is_validated]
        latest = (alike or trained)[-_LATEST:]
        seconds += left.count(is_validated) * mean(each.seconds for each in latest)
    return seconds


class TimeLeft:
    """Estimates how long several runs take, by the epochs that were trained since the beginning."""

    def __init__(self, epochs: int, runs: int, *, on_one_pass: bool) -> None:
        """Begin: ``runs`` are those that are not finished, which may share each of their epochs."""
        self._begun, self._total = time.monotonic(), epochs * (1 if on_one_pass else runs)
        self._on_one_pass = on_one_pass
        self._before: dict[float, int] = {}
        """Epochs of each run that were trained in an earlier training, by seed or value."""
        self._trained = self._latest = 0

    @property
    def has_begun(self) -> bool:
        """Whether an epoch was trained."""
        return bool(self._trained)

    def is_counted(self, epoch: int) -> bool:
        """Return whether another run was told of this epoch, which they share."""
        return self._on_one_pass and epoch == self._latest

    def after(self, value: float, epoch: int) -> float:
        """Return the seconds left after one more epoch of a run, for all runs together.

        ``value`` is its seed, or its value of a sweep.
        """
        if not self.is_counted(epoch):
            self._before.setdefault(0.0 if self._on_one_pass else value, epoch - 1)
            self._trained, self._latest = self._trained + 1, epoch
        left = self._total - sum(self._before.values()) - self._trained
        return left * (time.monotonic() - self._begun) / self._trained
