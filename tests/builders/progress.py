"""Progress for tests: counted, or interrupted at the first step."""

from __future__ import annotations

from vocprep.progress import NoProgress


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
