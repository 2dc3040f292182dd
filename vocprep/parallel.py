"""Doing work ahead of the consumer, in order and in bounded memory, and timing its stages."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from vocprep.errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, *, ahead: int = 4
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` for each item, in order, computed by threads ahead of the consumer.

    Decoders and compressors release the interpreter lock, so threads suffice. The first
    exception is raised in the place of its item, and items that were not begun are dropped. At
    most ``ahead`` results per worker wait for the consumer, so that calls chain to a pipeline of
    bounded memory.

    >>> list(map_ordered(lambda n: n * n, range(4), workers=2))
    [0, 1, 4, 9]
    """
    if workers < 1:
        raise UsageError(f"workers {workers}: expected 1 or more")
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="vocprep") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def map_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, *, ahead: int = 4
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` for each item, in order, computed by processes of this program.

    For work that holds the interpreter lock; else as ``map_ordered``. Raises BrokenProcessPool when
    a process ends early.
    """
    # A forked process could inherit a lock that another thread of this process holds.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(_submit(pool, function, item))
            if len(pending) > ahead * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], item: Item
) -> Future[Result]:
    """Submit an item, starting a process where one is needed that Ctrl-C does not interrupt.

    A terminal sends SIGINT to all processes of a command. Only this one handles it: it stops the
    pool. The others inherit that the signal is blocked.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(function, item)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StageTimes:
    """Seconds by stage, summed over all threads.

    >>> times = StageTimes(["read", "decode"])
    >>> with times.stage("read"):
    ...     pass
    >>> list(times.seconds())
    ['read', 'decode']
    """

    def __init__(self, stages: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._seconds = dict.fromkeys(stages, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds to a stage."""
        with self._lock:
            self._seconds[name] += seconds

    def add_all(self, seconds: Mapping[str, float]) -> None:
        """Add seconds to several stages."""
        for name, more in seconds.items():
            self.add(name, more)

    def seconds(self) -> dict[str, float]:
        """Return each stage's seconds, in the order of the stages."""
        return dict(self._seconds)

    def __getstate__(self) -> dict[str, float]:
        return self.seconds()

    def __setstate__(self, seconds: dict[str, float]) -> None:
        self.__init__(seconds)  # type: ignore[misc]  # with a lock of this process
        self.add_all(seconds)
