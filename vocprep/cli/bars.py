"""Progress bars of work on files and samples."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from tqdm import tqdm


class Bars:
    """A ``Progress`` on stderr, one bar per task; only notes where there is no terminal."""

    def __init__(self, unit: str = "B") -> None:
        self._unit = unit
        self._bar: tqdm[Any] | None = None

    def begin(self, name: str, total: int | None, done: int) -> None:
        """Open a bar."""
        from tqdm import tqdm

        in_bytes = self._unit == "B"
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=name,
            unit=self._unit,
            unit_scale=in_bytes,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            leave=False,
        )

    def expect(self, total: int) -> None:
        """Set the length of the bar."""
        if self._bar is not None:
            self._bar.total = total

    def advance(self, count: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(count)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.clear()
        click.echo(text, err=True)

    def end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def stop(bars: Bars, advice: str) -> NoReturn:
    """End the command after a signal, with a note on what to do next."""
    bars.end()
    raise KeyboardInterrupt(f"stopped; {advice}")
