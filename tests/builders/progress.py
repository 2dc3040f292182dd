"""Progress for tests: remembered, counted, or interrupted at the first step."""

from __future__ import annotations

import threading

from vocprep.progress import NoProgress


class RecordedProgress:
    """Adds up the counts and collects the notes and the threads that they came from."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.begun: list[tuple[str, int | None, int]] = []
        self.shown = self.expected = 0
        self.threads: set[int] = set()

    def begin(self, name: str, total: int | None, done: int) -> None:
        self.threads.add(threading.get_ident())
        self.begun.append((name, total, done))
        self.shown += done

    def expect(self, total: int) -> None:
        self.threads.add(threading.get_ident())
        self.expected = total

    def advance(self, count: int) -> None:
        self.threads.add(threading.get_ident())
        self.shown += count

    def note(self, text: str) -> None:
        self.threads.add(threading.get_ident())
        self.lines.append(text)

    def end(self) -> None:
        self.threads.add(threading.get_ident())


class CountedProgress(NoProgress):
    total: int | None = None
    count = 0
    ended = False

    def begin(self, name: str, total: int | None, done: int) -> None:
        del name
        self.total, self.count = total, done

    def advance(self, count: int) -> None:
        self.count += count

    def end(self) -> None:
        self.ended = True


class Interrupting(NoProgress):
    """What Ctrl-C does while a step is reported."""

    def advance(self, count: int) -> None:
        del count
        raise KeyboardInterrupt
