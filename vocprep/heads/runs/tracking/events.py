"""TensorBoard: the metrics of a training as event files beside its log."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vocprep.heads.runs.log import EpochMetrics

EVENTS_DIR = "tensorboard"


@contextmanager
def open_events(folder: Path, done: int) -> Iterator[Callable[[EpochMetrics], None]]:
    """Yield a function that writes an epoch's numbers into a folder, if tensorboard is installed.

    Events that an interrupted training wrote after its ``done`` epochs are hidden.
    """
    if importlib.util.find_spec("tensorboard") is None:
        yield lambda metrics: None
        return
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # optional, and slow to load

    with _disk_errors_printed_once():
        writer = SummaryWriter(str(folder), purge_step=done + 1)

        def add_events(metrics: EpochMetrics) -> None:
            for name, value in metrics.scalars().items():
                writer.add_scalar(name, value, metrics.epoch)

        try:
            yield add_events
            writer.flush()  # raises what the writer's thread met since the last epoch
        finally:
            writer.close()


@contextmanager
def _disk_errors_printed_once() -> Iterator[None]:
    """Keep TensorBoard's thread from printing the OSError that its writer raises as well."""
    usual = threading.excepthook

    def report(failed: threading.ExceptHookArgs) -> None:
        is_events = type(failed.thread).__module__.startswith("tensorboard.")
        if not (is_events and isinstance(failed.exc_value, OSError)):
            usual(failed)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = usual
