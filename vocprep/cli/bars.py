"""Progress bars of long work, and lines of output beside them."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

import click

DELAY = 2.0
"""Seconds before the bar of a task shows."""
_REDRAW = 0.2
"""Seconds between two drawings."""


class Bars:
    """A ``Progress`` on stderr, one bar per task; only notes where there is no terminal.

    The bar of a task shows when the task has taken ``DELAY`` seconds.
    """

    def __init__(self, unit: str = "B") -> None:
        """``unit`` is what is counted; bytes (``B``) are written as kB, MB, ..."""
        self._unit = unit
        self._bar: _Bar | None = None

    def begin(self, name: str, total: int | None, done: int) -> None:
        """Begin a task."""
        self.end()
        if sys.stderr.isatty():
            self._bar = _Bar(name, total, done, self._unit)

    def expect(self, total: int) -> None:
        """Set the length of the bar."""
        if self._bar is not None:
            self._bar.total = total

    def advance(self, count: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.count += count

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        print_above_bar(text, err=True)

    def end(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.end()
        self._bar = None


class _Bar:
    """The bar of one task, drawn by a thread, so that it moves while a single unit takes long."""

    def __init__(self, name: str, total: int | None, done: int, unit: str) -> None:
        self.total, self.count = total, done
        self._name, self._done, self._unit = name, done, unit
        self._begun = time.time()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="progress-bar", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Remove the bar from the terminal."""
        self._ended.set()
        self._thread.join()

    def _draw(self) -> None:
        if self._ended.wait(DELAY):
            return
        from tqdm import tqdm

        with (
            suppress(OSError),
            tqdm(  # of a terminal that is closed
                total=self.total,
                initial=self._done,
                desc=self._name,
                unit=self._unit,
                unit_scale=self._unit == "B",
                dynamic_ncols=True,
                leave=False,
                miniters=0,
                mininterval=0,
                smoothing=0,  # the mean since the beginning
            ) as bar,
        ):
            bar.start_t = self._begun
            while True:
                bar.total = self.total
                bar.update(self.count - bar.n)
                if self._ended.wait(_REDRAW):
                    return


def print_above_bar(text: str, *, err: bool = False) -> None:
    """Print a line above a bar that may be on the terminal."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr if err else sys.stdout):
            click.echo(text, err=err)
    else:
        click.echo(text, err=err)


def stop(bars: Bars, advice: str) -> NoReturn:
    """End the command after a signal, with a note on what to do next."""
    bars.end()
    raise KeyboardInterrupt(f"stopped; {advice}")
