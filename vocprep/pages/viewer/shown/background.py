"""Long computations: each is done once, tells how far it is, and ends when the viewer does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Literal, TypeVar

from vocprep.errors import VocprepError
from vocprep.memory import as_memory_error
from vocprep.pages.viewer.queries import NotReadyError
from vocprep.validation import printable

Result = TypeVar("Result")
ASKED_SECONDS = 0.4
"""That a request waits for a computation before it is told to ask again."""
_GIVEN_WAY = 0.02
"""Seconds that a step of a computation waits at most while requests are answered."""
State = Literal["waiting", "reading", "scoring", "ready", "failed"]


class FailedError(VocprepError):
    """Something that a request needs could not be computed."""


class StoppedError(Exception):
    """The viewer ends while something is computed."""


class Requests:
    """The requests that are being answered: long computations give way to them."""

    def __init__(self) -> None:
        self._lock, self._own = threading.Lock(), threading.local()
        self._count, self._none = 0, threading.Event()
        self._none.set()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count a request while the block answers it."""
        self._own.is_answering = True
        self._add(1)
        try:
            yield
        finally:
            self._own.is_answering = False
            self._add(-1)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Leave a request out while the block waits for a computation."""
        count = int(getattr(self._own, "is_answering", False))
        self._add(-count)
        try:
            yield
        finally:
            self._add(count)

    def give_way(self) -> None:
        """Wait a moment where there are requests."""
        self._none.wait(_GIVEN_WAY)

    def _add(self, count: int) -> None:
        with self._lock:
            self._count += count
            if self._count:
                self._none.clear()
            else:
                self._none.set()


REQUESTS = Requests()
"""Those of this process."""


class Task(Generic[Result]):
    """A computation that whichever thread needs it first begins; others wait for its result."""

    def __init__(
        self,
        work: Callable[[Task[Result]], Result],
        total: int,
        what: str,
        doing: Literal["reading", "scoring"] = "reading",
    ) -> None:
        """``work`` is given the task, to call its ``advance``; ``what`` names the result."""
        self._work, self._what, self._doing, self.total = work, what, doing, total
        self._lock = threading.Lock()
        self._stop, self._ended = threading.Event(), threading.Event()
        self._result: list[Result] = []
        self.state: State = "waiting"
        self.done = 0
        self.error: str | None = None

    def stop(self) -> None:
        """Let the computation end at its next step."""
        self._stop.set()

    def advance(self, count: int) -> None:
        """Count finished units; StoppedError where the viewer ends."""
        self.done += count
        if self._stop.is_set():
            raise StoppedError
        REQUESTS.give_way()

    def result(self) -> Result:
        """Return the result, computed or waited for; FailedError where that failed."""
        if self._claim():
            self._run()
        return self.finished(None)

    def ask(self, seconds: float = ASKED_SECONDS) -> Result:
        """Return the result if it is there in a moment; NotReadyError while it is computed."""
        if self._claim():
            threading.Thread(target=self._run, name="viewer", daemon=True).start()
        return self.finished(seconds)

    def _claim(self) -> bool:
        """Return whether the caller is the one to compute the result."""
        with self._lock:
            if self.state != "waiting" or self._stop.is_set():
                return False
            self.state = self._doing
            return True

    def finished(self, seconds: float | None = 0.0) -> Result:
        """Return the result if it is there within some seconds (None: wait for it).

        NotReadyError, which says how far it is, if not; FailedError where it cannot be computed.
        """
        with REQUESTS.waiting():
            self._ended.wait(seconds)
        if self._result:
            return self._result[0]
        if self.error is not None:
            raise FailedError(f"{self._what}: {self.error}")
        raise NotReadyError(
            f"{self._what}: not ready yet, {self.done:,} of {self.total:,} pictures so far"
        )

    def is_ready(self) -> bool:
        """Return whether there is a result."""
        return bool(self._result)

    def to_json(self) -> dict[str, Any]:
        """Return how far the computation is."""
        return {
            "state": self.state,
            "done": min(self.done, self.total),
            "total": self.total,
            "error": self.error,
        }

    def _run(self) -> None:
        try:
            self._result.append(self._work(self))
            self.state = "ready"
        except StoppedError:
            self.state = "waiting"
        except Exception as error:
            self.error = in_words(error)
            self.state = "failed"
        finally:
            self._ended.set()

    def wait_for_end(self, seconds: float) -> None:
        """Wait until nothing is computed any more, at most for some seconds."""
        with self._lock:
            is_running = self.state == self._doing
        if is_running:
            self._ended.wait(seconds)


class Background:
    """A thread that does tasks one after another."""

    def __init__(self, tasks: Sequence[Task[Any]]) -> None:
        """``tasks`` are all that are to end with the viewer, whoever begins them."""
        self._tasks = tasks

    def start(self, tasks: Sequence[Task[Any]]) -> None:
        """Begin some of the tasks."""
        threading.Thread(target=self._run, args=(list(tasks),), name="viewer", daemon=True).start()

    def stop(self, seconds: float) -> None:
        """End what is computed, and wait for it, at most for some seconds."""
        for task in self._tasks:
            task.stop()
        ends = time.monotonic() + seconds
        for task in self._tasks:
            task.wait_for_end(max(0.0, ends - time.monotonic()))

    def _run(self, tasks: list[Task[Any]]) -> None:
        for task in tasks:
            try:
                task.result()
            except (NotReadyError, FailedError):
                """It tells so itself."""


def in_words(error: Exception) -> str:
    """Return what a user is told of an error that ended a computation."""
    known = as_memory_error(error, "close other programs") or error
    if isinstance(known, VocprepError | OSError):
        return printable(str(known))
    return printable(f"a fault in vocprep itself, {type(error).__name__}: {error}")
