"""Long computations: each is done once, tells how far it is, and ends when the viewer does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar

from vocprep.errors import VocprepError
from vocprep.memory import as_memory_error
from vocprep.pages.viewer.queries import NotReadyError
from vocprep.validation import printable

Result = TypeVar("Result")
State = Literal["waiting", "reading", "scoring", "ready", "failed"]


class StoppedError(Exception):
    """The viewer ends while something is computed."""


class Task(Generic[Result]):
    """A computation that whichever thread needs it first begins; others wait for its result."""

    def __init__(
        self,
        work: Callable[[Task[Result]], Result],
        total: int,
        doing: Literal["reading", "scoring"] = "reading",
    ) -> None:
        """``work`` is given the task, to call ``advance`` of it often."""
        self._work, self._doing, self.total = work, doing, total
        self._lock = threading.Lock()
        self._stop = threading.Event()
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

    def result(self) -> Result:
        """Return the result, computed if it was not; NotReadyError where that failed."""
        with self._lock:
            if self.state == "waiting":
                self._run()
        return self.finished()

    def finished(self) -> Result:
        """Return the result if it is there; NotReadyError, which says how far it is, if not."""
        if self._result:
            return self._result[0]
        if self.error is not None:
            raise NotReadyError(self.error)
        raise NotReadyError(
            f"the pictures are still being read, {self.done:,} of {self.total:,} so far; ask again"
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
        self.state, self.done = self._doing, 0
        try:
            self._result.append(self._work(self))
            self.state = "ready"
        except StoppedError:
            self.state = "waiting"
        except Exception as error:
            known = as_memory_error(error, "free memory")
            if known is None and isinstance(error, VocprepError):
                known_text = str(error)
            else:
                known_text = str(known or f"{type(error).__name__}: {error}")
            self.error = printable(known_text)
            self.state = "failed"


class Background:
    """One thread that does tasks one after another."""

    def __init__(self, tasks: Sequence[Task[Any]]) -> None:
        """``tasks`` are all that are to end with the viewer, in the order they are begun."""
        self._tasks = tasks
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, tasks: Sequence[Task[Any]]) -> None:
        """Begin some of the tasks."""
        self._thread = threading.Thread(
            target=self._run, args=(list(tasks),), name="vocprep-view", daemon=True
        )
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End what is computed, and wait a moment for it."""
        self._stop.set()
        for task in self._tasks:
            task.stop()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self, tasks: list[Task[Any]]) -> None:
        for task in tasks:
            if self._stop.is_set():
                return
            try:
                task.result()
            except NotReadyError:
                """It tells so itself."""
