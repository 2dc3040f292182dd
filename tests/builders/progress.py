"""A progress that remembers what was reported to it."""

from __future__ import annotations

import threading


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
