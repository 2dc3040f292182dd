"""What the commands print: JSON, tables, words for numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: "1 epoch", "1,000 epochs"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def megabytes(size: int) -> str:
    """Write bytes as people read them."""
    return f"{size / 1e6:,.1f} MB"


def gigabytes(size: int) -> str:
    """Write bytes of memory as people read them."""
    return f"{size / 1e9:,.1f} GB"


def duration(seconds: float) -> str:
    """Return a time as people read it.

    >>> duration(7.68), duration(89.6), duration(1234), duration(20000)
    ('7.7 s', '90 s', '21 min', '5.6 h')
    """
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


AS_JSON = "vocprep.as_json"
"""In a context's meta data: whether JSON is still to be printed."""


def print_json(value: Any) -> None:
    """Print the result of a command as indented JSON."""
    click.get_current_context().meta[AS_JSON] = False
    click.echo(json.dumps(value, indent=2))


def print_json_error(text: str, code: int) -> None:
    """Print an error as JSON where --json was given and no result was printed."""
    if click.get_current_context().meta[AS_JSON]:
        print_json({"ok": False, "error": text, "exit_code": code})


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print columns as wide as they need to be; numbers to the right, the rest to the left.

    None leaves a place empty.
    """
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(head, *texts, strict=True)]
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float | None) for row in rows)
        for i in range(len(head))
    ]
    for line in [list(head), *texts]:
        cells = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def print_tables(head: Sequence[str], rows: Sequence[Sequence[object]], most: int = 100) -> None:
    """Print one table, or several below each other where it would be wider than ``most``.

    Each repeats the first column.
    """
    columns = list(zip(head, *[map(_cell, row) for row in rows], strict=True))
    first, *others = (list(column) for column in columns)
    start = 0
    while start < len(others):
        width, stop = max(map(len, first)), start
        while stop < len(others) and (width := width + 2 + max(map(len, others[stop]))) <= most:
            stop += 1
        stop = max(stop, start + 1)
        if start:
            click.echo()
        chosen = [0, *range(start + 1, stop + 1)]
        print_table([head[i] for i in chosen], [[row[i] for i in chosen] for row in rows])
        start = stop


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def print_more(count: int, printed: int) -> None:
    """Print how many lines were left out, where ``count`` is more than what is printed."""
    if count > printed:
        click.echo(f"… and {count - printed:,} more: --json lists them all")
