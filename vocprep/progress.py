"""The interface that long work reports its progress to; the command line draws bars behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """What a caller of long work can observe. All methods are called from one thread only."""

    def begin(self, name: str, total: int | None, done: int) -> None:
        """Start a task of ``total`` units (None while unknown), ``done`` of them finished."""

    def expect(self, total: int) -> None:
        """Set the total of the task, where ``begin`` had None or another one."""

    def advance(self, count: int) -> None:
        """Add finished units; a negative count when work has to be repeated."""

    def note(self, text: str) -> None:
        """Report an event worth a line of text: a retry, a mirror given up."""

    def end(self) -> None:
        """End the task, whether it succeeded or not."""


class NoProgress:
    """A ``Progress`` that shows nothing: the default of the public functions."""

    def begin(self, name: str, total: int | None, done: int) -> None:
        """Show nothing."""

    def expect(self, total: int) -> None:
        """Show nothing."""

    def advance(self, count: int) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def end(self) -> None:
        """Show nothing."""


NO_PROGRESS = NoProgress()


@contextmanager
def task(progress: Progress, name: str, total: int) -> Iterator[None]:
    """Report a block as a task of ``total`` units, which ends whether it succeeds or not."""
    progress.begin(name, total, 0)
    try:
        yield
    finally:
        progress.end()


def advancing(items: Iterable[Item], progress: Progress) -> Iterator[Item]:
    """Yield items, and report each as one unit once the consumer is done with it."""
    for item in items:
        yield item
        progress.advance(1)
