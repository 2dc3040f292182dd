"""How runs differ: scores with intervals, and classes."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from vocprep.heads.scoring.comparison import (
    ClassDifference,
    Comparison,
    ScoreDifference,
    class_differences,
)
from vocprep.heads.scoring.measures.metrics import FREQUENT
from vocprep.pages.report.charts import Bar, bars
from vocprep.pages.report.page import Section, section, table
from vocprep.pages.report.runs.scored import ScoredRun

_COMPARED = {
    "miou_present": "mIoU of classes present",
    "miou_frequent": "mIoU ≥1 %",
    "pixel_accuracy": "pixel accuracy",
    "boundary_iou_3": "IoU within 3 px of borders",
    "boundary_iou_8": "IoU within 8 px of borders",
}


def differences_section(runs: Sequence[ScoredRun], compared: Sequence[Comparison]) -> Section:
    """Return how each further run differs from the first."""
    first = runs[0]
    return section(
        "differences",
        "Differences",
        "run_differences.html",
        first=first.name,
        compared=compared,
        verdicts=[_verdict(found) for found in compared],
        table=_table(compared),
        charts=[_class_chart(first, other) for other in runs[1:]],
    )


def _verdict(found: Comparison) -> tuple[str, str]:
    """Return a run's name and a sentence on whether it is better than the first."""
    score = next(item for item in found.scores if item.score == "miou_frequent")
    points = f"{abs(100 * score.difference):.1f} points of mIoU ≥1 %"
    if score.low <= 0 <= score.high:
        return found.second, f"is not told apart from {found.first} by these images"
    better = "better" if score.difference > 0 else "worse"
    return (
        found.second,
        f"is {better} than {found.first} by {points}, beyond what the choice of images explains",
    )


def _table(compared: Sequence[Comparison]) -> Markup:
    """Return a row per score, of each run where there are more than two."""
    several = len(compared) > 1
    rows = [
        (
            _COMPARED[item.score],
            *((found.second,) if several else ()),
            100 * item.first,
            100 * item.second,
            signed(item.difference),
            _interval(item),
        )
        for found in compared
        for item in found.scores
    ]
    names = ("first run", "this run") if several else (compared[0].first, compared[0].second)
    head = ("score", *(("run",) if several else ()), *names, "difference")
    interval = f"{100 * compared[0].level:.0f} % interval"
    return table("Differences in points of per cent", (*head, interval), rows)


def _interval(item: ScoreDifference) -> str:
    return f"{signed(item.low)} to {signed(item.high)}"


def signed(share: float) -> str:
    """Write a difference of shares in points, with its sign.

    >>> signed(-0.0123), signed(0.1), signed(0.0)
    ('−1.2', '+10.0', '0.0')
    """
    points = f"{100 * share:+.1f}".replace("-", "−")
    return "0.0" if points[1:] == "0.0" else points


def _class_chart(first: ScoredRun, other: ScoredRun) -> Markup:
    """Return bars to both sides: frequent classes first, each part by what was gained."""
    found = class_differences(first.scores, other.scores)
    pixels, space = first.scores.pixels, first.run.config.labels
    frequent = [item for item in found if FREQUENT * item.pixels >= pixels]
    rare = [item for item in found if FREQUENT * item.pixels < pixels]

    def bar(item: ClassDifference) -> Bar:
        return Bar(
            label=item.name,
            values=(100 * item.difference,),
            colour=space.style.colour(item.id),
        )

    return bars(
        f"IoU of classes: {other.name} minus {first.name} (points)",
        ("change",),
        [bar(item) for item in (*frequent, *rare)],
        shown=max(len(frequent), 1),
    )
