"""Charts of reports: bars, curves, histograms and heat maps as HTML and inline SVG.

Shapes are drawn, texts are HTML, so that a chart of any width keeps its letters at their size. Each
chart has its values as text: in its own cells, or in a table that is folded below it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from vocprep.pages.report.page import render, table

_SERIES = 6
"""Colours that the style sheet has; further series repeat them."""
_SIDE = 1000
"""Width and height of a chart's coordinates."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A row of a bar chart."""

    label: str
    values: Sequence[float | None]
    """One per series; None where there is none."""
    colour: tuple[int, int, int] | None = None
    """Of a class, shown beside its name."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float | None]
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What a chart's axes are called, and how far they reach."""

    x: str
    y: str
    low: float = 0.0
    """Of the y axis."""
    high: float | None = None
    """Of the y axis; the largest value when None."""


def bars(
    caption: str,
    series: Sequence[str],
    rows: Sequence[Bar],
    *,
    most: float | None = None,
    shown: int = 20,
    decimals: int = 1,
) -> Markup:
    """Return horizontal bars, one lane per series, as a table with the values beside them.

    Bars end at ``most``, else at the largest value; where a value is negative they begin in the
    middle. Rows after the first ``shown`` are folded, on the same scale.
    """
    values = [value for row in rows for value in row.values if value is not None]
    largest = max((abs(value) for value in values), default=0.0) if most is None else most
    is_signed = any(value < 0 for value in values)

    def lane(value: float | None) -> tuple[str, str] | None:
        """Return where a bar begins and how long it is, in per cent of the lane."""
        if value is None or largest <= 0:
            return None
        length = min(abs(value) / largest, 1.0) * (50 if is_signed else 100)
        begin = 0.0 if not is_signed else 50.0 - (length if value < 0 else 0.0)
        return f"{begin:.2f}", f"{length:.2f}"

    made = [
        (
            row,
            [lane(value) for value in row.values],
            ["—" if value is None else _signed(value, decimals) for value in row.values],
        )
        for row in rows
    ]
    parts = [made[:shown], made[shown:]]
    return render(
        "bars.html",
        caption=caption,
        series=_keys(series),
        parts=[part for part in parts if part],
        signed=is_signed,
    )


def line_chart(caption: str, lines: Sequence[Line], axes: Axes) -> Markup:
    """Return curves over one x axis, with a folded table of their values."""
    xs = sorted({float(x) for line in lines for x in line.xs}) or [0.0, 1.0]
    ys = [y for line in lines for y in line.ys if y is not None]
    high = max(ys, default=1.0) if axes.high is None else axes.high
    y_ticks = ticks(axes.low, high)
    across, whole = _Scale(xs[0], xs[-1]), all(x.is_integer() for x in xs)
    up = _Scale(min(axes.low, y_ticks[0]), y_ticks[-1] if axes.high is None else high)
    by_x = [dict(_known(line)) for line in lines]
    values = [[_text(x), *(_value(found.get(x)) for found in by_x)] for x in xs]
    return _plot(
        caption,
        axes,
        keys=[(i % _SERIES, line.label, line.dashed) for i, line in enumerate(lines)],
        x_ticks=across.marks([x for x in ticks(xs[0], xs[-1]) if not whole or x.is_integer()]),
        y_ticks=up.marks(y_ticks),
        curves=[_curve(i % _SERIES, line, across, up) for i, line in enumerate(lines)],
        columns=[],
        values=table(caption, (axes.x, *(line.label for line in lines)), values),
    )


def _curve(key: int, line: Line, across: _Scale, up: _Scale) -> dict[str, Any]:
    points = [f"{across.at(x):.1f} {_SIDE - up.at(y):.1f}" for x, y in _known(line)]
    return {"key": key, "points": points, "dashed": line.dashed}


def histogram(
    caption: str, edges: Sequence[float], counts: Sequence[float], axes: Axes, series: int = 0
) -> Markup:
    """Return columns of the counts of bins, between ``len(counts) + 1`` edges."""
    across = _Scale(float(edges[0]), float(edges[-1]))
    y_ticks = ticks(0.0, max(counts, default=1.0) if axes.high is None else axes.high)
    up = _Scale(0.0, y_ticks[-1])
    bins = [
        (begin, end, count, f"{_text(begin)} to {_text(end)}")
        for begin, end, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    columns = [
        {
            "x": f"{across.at(begin):.1f}",
            "y": f"{_SIDE - up.at(count):.1f}",
            "width": f"{across.at(end) - across.at(begin):.1f}",
            "height": f"{up.at(count):.1f}",
            "title": f"{words}: {count:,.4g}",
            "key": series % _SERIES,
        }
        for begin, end, count, words in bins
    ]
    values = [[words, _value(count)] for *_, count, words in bins]
    return _plot(
        caption,
        axes,
        keys=[],
        x_ticks=across.marks(ticks(edges[0], edges[-1])),
        y_ticks=up.marks(y_ticks),
        curves=[],
        columns=columns,
        values=table(caption, (axes.x, axes.y), values),
    )


def heat_map(
    caption: str,
    shares: NDArray[np.float64],
    row_names: Sequence[str],
    column_names: Sequence[str],
    corner: str,
) -> Markup:
    """Return a table of shares [R, C] in 0..1 whose cells are the darker the larger they are.

    ``corner`` says what rows and columns are, such as "truth \\ predicted".
    """
    rows = [
        (
            name,
            [
                {
                    "text": _percent(float(share)),
                    "opacity": f"{min(max(float(share), 0.0), 1.0):.3f}",
                    "title": f"{name}, {column}: {100 * float(share):.2f} %",
                }
                for share, column in zip(line, column_names, strict=True)
            ],
        )
        for name, line in zip(row_names, shares, strict=True)
    ]
    return render("heat_map.html", caption=caption, corner=corner, columns=column_names, rows=rows)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from at most ``low`` to at least ``high``.

    >>> ticks(0, 1.37), ticks(1, 12)
    ([0.0, 0.5, 1.0, 1.5], [0.0, 5.0, 10.0, 15.0])
    """
    if not high > low:
        high = low + 1.0
    rough = (high - low) / (most - 1)
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


@dataclass(frozen=True)
class _Scale:
    """Values → coordinates 0..``_SIDE``."""

    low: float
    high: float

    def at(self, value: float) -> float:
        return _SIDE * (value - self.low) / ((self.high - self.low) or 1.0)

    def marks(self, values: Sequence[float]) -> list[tuple[str, str]]:
        """Return where the values of this scale stand, in per cent, and how they are written."""
        return [
            (f"{self.at(value) * 100 / _SIDE:.2f}", _text(value))
            for value in values
            if self.low - 1e-9 <= value <= self.high + 1e-9
        ]


def _plot(caption: str, axes: Axes, **parts: Any) -> Markup:
    label = f"{caption}: {axes.y} by {axes.x}; the values follow as a table"
    return render("plot.html", caption=caption, axes=axes, label=label, side=_SIDE, **parts)


def _keys(series: Sequence[str]) -> list[tuple[int, str]]:
    """Return each series' colour number and name."""
    return [(number % _SERIES, name) for number, name in enumerate(series)]


def _known(line: Line) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(line.xs, line.ys, strict=True) if y is not None]


def _signed(value: float, decimals: int) -> str:
    """Write a value with a minus sign, not a hyphen; only nothing is written as 0.

    >>> _signed(-1.25, 1), _signed(0.001, 1), _signed(0, 1)
    ('−1.2', '<0.1', '0')
    """
    least = 10**-decimals
    if 0 < value < least / 2:
        return f"<{least:.{decimals}f}"
    return f"{value:,.{decimals}f}".replace("-", "−") if value else "0"


def _text(value: float) -> str:
    """Write a number of an axis: no more digits than it has."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _value(value: float | None) -> float | int | Markup | None:
    """Return a value as a table shows it: whole numbers as such, others with four digits."""
    if value is None:
        return None
    return int(value) if float(value).is_integer() else Markup(f"{value:.4g}")


def _percent(share: float) -> str:
    """Write a share in a small cell as the viewer does: nothing for what is nothing."""
    percent = 100 * share
    if percent < 0.5:
        return "<1" if percent > 0 else ""
    return f"{percent:.0f}"
