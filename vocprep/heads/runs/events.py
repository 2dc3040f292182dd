"""TensorBoard event files of a training, where tensorboard is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from vocprep.heads.runs.history import EpochMetrics
from vocprep.heads.runs.run import EVENTS_DIR


@contextmanager
def open_events(run_dir: Path | None, done: int) -> Iterator[Callable[[EpochMetrics], None]]:
    """Yield a function that writes an epoch's numbers as scalars below the run's folder.

    ``done`` epochs are there already; what an interrupted training wrote after them is hidden. The
    function does nothing without a folder or where tensorboard is not installed.
    """
    if run_dir is None or importlib.util.find_spec("tensorboard") is None:
        yield lambda metrics: None
        return
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # optional, and slow to load

    writer = SummaryWriter(str(run_dir / EVENTS_DIR), purge_step=done + 1)
    try:
        yield lambda metrics: _write(writer.add_scalar, metrics)
    finally:
        writer.close()


def _write(add_scalar: Callable[[str, float, int], None], metrics: EpochMetrics) -> None:
    values = asdict(metrics)
    epoch, rates = values.pop("epoch"), values.pop("spike_rates") or {}
    scalars = {**values, **{f"spike_rate/{name}": rate for name, rate in rates.items()}}
    for name, value in scalars.items():
        if isinstance(value, int | float) and name != "compiled":
            add_scalar(name, value, epoch)
