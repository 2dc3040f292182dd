"""Where the metrics of a training go: its log, TensorBoard's event files, a run of MLflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.log import EpochMetrics, append_epoch
from vocprep.heads.runs.tracking.events import EVENTS_DIR, open_events
from vocprep.heads.runs.tracking.mlflow_run import open_mlflow_run

Log = Callable[[EpochMetrics], None]


@contextmanager
def open_loggers(
    run_dir: Path,
    config: RunConfig,
    history: Sequence[EpochMetrics],
    mlflow: str | None,
    note: Callable[[str], None],
) -> Iterator[Log]:
    """Yield a function that logs an epoch's metrics wherever they are logged.

    ``history`` are the epochs that the run folder's log holds already; ``mlflow`` is the tracking
    store, None without one. What the folder holds at the end is what MLflow gets of it.
    """
    with ExitStack() as opened:
        logs: list[Log] = [
            partial(append_epoch, run_dir),
            opened.enter_context(open_events(run_dir / EVENTS_DIR, len(history))),
        ]
        if mlflow is not None:
            tracked = open_mlflow_run(run_dir, config, history, mlflow, note)
            logs.append(opened.enter_context(tracked))

        def log(metrics: EpochMetrics) -> None:
            for each in logs:
                each(metrics)

        yield log
