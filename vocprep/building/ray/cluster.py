"""A Ray cluster as the process of a build sees it: nodes, orders, shards."""

from __future__ import annotations

import importlib.util
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection
from typing import Self
from urllib.parse import urlsplit

from vocprep.building.orders import BuiltShard, ShardOrder, WorkerSetup
from vocprep.building.ray.messages import Delivery, Node, Order, Task, counted
from vocprep.building.ray.process import KEPT, RETRIES, serve
from vocprep.errors import ClusterError, UsageError
from vocprep.options import BuildOptions
from vocprep.validation import explain

ADDRESS_VARIABLE = "RAY_ADDRESS"
DEBUG_VARIABLE = "VOCPREP_DEBUG"
"""With it, standard error shows what Ray says."""
AHEAD = 2
"""Orders that a cluster has for each task that can run at once: one that ends finds the next."""
REACH_SECONDS = 5.0
"""How long an address has to answer."""
CONNECT_SECONDS = 60.0
"""How long connecting may take; starting a local cluster takes 3 to 10 seconds."""
SILENCE_SECONDS = 40.0
"""After which a cluster counts as lost whose nodes are not reported; Ray gives up after 60."""
NO_ROOM_SECONDS = 600.0
"""How long a build waits for a node when none is left that has room for a task."""
END_SECONDS = 8.0
"""How long the process that Ray runs in has to cancel its tasks and to end."""
_POLL_SECONDS = 0.2
_FRAME_HEAD = 9
_SETTINGS_FRAME = b"\x04"
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS_FRAME + b"\0" * 5
"""How a client begins (RFC 9113, 3.4): the preface, and settings without any."""
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_task_oom_retries": str(RETRIES)}
"""Nothing is reported to Ray's makers; tasks that take too much memory are not retried for ever."""


def task_of(options: BuildOptions, *, on_gpu: bool) -> Task:
    """Return the tasks of a build, and the cluster that it uses.

    ``on_gpu`` is whether a task takes a GPU where the options do not say.
    """
    address = options.ray_address or os.environ.get(ADDRESS_VARIABLE)
    return Task(
        address=None if address in (None, "", "local") else address,
        cpus=options.task_cpus,
        gpus=float(on_gpu) if options.task_gpus is None else options.task_gpus,
    )


def check_ray(options: BuildOptions) -> None:
    """Raise UsageError where Ray is not installed, or nothing answers at the cluster's address."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            "engine 'ray': Ray is not installed; run pip install 'vocprep[ray]', or leave "
            "--engine out"
        )
    address = task_of(options, on_gpu=False).address
    if address is not None and address != "auto":
        _reach(address)


def _reach(address: str) -> None:
    """Raise UsageError unless something accepts connections at an address."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
        known = parts.scheme in ("", "ray")
    except ValueError:
        known = False
    if not (known and host and port):
        raise UsageError(
            f"Ray cluster at {address!r}: expected HOST:PORT or ray://HOST:PORT of its head, or "
            "auto"
        )
    try:
        with socket.create_connection((host, port), REACH_SECONDS) as connection:
            problem = None if _is_ray(connection) else "what answers there is no Ray cluster"
    except OSError as error:
        problem = explain(error)
    if problem is not None:
        raise UsageError(
            f"Ray cluster at {address!r}: cannot be reached: {problem}; start it with ray start "
            f"--head, or correct --ray-address or {ADDRESS_VARIABLE}"
        )


def _is_ray(connection: socket.socket) -> bool:
    """Return whether gRPC answers, which begins with settings of HTTP/2; True where TLS hides it.

    Ray itself tries for two minutes.
    """
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return True
    connection.sendall(_HTTP2_HELLO)
    return connection.recv(_FRAME_HEAD)[3:4] == _SETTINGS_FRAME


class RayCluster:
    """A connection to a Ray cluster, held by a process of its own.

    A context manager: at its end no task of the build runs any more, and a local cluster has ended.
    """

    def __init__(self, task: Task, note: Callable[[str], None]) -> None:
        self._task = task
        self._note = note
        self._nodes: tuple[Node, ...] = ()
        self._seen = self._had_room = time.monotonic()

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair()
        debug = bool(os.environ.get(DEBUG_VARIABLE))
        call = f"from {serve.__module__} import serve; serve({theirs.fileno()})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", call],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if debug else subprocess.DEVNULL,
            env={**os.environ, **_SETTINGS, "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=(theirs.fileno(),),
            start_new_session=True,  # Ctrl-C is for this process, which then ends that one
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        try:
            self._send(self._task)
            self._connect()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def nodes(self) -> int:
        """How many nodes the cluster has."""
        return len(self._nodes)

    @property
    def room(self) -> int:
        """How many tasks it runs at once."""
        return sum(node.room(self._task) for node in self._nodes)

    def build(
        self, orders: Iterable[ShardOrder], setup: WorkerSetup
    ) -> Iterator[tuple[str, BuiltShard]]:
        """Yield the nodes and shards of orders as they are built, in any order.

        An order is taken when the cluster has fewer than ``AHEAD`` for each task that can run at
        once. Raises what a task raised, and ClusterError where the cluster is lost.
        """
        waiting, given = iter(orders), 0
        while True:
            for order in islice(waiting, max(0, AHEAD * max(1, self.room) - given)):
                self._send(Order(shard=order.shard.name, call=pickle.dumps((order, setup))))
                given += 1
            if not given:
                return
            delivery = self._receive(SILENCE_SECONDS)
            if delivery is not None:
                given -= 1
                yield delivery.node, pickle.loads(delivery.built)

    def _connect(self) -> None:
        """Wait until the nodes are known; UsageError when a task fits none of them."""
        while not self._nodes:
            self._receive(CONNECT_SECONDS)
        if not self.room:
            most = " and ".join(
                counted(max(getattr(node, f"{kind}s") for node in self._nodes), kind.upper())
                for kind in ("cpu", "gpu")
            )
            raise UsageError(
                f"Ray cluster: no node has room for a task of {self._task}, the largest has "
                f"{most}; lower --task-cpus or --task-gpus, or add such a node first"
            )
        self._note(
            f"Ray cluster of {counted(self.nodes, 'node')}: up to {counted(self.room, 'shard')} at "
            f"a time, {self._task} each"
        )

    def _receive(self, longest: float) -> Delivery | None:
        """Return a shard that has been built, None where none has in a moment.

        Raises the errors that it receives, and ClusterError without a word on the nodes for so
        many seconds.
        """
        if not self._connection.poll(_POLL_SECONDS):
            if time.monotonic() - self._seen > longest:
                raise ClusterError(f"Ray cluster: has not answered for {longest:.0f} s{KEPT}")
            return None
        try:
            message = self._connection.recv()
        except (EOFError, OSError):
            raise ClusterError(f"Ray cluster: the connection to it was lost{KEPT}") from None
        if isinstance(message, Exception):
            raise message
        if isinstance(message, Delivery):
            return message
        self._update(message)
        return None

    def _update(self, nodes: tuple[Node, ...]) -> None:
        """Take the nodes that there are now, and note which have gone or come."""
        before, now = ({node.id: node.name for node in some} for some in (self._nodes, nodes))
        self._nodes, self._seen = nodes, time.monotonic()
        left = counted(len(now), "node")
        for lost in before.keys() - now.keys():
            self._note(f"Ray node {before[lost]} was lost, {left} left: its shards are made again")
        for new in now.keys() - before.keys() if before else ():
            self._note(f"Ray node {now[new]} has joined: {left}")
        if self.room:
            self._had_room = self._seen
        elif self._seen - self._had_room > NO_ROOM_SECONDS:
            minutes = NO_ROOM_SECONDS / 60
            raise ClusterError(
                f"Ray cluster: for {minutes:.0f} minutes no node with room for {self._task}{KEPT}"
            )

    def _send(self, message: object) -> None:
        with suppress(OSError):  # it has ended: _receive raises why
            self._connection.send(message)

    def _end(self) -> None:
        """Cancel the tasks that still run, and end the process."""
        self._send(None)
        try:
            self._process.wait(END_SECONDS)
        except BaseException as error:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        finally:
            self._connection.close()
