"""The process between a build and its Ray cluster, the only one that imports Ray.

It knows orders and shards as bytes only, so that it loads neither torch nor the records.
"""

from __future__ import annotations

import pickle
import queue
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocprep.building.ray.messages import Delivery, Node, Order, Task, node_name
from vocprep.errors import (
    ClusterError,
    DataDirError,
    DataError,
    OutOfMemoryError,
    UsageError,
    VocprepError,
)
from vocprep.files.writing import disk_advice
from vocprep.memory import as_memory_error
from vocprep.options import usable_cores
from vocprep.validation import explain, printable

if TYPE_CHECKING:
    from vocprep.building.orders import BuiltShard, ShardOrder, WorkerSetup

RETRIES = 3
"""How often a shard is made again whose node or process was lost."""
REPORT_SECONDS = 2.0
"""Between two looks at the nodes of the cluster."""
CANCEL_SECONDS = 4.0
"""How long cancelled tasks have to end."""
KEPT = (
    "; finished shards are kept: look at the cluster with ray status, and run the same command "
    "again to continue"
)
"""Advice where a cluster or a part of it is lost."""
_POLL_SECONDS = 0.2
_OBJECT_STORE_BYTES = 80_000_000
"""Of a local cluster, about the least that Ray takes: no shard passes through it."""
_LONGEST_FOLDER = 40
"""Characters: Ray puts sockets below it, whose paths have at most 107."""
_LONGEST_REASON = 300
"""Characters of what Ray says of an error."""
_SMALLER = "give each task more of a node (--task-cpus), or use fewer --samples-per-shard"

Orders = queue.SimpleQueue[Order | None]


def serve(descriptor: int) -> None:
    """Run the orders that arrive on a descriptor, until None arrives or its other end is closed."""
    build = Connection(descriptor)
    arrived: Orders = queue.SimpleQueue()
    task: Task = build.recv()
    threading.Thread(target=_receive, args=(build, arrived), daemon=True).start()
    with suppress(OSError):  # the process of the build has ended
        try:
            with _connected(task) as ray:
                _Tasks(ray, task, build).run(arrived)
        except VocprepError as error:
            build.send(error)
        except Exception as error:
            build.send(WorkerError(f"Ray: {type(error).__name__}: {_line(error)}"))
            raise


def _receive(build: Connection, arrived: Orders) -> None:
    with suppress(EOFError, OSError):
        while (order := build.recv()) is not None:
            arrived.put(order)
    arrived.put(None)


@contextmanager
def _connected(task: Task) -> Iterator[Any]:
    """Connect to the cluster, or start one of this machine alone; yields the package ``ray``."""
    import ray  # noqa: PLC0415  # an extra, which only this process needs

    if task.address is not None:
        where, settings = f"Ray cluster at {task.address!r}", {"address": task.address}
        with _initialised(ray, where, **settings):
            yield ray
        return
    folder = tempfile.gettempdir()
    with (
        tempfile.TemporaryDirectory(
            prefix="vocprep-",
            dir=folder if len(folder) < _LONGEST_FOLDER else "/tmp",
            ignore_cleanup_errors=True,
        ) as scratch,
        _initialised(
            ray,
            "a Ray cluster on this machine",
            address="local",
            num_cpus=usable_cores(),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=scratch,
            _node_ip_address="127.0.0.1",
        ),
    ):
        yield ray


@contextmanager
def _initialised(ray: Any, where: str, **settings: Any) -> Iterator[None]:
    try:
        ray.init(log_to_driver=False, logging_level="CRITICAL", **settings)
    except Exception as error:
        raise UsageError(f"{where}: cannot be used: {_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


class _Tasks:
    """The tasks of a build on a cluster."""

    def __init__(self, ray: Any, task: Task, build: Connection) -> None:
        self._ray = ray
        self._remote = ray.remote(num_cpus=task.cpus, num_gpus=task.gpus, max_retries=RETRIES)(
            build_on_node
        )
        self._build = build
        self._open: dict[Any, str] = {}
        """Names of shards by the references of their tasks."""
        self._nodes: tuple[Node, ...] = ()
        self._reported = -REPORT_SECONDS

    def run(self, arrived: Orders) -> None:
        """Submit orders as they arrive and report what comes of them, until None arrives."""
        try:
            while True:
                self._report_nodes()
                for order in _until(arrived):
                    if order is None:
                        return
                    self._open[self._remote.remote(order.call)] = order.shard
                if not self._open:
                    time.sleep(_POLL_SECONDS)
                    continue
                done, _ = self._ray.wait(list(self._open), timeout=_POLL_SECONDS)
                for task in done:
                    self._build.send(self._outcome(task, self._open.pop(task)))
        finally:
            self._cancel()

    def _report_nodes(self) -> None:
        """Tell the build which nodes there are, from time to time."""
        if time.monotonic() - self._reported < REPORT_SECONDS:
            return
        nodes = tuple(_described(node) for node in self._ray.nodes() if node["Alive"])
        self._reported = time.monotonic()
        self._nodes = nodes
        self._build.send(nodes)

    def _outcome(self, task: Any, shard: str) -> Delivery | Exception:
        """Return the shard of a task that has ended, or what the build raises."""
        errors = self._ray.exceptions
        try:
            node, built = self._ray.get(task)
            return Delivery(node=node, built=built)
        except errors.RayTaskError as error:
            if isinstance(error.cause, VocprepError | WorkerError):
                return error.cause
            return self._unbegun(shard, error)
        except errors.OutOfMemoryError:
            return OutOfMemoryError(
                f"{shard}: the memory of its Ray node did not suffice, {RETRIES + 1} times; "
                f"{_SMALLER}"
            )
        except errors.RayError as error:
            return ClusterError(
                f"{shard}: given up after {RETRIES + 1} tries that lost their process or their "
                f"node: {type(error).__name__}: {_line(error)}{KEPT}"
            )

    def _unbegun(self, shard: str, error: Any) -> Exception:
        """Return what the build raises of a task that failed before its first line."""
        found = re.search(r"\bip=([^,)\s]+)", str(error))
        address = found[1] if found else ""
        node = next((node.name for node in self._nodes if node.address == address), address)
        where = f"{shard} on Ray node {node}"
        if isinstance(error.cause, ImportError) or "failed to import" in str(error.cause):
            return UsageError(
                f"{where}: vocprep cannot be loaded there; install vocprep {version('vocprep')} in "
                "the environment that Ray was started in, and the same versions of all packages"
            )
        return _as_named(error.cause, where, shard)

    def _cancel(self) -> None:
        """Interrupt the tasks that run, drop the others, and wait a moment for their end."""
        for task in self._open:
            self._ray.cancel(task)
        if self._open:
            tasks = list(self._open)
            self._ray.wait(tasks, num_returns=len(tasks), timeout=CANCEL_SECONDS)


def _until(arrived: Orders) -> Iterator[Order | None]:
    """Yield what has arrived."""
    with suppress(queue.Empty):
        while True:
            yield arrived.get_nowait()


def _line(error: BaseException) -> str:
    return printable(" ".join(str(error).split()), _LONGEST_REASON)


def _described(node: dict[str, Any]) -> Node:
    """Return what a build needs to know of a node, as Ray describes it."""
    return Node(
        id=node["NodeID"],
        address=node["NodeManagerAddress"],
        name=node_name(node["NodeManagerHostname"], node["NodeManagerAddress"]),
        cpus=node["Resources"].get("CPU", 0.0),
        gpus=node["Resources"].get("GPU", 0.0),
    )


# On the nodes


class WorkerError(Exception):
    """An error that nobody foresaw, on a node."""


def build_on_node(call: bytes) -> tuple[str, bytes]:
    """Make the shard of an order: the task. Returns the name of its node and a ``BuiltShard``."""
    import ray  # noqa: PLC0415  # as above

    order, setup = pickle.loads(call)
    node = node_name(socket.gethostname(), ray.util.get_node_ip_address())
    name = order.shard.name
    try:
        return node, pickle.dumps(_build(order, setup))
    except Exception as error:
        raise _as_named(error, f"{name} on Ray node {node}", name) from error


def _build(order: ShardOrder, setup: WorkerSetup) -> BuiltShard:
    from vocprep.building.orders import build_shard  # noqa: PLC0415  # loads torch

    for folder, option in ((setup.data_dir, "--data-dir"), (setup.out, "--out")):
        if isinstance(folder, Path) and not folder.is_dir():
            raise DataDirError(
                f"{folder}: is not there; all nodes use the path of {option}: give a folder that "
                "all of them share"
            )
    return build_shard(order, setup)


def _as_named(cause: BaseException, where: str, shard: str) -> Exception:
    """Return an error of a task as the build raises it, with the place where it happened."""
    if isinstance(cause, VocprepError):
        kind = type(cause) if type(cause).__module__ == VocprepError.__module__ else DataError
        return kind(f"{where}: {str(cause).removeprefix(f'{shard}: ')}")
    shortage = as_memory_error(cause, _SMALLER)
    if shortage is not None:
        return OutOfMemoryError(f"{where}: {shortage}")
    if isinstance(cause, OSError):
        advice = f"; {disk_advice(cause)}, and run the same command again: finished shards are kept"
        return DataError(
            f"{where}: {cause.filename or 'input or output'}: {explain(cause)}{advice}"
        )
    return WorkerError(f"{where}: {type(cause).__name__}: {_line(cause)}")
