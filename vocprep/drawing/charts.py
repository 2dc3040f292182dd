"""Charts as PNG: curves, bars, confusion matrices; matplotlib without its global state."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_SCORE_STYLES = ("y.--", "g.-")
"""Of scores, at most two: the last one is the one to go by."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart by epoch."""

    label: str
    epochs: Sequence[int]
    values: Sequence[float]


def curves_png(losses: Sequence[Curve], scores: Sequence[Curve], score_axis: str) -> bytes:
    """Draw losses (nats, left axis) and scores (per cent, right axis from 0) by epoch.

    Curves without a point are left out.
    """
    figure = _figure(8, 4)
    left = figure.add_subplot()
    left.set_xlabel("epoch")
    left.locator_params(axis="x", integer=True)
    left.set_ylabel("loss (nats)")
    for curve in filter(_has_points, losses):
        # With markers, since a line with a single point is invisible.
        left.plot(curve.epochs, curve.values, ".-", label=curve.label)
    drawn = list(filter(_has_points, scores))
    if drawn:
        right = left.twinx()
        for curve, style in zip(drawn, _SCORE_STYLES[-len(drawn) :], strict=True):
            right.plot(curve.epochs, curve.values, style)
            left.plot([], [], style, label=curve.label)
        right.set_ylabel(score_axis, color="g")
        right.set_ylim(bottom=0)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    return _png(figure)


def _has_points(curve: Curve) -> bool:
    return len(curve.epochs) > 0


def bars_png(names: Sequence[str], percents: Sequence[float], axis: str) -> bytes:
    """Draw horizontal bars, the first on top."""
    figure = _figure(8, 1.2 + 0.2 * len(names))
    axes = figure.add_subplot()
    axes.barh(list(names), list(percents))
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel(axis)
    return _png(figure)


def confusion_png(shares: NDArray[np.float64], names: Sequence[str], title: str) -> bytes:
    """Draw the confusions of L classes: shares [L, L + 1] of each true class's pixels.

    A row is a true class and sums to 1; the last column holds the predictions of other classes.
    """
    side = 3.0 + 0.26 * len(names)
    figure = _figure(side + 1, side)
    axes = figure.add_subplot()
    drawn = axes.imshow(100 * shares, cmap="magma_r", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(names) + 1), [*names, "other"], rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("ground truth, the most pixels first")
    axes.set_title(title, fontsize=10)
    figure.colorbar(drawn, label="share of the class's pixels (%)")
    return _png(figure)


def _figure(width: float, height: float) -> Figure:
    """Return an empty figure in inches."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # it takes half a second to load

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()
