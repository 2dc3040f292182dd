"""A training in MLflow, read back by MLflow's own client."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders.heads import make_two_splits

from vocprep.errors import SourceUnavailableError, UsageError
from vocprep.heads.runs.log import EpochMetrics, read_history
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.run import read_config
from vocprep.heads.runs.tracking import mlflow_run
from vocprep.heads.training import seeds as seeds_module
from vocprep.heads.training.train import train
from vocprep.progress import NoProgress
from vocprep.shards.reader import ShardDataset

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow and its database
]


class Notes(NoProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        if "mlflow" in text:
            self.lines.append(text)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    return make_two_splits(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a tracking store in a file, whose tables take seconds to make."""
    pytest.importorskip("mlflow", exc_type=ImportError)
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where MLflow puts artifacts
        yield f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture
def client(store: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the store, with an experiment for each test."""
    tracking = importlib.import_module("mlflow.tracking")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    return tracking.MlflowClient(tracking_uri=store)


def runs_of(client: Any, experiment: str) -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def options(**changes: Any) -> TrainOptions:
    values = {"epochs": 2, "batch_size": 2, "encoder": "none", "mask_head": "none", "flip": False}
    return TrainOptions(**{**values, "device": "cpu", "checkpoint_every": 0.0, **changes})


def steps(client: Any, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in client.get_metric_history(run_id, name)]


def stop_after(epoch: int) -> Any:
    def on_epoch(metrics: EpochMetrics) -> None:
        if metrics.epoch == epoch:
            raise KeyboardInterrupt

    return on_epoch


def test_a_run_has_its_metrics_params_and_files(
    dataset: ShardDataset, tmp_path: Path, store: str, client: Any, request: pytest.FixtureRequest
) -> None:
    run_dir, notes = tmp_path / "first", Notes()
    train(dataset, run_dir, options(lr=3e-4, mlflow=store), None, notes)
    assert notes.lines == []
    (run,) = runs_of(client, request.node.name)
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    history, config = read_history(run_dir), read_config(run_dir)
    for name in history[-1].scalars():
        expected = [(m.epoch, m.scalars()[name]) for m in history if name in m.scalars()]
        assert steps(client, run.info.run_id, name) == expected, name
    params = run.data.params
    assert (params["lr"], params["encoder"], params["flip"]) == ("0.0003", "none", "false")
    assert params["recipe.geometry.geometry"] == "native"
    assert params["content_id"] == config.content_id == dataset.index.content_id
    assert params["recipe_id"] == config.recipe.recipe_id
    assert params["versions.vocprep"] == config.versions["vocprep"]
    assert run.data.tags["vocprep.run"] == str(run_dir)
    assert run.data.tags["vocprep.device"] == "cpu"
    files = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert files == {"run.json", "options.toml", "metrics.jsonl", "curves.png"}
    read = Path(client.download_artifacts(run.info.run_id, "run.json")).read_text()
    assert json.loads(read) == config.to_json()


def test_a_resumed_training_continues_its_run_and_logs_no_epoch_twice(
    dataset: ShardDataset, tmp_path: Path, store: str, client: Any, request: pytest.FixtureRequest
) -> None:
    run_dir, chosen = tmp_path / "run", options(epochs=4, mlflow=store, resume=True)
    rare = replace(chosen, checkpoint_every=3600.0)
    for stopped in (replace(chosen, epochs=4), rare):  # the second time epoch 3 is not kept
        with pytest.raises(KeyboardInterrupt):
            train(dataset, run_dir, stopped, stop_after(2 if stopped is not rare else 3))
    (killed,) = runs_of(client, request.node.name)
    assert killed.info.status == "KILLED"
    train(dataset, run_dir, chosen)
    (run,) = runs_of(client, request.node.name)
    assert (run.info.run_id, run.info.status) == (killed.info.run_id, "FINISHED")
    expected = [(metrics.epoch, metrics.loss) for metrics in read_history(run_dir)]
    assert steps(client, run.info.run_id, "loss") == expected


def test_a_store_that_fails_costs_no_training_and_gets_the_rest_later(
    dataset: ShardDataset,
    tmp_path: Path,
    store: str,
    client: Any,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = importlib.import_module("mlflow.exceptions").MlflowException

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise failed("API request to http://me:secret@host/api failed. And more.")

    run_dir, notes, chosen = tmp_path / "run", Notes(), options(epochs=3, mlflow=store)
    real = mlflow_run.client_of

    def fail(metrics: EpochMetrics) -> None:
        if metrics.epoch == 1:
            monkeypatch.setattr(mlflow_run, "client_of", lambda uri: Broken())

    train(dataset, run_dir, chosen, fail, notes)
    assert [line.partition("; ")[2] for line in notes.lines] == [
        "this is tried again when the training ends",
        "the same training with --resume logs the rest",
    ]
    assert "(API request to http://host/api failed)" in notes.lines[0]
    monkeypatch.setattr(mlflow_run, "client_of", real)
    (run,) = runs_of(client, request.node.name)
    assert [step for step, _ in steps(client, run.info.run_id, "loss")] == [1]
    train(dataset, run_dir, replace(chosen, resume=True), None, notes)
    assert len(notes.lines) == 2
    (run,) = runs_of(client, request.node.name)
    assert [step for step, _ in steps(client, run.info.run_id, "loss")] == [1, 2, 3]
    assert run.info.status == "FINISHED"
    assert len(client.list_artifacts(run.info.run_id)) == 4


def test_a_finished_run_is_logged_afterwards_and_a_replaced_one_anew(
    dataset: ShardDataset, tmp_path: Path, store: str, client: Any, request: pytest.FixtureRequest
) -> None:
    run_dir = tmp_path / "run"
    train(dataset, run_dir, options())
    train(dataset, run_dir, options(resume=True, mlflow=store))
    (run,) = runs_of(client, request.node.name)
    assert [step for step, _ in steps(client, run.info.run_id, "loss")] == [1, 2]
    train(dataset, run_dir, options(overwrite=True, mlflow=store))
    assert len(runs_of(client, request.node.name)) == 2


def test_each_seed_is_a_run_with_the_name_of_their_folder(
    dataset: ShardDataset,
    tmp_path: Path,
    store: str,
    client: Any,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seeds_module, "usable_cores", lambda: 1)
    train(dataset, tmp_path / "two", options(epochs=1, mlflow=store), seeds=(3, 5))
    runs = runs_of(client, request.node.name)
    assert {run.info.run_name for run in runs} == {"two/seed-3", "two/seed-5"}
    assert {run.data.tags["vocprep.group"] for run in runs} == {"two"}
    assert {run.data.params["seed"] for run in runs} == {"3", "5"}


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        (
            "http://me:secret@127.0.0.1:9",
            SourceUnavailableError,
            "mlflow http://127.0.0.1:9: the server does not answer",
        ),
        (
            "http://me:sec@re/secret@127.0.0.1:9",
            SourceUnavailableError,
            "mlflow http://127.0.0.1:9: the server does not answer",
        ),
        ("http://[::1", SourceUnavailableError, "mlflow http://[::1: the server does not answer"),
        ("gopher://nowhere", UsageError, "mlflow gopher://nowhere: not a tracking store"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_before_anything_is_written(
    dataset: ShardDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    error: type[Exception],
    message: str,
) -> None:
    pytest.importorskip("mlflow", exc_type=ImportError)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(error) as caught:
        train(dataset, tmp_path / "run", options(mlflow=uri))
    assert str(caught.value).startswith(message)
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_without_mlflow_one_sentence_names_the_extra(
    dataset: ShardDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match=r"run pip install 'vocprep\[mlflow\]'"):
        train(dataset, tmp_path / "run", options(mlflow=""))
    assert not (tmp_path / "run").exists()
