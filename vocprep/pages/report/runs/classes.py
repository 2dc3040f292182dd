"""The classes one by one: their scores, and what they are taken for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from vocprep.heads.scoring.measures.metrics import FREQUENT, ConfusionMatrix, confusion_shares
from vocprep.heads.scoring.scores import RunScores
from vocprep.labels.label_space import LabelSpace
from vocprep.pages.report.charts import Bar, bars, heat_map
from vocprep.pages.report.page import Section, name, section, swatch, table
from vocprep.pages.report.runs.scored import ScoredRun

_MOST_CONFUSED = 20
"""Classes of a confusion matrix."""
_MOST_PAIRS = 15
"""Confusions that are listed."""
_MOST_MATRICES = 2
"""Runs whose confusion matrices are shown."""


def classes_section(runs: Sequence[ScoredRun]) -> Section:
    """Return the IoU of every class of the ground truth; rare classes are folded."""
    first, space = runs[0].scores, runs[0].run.config.labels
    frequent = sum(FREQUENT * item.pixels >= first.pixels for item in first.classes)
    if len(runs) == 1:
        series = ["IoU", "accuracy"]
        values: list[tuple[float, ...]] = [(item.iou, item.accuracy) for item in first.classes]
    else:
        series = [run.name for run in runs]
        by_run = [{item.id: item.iou for item in run.scores.classes} for run in runs]
        values = [tuple(found[item.id] for found in by_run) for item in first.classes]
    rows = [
        Bar(
            label=item.name,
            values=[100 * value for value in shown],
            colour=space.style.colour(item.id),
        )
        for item, shown in zip(first.classes, values, strict=True)
    ]
    return section(
        "classes",
        "Classes",
        "run_classes.html",
        chart=bars(
            f"{'IoU and accuracy' if len(runs) == 1 else 'IoU'} by class, the most pixels first "
            "(per cent)",
            series,
            rows,
            most=100.0,
            shown=max(frequent, 1),
        ),
        table=_class_table(runs),
        absent=_absent(first, space),
        folded=len(first.classes) - max(frequent, 1),
    )


def _class_table(runs: Sequence[ScoredRun]) -> Markup:
    first = runs[0].scores
    by_run = [{item.id: item for item in run.scores.classes} for run in runs]
    heads: list[str] = []
    for run in runs:
        prefix = f"{run.name}: " if len(runs) > 1 else ""
        heads += [f"{prefix}IoU", f"{prefix}accuracy"]
    rows = [
        (
            item.name,
            item.id,
            item.pixels,
            f"{100 * item.pixels / first.pixels:.2f}",
            *(
                100 * value
                for found in by_run
                for value in (found[item.id].iou, found[item.id].accuracy)
            ),
            100 * item.oracle_iou,
        )
        for item in first.classes
    ]
    return table(
        "Every class of the ground truth (per cent)",
        ("class", "id", "pixels", "share", *heads, "IoU GT top-4"),
        rows,
    )


def _absent(scores: RunScores, space: LabelSpace) -> list[str]:
    """Return the names of the classes that the split does not hold."""
    present = {item.id for item in scores.classes}
    return [space.names[key] for key in sorted(space.names) if key not in present]


def confusion_sections(runs: Sequence[ScoredRun]) -> list[Section]:
    """Return the confusions of each run; none where there are too many to be read."""
    if len(runs) > _MOST_MATRICES:
        return []
    numbers = [None] if len(runs) == 1 else range(1, len(runs) + 1)
    return [_confusions(run, number) for run, number in zip(runs, numbers, strict=True)]


def _confusions(run: ScoredRun, number: int | None) -> Section:
    """Return the confusions of the classes with the most pixels in a run.

    ``number`` is that of the run where there are several.
    """
    scores = run.scores
    top = scores.classes[:_MOST_CONFUSED]
    shares = confusion_shares(scores.confusion, [item.id for item in top])
    labels = [item.name for item in top]
    suffix = "" if number is None else f"-{number}"
    return section(
        f"confusions{suffix}",
        "Confusions" if number is None else f"Confusions of {run.name}",
        "run_confusions.html",
        matrix=heat_map(
            "Predictions for the pixels of a class (per cent of a row)",
            shares,
            labels,
            [*labels, "other"],
            "truth \\ predicted",
        ),
        pairs=_pair_table(scores.confusion, run.run.config.labels),
        most=len(top),
        all_classes=len(scores.classes),
    )


def _pair_table(matrix: ConfusionMatrix, space: LabelSpace) -> Markup:
    """Return the confusions of the most pixels."""
    counts = matrix.counts[:, :-1].copy()
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:_MOST_PAIRS]
    pixels = matrix.truth_pixels
    wrong = max(int(counts.sum()), 1)
    rows = [
        (
            _class(space, truth),
            _class(space, predicted),
            int(counts[truth, predicted]),
            100 * counts[truth, predicted] / pixels[truth],
            100 * counts[truth, predicted] / wrong,
        )
        for truth, predicted in zip(*np.unravel_index(order, counts.shape), strict=True)
        if counts[truth, predicted]
    ]
    return table(
        "The most frequent confusions",
        ("truth", "predicted as", "pixels", "% of the class", "% of all errors"),
        [(*row[:3], *map(float, row[3:])) for row in rows],
    )


def _class(space: LabelSpace, class_id: Any) -> Markup:
    """Return the name of a class beside its colour."""
    colour = swatch(space.style.colour(int(class_id)))
    return Markup('<span class="named">{}{}</span>').format(
        colour, name(space.class_name(int(class_id)))
    )
