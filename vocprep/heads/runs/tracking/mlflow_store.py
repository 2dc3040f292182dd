"""MLflow's tracking stores: which one is meant, whether it can be used, what its errors say."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vocprep.errors import SourceUnavailableError, UsageError
from vocprep.validation import printable

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_EXPERIMENT = "vocprep"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # else it reports its use to its makers
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds, and tries: a training waits for them
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
"""What MLflow takes from the environment, where that says nothing else."""
_LOGGERS = ("mlflow", "alembic", "urllib3")
_USER = re.compile(r"(?<=://)(?!/)\S*@")
"""Name and password in a URL, also such as hold an @ or a slash that should be escaped."""


def check_mlflow(uri: str) -> None:
    """Raise where a tracking store cannot be used, before a training begins.

    UsageError where MLflow is not installed or knows no such store, SourceUnavailableError where
    its server does not answer.
    """
    _require_mlflow()
    try:
        with quietly():
            client_of(uri).search_experiments(max_results=1)
    except Exception as error:  # of many types, by the store
        shown, reason = shown_store(uri), reason_of(error)
        if _store(uri).startswith(("http://", "https://")):
            raise SourceUnavailableError(
                f"mlflow {shown}: the server does not answer as MLflow's ({reason}); start it, "
                "name another, or train without mlflow"
            ) from error
        raise UsageError(
            f"mlflow {shown}: not a tracking store that MLflow can use ({reason}); name the URL of "
            "a server, or sqlite:///FILE.db"
        ) from error


def experiment_id(client: MlflowClient) -> str:
    """Return the id of the experiment that the environment names, else of ``vocprep``."""
    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  # an extra

    if (found := client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:  # where the training of another seed was first
        if (found := client.get_experiment_by_name(name)) is None:
            raise
        return str(found.experiment_id)


def _require_mlflow() -> None:
    """Load MLflow with what it is told by the environment; UsageError where it is missing."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow.tracking  # noqa: F401, PLC0415  # an extra, and slow to load
    except ImportError as error:
        raise UsageError(
            "mlflow: MLflow is not installed; run pip install 'vocprep[mlflow]', or train without "
            "mlflow"
        ) from error


def client_of(uri: str) -> MlflowClient:
    """Return a client of a tracking store, after ``check_mlflow``."""
    from mlflow.tracking import MlflowClient  # noqa: PLC0415  # an extra

    return MlflowClient(tracking_uri=uri or None)


def _store(uri: str) -> str:
    """Return the URI of the tracking store, which MLflow chooses where none is given."""
    if uri:
        return uri
    from mlflow import get_tracking_uri  # noqa: PLC0415  # an extra

    return str(get_tracking_uri())


def shown_store(uri: str) -> str:
    """Return the URI of a store without the name and password that may be in it."""
    return printable(_USER.sub("", _store(uri)))


def reason_of(error: Exception) -> str:
    """Return the first sentence of an error's message, without the exception it wraps."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    first = re.split(r"\. | with exception ", lines[0])[0].rstrip(".")
    return printable(_USER.sub("", first), 300)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep MLflow and what it uses from printing what is noted, or what they do."""
    found = [logging.getLogger(name) for name in _LOGGERS]
    levels = [each.level for each in found]
    for each in found:
        each.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in zip(found, levels, strict=True):
            each.setLevel(level)
