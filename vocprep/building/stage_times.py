"""Accounts of a build: how long each stage was at work, over all threads.

``waiting`` is what the threads that embed had no work in: where it is large, something before or
after the backbone is the limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("read", "decode", "geometry", "targets", "embed", "write", "waiting")


class StageTimes:
    """Seconds by stage, added up by any number of threads."""

    def __init__(self) -> None:
        self.reused = 0
        """Records whose embeddings were taken over from an earlier version."""
        self._lock = threading.Lock()
        self._seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a block as a stage's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Count time that was measured elsewhere."""
        with self._lock:
            self._seconds[name] += seconds

    def count_reused(self, records: int) -> None:
        """Count records whose embeddings need not be made."""
        with self._lock:
            self.reused += records

    def seconds(self) -> dict[str, float]:
        """Return each stage's seconds, in the order of the work."""
        return dict(self._seconds)
