"""What a build makes of what the process with Ray says, or does not say."""

from __future__ import annotations

import importlib.util
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import scripted_ray
from builders.versions import make_plan

from vocprep.building.local import build_plan
from vocprep.building.orders import WorkerSetup
from vocprep.building.ray import cluster as module
from vocprep.building.ray.cluster import AHEAD, RayCluster, check_ray, task_of
from vocprep.building.ray.messages import Task
from vocprep.errors import ClusterError, DataError, UsageError
from vocprep.options import BuildOptions, Part

pytestmark = pytest.mark.slow

TASK = Task(address="127.0.0.1:1", cpus=1.0, gpus=0.0)
SETUP = WorkerSetup(data_dir=Path("data"), out=Path("out"))


class Orders:
    """An endless supply of orders, of which it counts those that were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.taken += 1
            yield SimpleNamespace(shard=SimpleNamespace(name=f"shard {self.taken}"))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that returns a cluster which follows a script, and its notes."""
    monkeypatch.setattr(module, "serve", scripted_ray.serve)
    monkeypatch.setattr(module, "END_SECONDS", 1.0)

    def make(*steps: list[str], task: Task = TASK) -> tuple[RayCluster, list[str]]:
        monkeypatch.setenv(scripted_ray.VARIABLE, json.dumps(steps))
        notes: list[str] = []
        return RayCluster(task, notes.append), notes

    return make


def test_orders_are_taken_when_there_is_room_for_them(scripted: Any) -> None:
    orders = Orders()
    there, notes = scripted(["nodes", "a", "b"], *[["deliver"]] * 3)
    with there as cluster:
        built = cluster.build(orders, SETUP)
        assert orders.taken == 0
        seen = []
        for delivered in range(3):
            seen.append(next(built))
            assert orders.taken == AHEAD * 2 + delivered
    assert seen == [("here", f"shard {number}") for number in (1, 2, 3)]
    assert notes == ["Ray cluster of 2 nodes: up to 2 shards at a time, 1 CPU each"]


def test_nodes_that_go_and_come_are_noted(scripted: Any) -> None:
    there, notes = scripted(["nodes", "a", "b"], ["nodes", "a"], ["nodes", "a", "c"], ["deliver"])
    with there as cluster:
        next(cluster.build(Orders(), SETUP))
        assert cluster.nodes == 2
    assert notes[1:] == [
        "Ray node b was lost, 1 node left: its shards are made again",
        "Ray node c has joined: 2 nodes",
    ]


@pytest.mark.parametrize(
    ("steps", "error", "text"),
    [
        ([["raise", "bad bytes"]], DataError, "^bad bytes$"),
        ([["exit"]], ClusterError, "the connection to it was lost; finished shards are kept"),
        ([["hang"]], ClusterError, "has not answered for 1 s; finished shards are kept"),
        ([["nodes"], ["hang"]], ClusterError, "for 0 minutes no node with room for 1 CPU"),
    ],
)
def test_lost_cluster_is_one_sentence(
    scripted: Any,
    monkeypatch: pytest.MonkeyPatch,
    steps: list[list[str]],
    error: type[Exception],
    text: str,
) -> None:
    monkeypatch.setattr(module, "SILENCE_SECONDS", 1.0)
    monkeypatch.setattr(module, "NO_ROOM_SECONDS", 0.0)
    there, _ = scripted(["nodes", "a"], ["deliver"], *steps)
    with there as cluster, pytest.raises(error, match=text):
        for _ in cluster.build(Orders(), SETUP):
            pass


def test_task_that_fits_no_node_is_refused(scripted: Any) -> None:
    there, _ = scripted(["nodes", "a"], task=Task(address=None, cpus=2.0, gpus=1.0))
    with pytest.raises(
        UsageError,
        match="no node has room for a task of 2 CPUs and 1 GPU, the largest has 1 CPU and 0 GPUs",
    ):
        there.__enter__()


def test_cluster_that_never_answers_is_given_up(
    scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.5)
    there, _ = scripted(["hang"])
    started = time.monotonic()
    with pytest.raises(ClusterError, match="has not answered"):
        there.__enter__()
    assert time.monotonic() - started < 30


def test_process_that_does_not_end_is_killed(scripted: Any) -> None:
    there, _ = scripted(["nodes", "a"], ["hang"])
    with there as cluster:
        process = cluster._process  # what is left of it is no part of the interface
    assert process.returncode is not None


# Before there is a cluster


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray counts as installed, whether it is or not."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:1", "127.0.0.1:port", ":6379"])
def test_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="expected HOST:PORT or ray://HOST:PORT of its head"):
        check_ray(BuildOptions(engine="ray", ray_address=address))


@pytest.mark.usefixtures("installed")
def test_address_where_nothing_answers_is_refused(
    sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UsageError, match=r"at '127\.0\.0\.1:1': cannot be reached: "):
        build_plan(make_plan(sample_tree), tmp_path / "out", BuildOptions(engine="ray"))
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("answer", "problem"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Ray cluster"), (b"", "timed out")],
)
def test_server_of_another_kind_is_no_cluster(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, problem: str
) -> None:
    monkeypatch.setattr(module, "REACH_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def serve() -> socket.socket:
            connection, _ = server.accept()
            connection.sendall(answer)
            return connection

        accepted = pool.submit(serve)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"cannot be reached: .*{problem}; start it with"):
            check_ray(BuildOptions(engine="ray", ray_address=address))
        accepted.result().close()


def test_ray_that_is_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"Ray is not installed; run pip install 'vocprep\[ray\]'"):
        check_ray(BuildOptions(engine="ray"))


def test_cluster_is_that_of_the_options_else_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert task_of(BuildOptions(engine="ray"), on_gpu=True) == Task(
        address=None, cpus=1.0, gpus=1.0
    )
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    of_environment = task_of(BuildOptions(engine="ray", task_gpus=0.25), on_gpu=True)
    assert of_environment == Task(address="head:6379", cpus=1.0, gpus=0.25)
    options = BuildOptions(engine="ray", ray_address="local", task_cpus=4)
    assert task_of(options, on_gpu=False) == Task(address=None, cpus=4.0, gpus=0.0)


@pytest.mark.parametrize("option", [{"ray_address": "auto"}, {"task_cpus": 2}, {"task_gpus": 0}])
def test_options_of_ray_without_it_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="only engine 'ray' has it"):
        BuildOptions(**option)


def test_part_beside_a_cluster_is_refused() -> None:
    with pytest.raises(UsageError, match="part 0/2 beside engine 'ray': a cluster shares"):
        BuildOptions(engine="ray", part=Part.parse("0/2"))


@pytest.mark.parametrize("cpus", [0, -1, 1.5])
def test_tasks_take_whole_processors_or_a_share_of_one(cpus: float) -> None:
    with pytest.raises(UsageError, match="task_cpus"):
        BuildOptions(engine="ray", task_cpus=cpus)
