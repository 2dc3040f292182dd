"""A watcher that shows nothing."""

from __future__ import annotations


class Quiet:
    def begin(self, name: str, total: int | None, done: int) -> None:
        pass

    def expect(self, total: int) -> None:
        pass

    def advance(self, count: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def end(self) -> None:
        pass
