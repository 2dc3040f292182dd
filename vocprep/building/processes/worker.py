"""A worker: one of the processes that make shards side by side on this machine."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import NoReturn

from vocprep.building.orders import build_shards
from vocprep.building.plan import ShardPlan
from vocprep.building.processes.messages import (
    Claim,
    Failed,
    Job,
    Made,
    Progressed,
    WorkerMessage,
)
from vocprep.building.processes.starter import LOWER_MEMORY
from vocprep.building.ray.cluster import DEBUG_VARIABLE
from vocprep.building.stages import Outcome
from vocprep.errors import VocprepError
from vocprep.files.writing import remove_unfinished
from vocprep.memory import as_memory_error
from vocprep.shards.record import Record
from vocprep.shards.samples import QuarantinedSample

REPORT_SECONDS = 0.2
"""Between two reports of progress."""


def work(descriptor: int) -> NoReturn:
    """Do the job that arrives on a descriptor, report there, and end this process."""
    code = 1
    try:
        with suppress(OSError, EOFError):  # the process of the build has ended
            code = _work(Connection(descriptor))
    finally:
        _leave(code)


def _work(build: Connection) -> int:
    job: Job = build.recv()
    worker = _Worker(build)
    try:
        made = build_shards(job.order, worker.shards(), job.setup, worker.count)
    except Exception as error:
        build.send(Failed(error=_as_known(error)))
        return 1
    worker.report()
    build.send(Made(shards=made))
    return 0


def _as_known(error: Exception) -> Exception:
    """Return an error as the process of the build raises it."""
    shortage = as_memory_error(error, LOWER_MEMORY)
    if shortage is not None or isinstance(error, VocprepError | OSError):
        return shortage or error
    if os.environ.get(DEBUG_VARIABLE):
        import traceback  # noqa: PLC0415  # seldom needed

        traceback.print_exception(error)
    return RuntimeError(f"{type(error).__name__}: {error}")


class _Worker:
    """The side of a worker in its exchange with the process of the build."""

    def __init__(self, build: Connection) -> None:
        self._build = build
        self._arrived: queue.SimpleQueue[ShardPlan | None] = queue.SimpleQueue()
        self._images = 0
        self._quarantined: list[tuple[QuarantinedSample, str]] = []
        self._reported = time.monotonic()
        threading.Thread(target=self._receive, daemon=True).start()

    def shards(self) -> Iterator[ShardPlan]:
        """Yield shards to make, each claimed when it is needed."""
        while True:
            self.report()
            self._send(Claim())
            shard = self._arrived.get()
            if shard is None:
                return
            yield shard

    def count(self, outcome: Outcome[list[Record]]) -> None:
        """Count a sample that is done; what is quarantined is reported at once."""
        self._images += 1
        if outcome.quarantined is not None:
            self._quarantined.append((outcome.quarantined, outcome.problem))
        if self._quarantined or time.monotonic() - self._reported > REPORT_SECONDS:
            self.report()

    def report(self) -> None:
        """Report what was counted since the last report."""
        if self._images:
            self._send(Progressed(images=self._images, quarantined=tuple(self._quarantined)))
        self._images, self._quarantined = 0, []
        self._reported = time.monotonic()

    def _send(self, message: WorkerMessage) -> None:
        self._build.send(message)

    def _receive(self) -> None:
        """Receive shards; end this process when that of the build has ended."""
        with suppress(OSError, EOFError):
            while True:
                self._arrived.put(self._build.recv())
        _leave(1)


def _leave(code: int) -> NoReturn:
    """End this process at once, after removing its temporary files."""
    remove_unfinished()
    os._exit(code)
