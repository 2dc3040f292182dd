"""What became of the inputs, in one line per kind of file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fuzz.worker import Done

_STATES = ("refused", "found", "harmless", "failure")


@dataclass
class _Row:
    states: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest: float = 0.0
    memory: int = 0


class Table:
    """Counts by kind."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self.failures = 0
        self.inputs = 0

    def add(self, done: Done) -> None:
        """Count an input."""
        row = self._rows.setdefault(done.kind, _Row())
        row.states[done.state] += 1
        row.seconds += done.seconds
        row.slowest = max(row.slowest, done.seconds)
        row.memory = max(row.memory, done.memory)
        self.inputs += 1
        self.failures += done.state == "failure"

    def text(self, seconds: float) -> str:
        """Return the table: inputs, what became of them, the slowest, the largest memory."""
        head = ("kind", "inputs", "refused", "differ", "harmless", "failed", "slowest s", "MB")
        lines = [head]
        for name, row in sorted(self._rows.items()):
            counts = [str(row.states[state]) for state in _STATES]
            numbers = (f"{row.slowest:.2f}", f"{row.memory >> 20}")
            lines.append((name, str(row.states.total()), *counts, *numbers))
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        shown = [
            "  ".join(
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        rate = self.inputs / max(seconds, 1e-9)
        total = f"{self.inputs:,} inputs in {seconds:,.0f} s ({rate:.1f} a second)"
        return "\n".join([*shown, f"{total}: {self.failures:,} failed"])
