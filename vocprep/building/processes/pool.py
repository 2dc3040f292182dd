"""The workers of a build as its own process sees them: started, given shards, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Self, cast

from vocprep.building.processes.messages import (
    Claim,
    Ended,
    Failed,
    Job,
    Made,
    Progressed,
    Started,
    WorkerMessage,
)
from vocprep.errors import ClusterError

if TYPE_CHECKING:
    from vocprep.building.plan import ShardPlan

SOURCE = (
    "import sys; sys.path[:] = {path!r}; "
    "from vocprep.building.processes.starter import start; start({control}, {workers})"
)
"""What the starter runs."""
END_SECONDS = 8.0
"""How long workers have to remove their temporary files and to end."""
STATUS_SECONDS = 5.0
"""How long the starter may take to report how a worker ended."""
_KEPT = "and run the same command again: finished shards are kept"


class WorkerPool:
    """Workers, one per job: a context manager, at whose end none of them runs any more."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._pids: tuple[int, ...] = ()
        self._statuses: dict[int, int] = {}
        self._workers: dict[Connection, _Worker] = {}

    def __enter__(self) -> Self:
        pairs = [socket.socketpair() for _ in range(1 + len(self._jobs))]
        ours, theirs = zip(*pairs, strict=True)
        descriptors = [end.fileno() for end in theirs]
        source = SOURCE.format(path=sys.path, control=descriptors[0], workers=descriptors[1:])
        try:
            self._starter = subprocess.Popen(
                [sys.executable, "-c", source],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,  # Ctrl-C is for this process, which then ends those
            )
        finally:
            for end in theirs:
                end.close()
        self._control, *connections = (Connection(end.detach()) for end in ours)
        for number, connection in enumerate(connections):
            self._workers[connection] = _Worker(number)
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._workers:
            connection.close()
        try:
            if self._pids:
                self._starter.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._starter.pid, signal.SIGKILL)
            self._starter.wait()
            self._control.close()

    def make(self, shards: Iterable[ShardPlan]) -> Iterator[Progressed | Made]:
        """Let the workers make shards, and yield what they report until all have reported ``Made``.

        Raises what a worker raised, and ClusterError where one has ended without a word.
        """
        self._await_start()
        for (connection, _), job in zip(self._workers.items(), self._jobs, strict=True):
            _send(connection, job)
        waiting, working = iter(shards), dict(self._workers)
        while working:
            for ready in wait(list(working)):
                connection = cast("Connection", ready)
                worker = working[connection]
                message = self._receive(connection, worker)
                match message:
                    case Claim():
                        shard = next(waiting, None)
                        worker.shard = worker.shard if shard is None else shard.name
                        _send(connection, shard)
                    case Failed(error=error):
                        raise error
                    case _:
                        yield message
                        if isinstance(message, Made):
                            del working[connection]

    def _await_start(self) -> None:
        try:
            message = self._control.recv()
        except (EOFError, OSError):
            how = _how_ended(self._starter.wait())
            raise ClusterError(
                f"the process that starts --processes {len(self._jobs)} {how}; use fewer, {_KEPT}"
            ) from None
        if isinstance(message, Failed):
            raise message.error
        assert isinstance(message, Started)
        self._pids = message.pids

    def _receive(self, connection: Connection, worker: _Worker) -> WorkerMessage:
        try:
            message: WorkerMessage = connection.recv()
        except (EOFError, OSError):
            raise ClusterError(self._how_lost(worker)) from None
        return message

    def _how_lost(self, worker: _Worker) -> str:
        """Return in words which worker was lost, over what, and what to do."""
        pid = self._pids[worker.number]
        with suppress(EOFError, OSError):
            while pid not in self._statuses and self._control.poll(STATUS_SECONDS):
                ended = self._control.recv()
                assert isinstance(ended, Ended)
                self._statuses[ended.pid] = ended.status
        status = self._statuses.get(pid)
        shard = "before its first shard" if not worker.shard else f"while it made {worker.shard}"
        name = f"process {worker.number + 1} of {len(self._jobs)} (pid {pid})"
        advice = f"see with --processes 1 whether an image does it, {_KEPT}"
        if status == -signal.SIGKILL:
            advice = (
                "as systems do when memory runs out: use fewer --processes or "
                f"--samples-per-shard, {_KEPT}"
            )
        return f"{name} {_how_ended(status)} {shard}; {advice}"


class _Worker:
    """One of the workers."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.shard = ""
        """The last one that it was given."""


def _send(connection: Connection, message: Job | ShardPlan | None) -> None:
    with suppress(OSError):  # it has ended: receiving from it tells how
        connection.send(message)


def _how_ended(status: int | None) -> str:
    """Return what became of a process, of its exit code or its negative signal.

    >>> _how_ended(-9), _how_ended(1)
    ('was killed by signal 9', 'ended with exit code 1')
    """
    if status is None:
        return "was lost"
    return f"was killed by signal {-status}" if status < 0 else f"ended with exit code {status}"
