"""MLflow: a training as a run of a tracking store, and what of a run folder goes there.

The store may fail at any time; the training does not fail with it. What was not sent is sent at the
end of the training, or with ``--resume``: the run folder's log has all of it.
"""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocprep.files.reading import read_json
from vocprep.files.writing import write_json
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.log import HISTORY_FILE, EpochMetrics
from vocprep.heads.runs.presets import OPTIONS_FILE
from vocprep.heads.runs.run import CONFIG_FILE, CURVES_FILE, MLFLOW_FILE, group_of
from vocprep.heads.runs.tracking.mlflow_store import (
    client_of,
    experiment_id,
    quietly,
    reason_of,
    shown_store,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ARTIFACTS = (CONFIG_FILE, OPTIONS_FILE, HISTORY_FILE, CURVES_FILE)
"""Files of a finished run that go to MLflow: not its weights, which have megabytes."""
_MAX_BATCH = 100
"""Params in one request, as MLflow limits them."""
_MAX_VALUE = 6000
"""Letters in a param's value, as MLflow limits them."""
_MAX_FILE_BYTES = 1 << 16


@contextmanager
def open_mlflow_run(
    run_dir: Path,
    config: RunConfig,
    history: Sequence[EpochMetrics],
    uri: str,
    note: Callable[[str], None],
) -> Iterator[Callable[[EpochMetrics], None]]:
    """Yield a function that logs an epoch's metrics to the MLflow run of a run folder.

    A run folder that has none yet gets one, with all epochs of its ``history``.
    """
    tracked = _TrackedRun(run_dir, config, history, uri, note)
    tracked.send()
    status = "FAILED"
    try:
        yield tracked.log
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracked.end(status)


class _TrackedRun:
    """The MLflow run of a run folder, and what of the training it has got."""

    def __init__(
        self,
        run_dir: Path,
        config: RunConfig,
        history: Sequence[EpochMetrics],
        uri: str,
        note: Callable[[str], None],
    ) -> None:
        self._run_dir, self._config = run_dir, config
        self._history = list(history)
        self._uri, self._note = uri, note
        self._run_id = ""
        self._sent = 0
        self._has_failed = False

    def log(self, metrics: EpochMetrics) -> None:
        """Send the metrics of an epoch, unless the store has failed before."""
        self._history.append(metrics)
        if not self._has_failed:
            self.send()

    def send(self) -> None:
        """Send what was not sent yet."""
        self._attempt(self._send, "this is tried again when the training ends")

    def end(self, status: str) -> None:
        """Send the rest, the files of a finished run, and how the training ended."""

        def finish() -> None:
            client = client_of(self._uri)
            self._send()
            if status == "FINISHED":
                for path in (self._run_dir / name for name in ARTIFACTS):
                    if path.is_file():  # options.toml had another name in runs of earlier formats
                        client.log_artifact(self._run_id, str(path))
            client.set_terminated(self._run_id, status)

        self._attempt(finish, "the same training with --resume logs the rest")

    def _attempt(self, act: Callable[[], None], advice: str) -> None:
        """Do what may fail by the store, with a note that it did."""
        try:
            with quietly():
                act()
        except Exception as error:  # of many types, by the store
            self._has_failed = True
            shown, reason = shown_store(self._uri), reason_of(error)
            self._note(f"mlflow {shown}: not everything was logged ({reason}); {advice}")

    def _send(self) -> None:
        client = client_of(self._uri)
        if not self._run_id:
            self._run_id, self._sent = self._begin(client)
        for metrics in self._history[self._sent :]:
            _log_epoch(client, self._run_id, metrics)
            self._sent = metrics.epoch

    def _begin(self, client: MlflowClient) -> tuple[str, int]:
        """Return the id of the folder's MLflow run, begun where there is none, and its epochs."""
        run_id, sent = _known_run(client, self._run_dir), 0
        if run_id is None:
            name = "/".join(filter(None, (group_of(self._run_dir), self._run_dir.name)))
            made = client.create_run(
                experiment_id(client), run_name=name, tags=_tags(self._run_dir, self._config)
            )
            run_id = made.info.run_id
            write_json(self._run_dir / MLFLOW_FILE, {"run_id": run_id})
        else:
            client.update_run(run_id, status="RUNNING")
            logged = client.get_metric_history(run_id, "loss")
            sent = max((metric.step for metric in logged), default=0)
        _log_params(client, run_id, params_of(self._config))
        return run_id, sent


def params_of(config: RunConfig) -> dict[str, str]:
    """Return what a run was trained with, by name: options, recipe, identities and versions.

    Values are as in ``options.toml`` and ``run.json``; those without a value are left out.
    """
    values = config.to_json()
    named: dict[str, Any] = {
        **values["options"],
        **{name: values[name] for name in ("content_id", "source_id")},
        "recipe_id": config.recipe.recipe_id,
        "run_id": config.run_id,
        "recipe": values["recipe"],
        "versions": values["versions"],
    }
    return {
        name: (value if isinstance(value, str) else json.dumps(value))[:_MAX_VALUE]
        for name, value in _flat(named)
        if value is not None
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _tags(run_dir: Path, config: RunConfig) -> dict[str, str]:
    tags = {
        "mlflow.source.name": "vocprep train",
        "mlflow.source.type": "LOCAL",
        "vocprep.run": str(run_dir.resolve()),
        "vocprep.run_id": config.run_id,
        "vocprep.content_id": config.content_id,
        "vocprep.version": config.versions.get("vocprep", ""),
    }
    if group := group_of(run_dir):
        tags["vocprep.group"] = group
    with suppress(OSError, KeyError):  # of a user without a name
        tags["mlflow.user"] = getpass.getuser()
    return tags


def _log_params(client: MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param  # noqa: PLC0415  # an extra

    every = [Param(name, value) for name, value in params.items()]
    for start in range(0, len(every), _MAX_BATCH):
        client.log_batch(run_id, params=every[start : start + _MAX_BATCH])


def _log_epoch(client: MlflowClient, run_id: str, metrics: EpochMetrics) -> None:
    from mlflow.entities import Metric, RunTag  # noqa: PLC0415  # an extra

    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[
            Metric(name, float(value), now, metrics.epoch)
            for name, value in metrics.scalars().items()
        ],
        tags=[
            RunTag(f"vocprep.{name}", getattr(metrics, name)) for name in ("device", "precision")
        ],
    )


def _known_run(client: MlflowClient, run_dir: Path) -> str | None:
    """Return the id in a run folder's ``mlflow.json``, if the store has that run."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  # an extra

    try:
        run_id = str(read_json(run_dir / MLFLOW_FILE, _MAX_FILE_BYTES)["run_id"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return run_id if found.info.lifecycle_stage == "active" else None
