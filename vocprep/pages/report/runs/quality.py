"""Parts of the heads' output by themselves: errors, the confidence of pixels, the masks."""

from __future__ import annotations

from collections.abc import Sequence

from vocprep.heads.scoring.measures.calibration import CalibrationBin
from vocprep.heads.scoring.measures.errors import ErrorShares
from vocprep.pages.report.charts import Axes, Bar, Line, bars, histogram, line_chart
from vocprep.pages.report.page import Section, section, table
from vocprep.pages.report.runs.scored import ScoredRun

_FEWEST = 0.001
"""Share of the pixels that a bin of confidences needs to be drawn."""
_SLOTS = {2: "patches of two", 3: "patches of three", 4: "patches of four or more"}
"""By the slots of a patch."""


def calibration_section(runs: Sequence[ScoredRun]) -> Section:
    """Return how often pixels of a confidence are right."""
    axes = Axes(x="confidence (per cent)", y="right pixels (per cent)", high=100.0)
    ideal = Line(label="right as often as confident", xs=[0, 100], ys=[0, 100], dashed=True)
    lines = [
        Line(
            label=run.name if len(runs) > 1 else "pixels that are right",
            xs=[100 * item.confidence for item in _filled(run)],
            ys=[100 * item.accuracy for item in _filled(run)],
        )
        for run in runs
    ]
    found = [run.scores.calibration for run in runs]
    return section(
        "calibration",
        "Confidence",
        "run_calibration.html",
        reliability=line_chart("How often pixels are right", [*lines, ideal], axes),
        spread=[
            histogram(
                "Pixels by confidence" + (f", {run.name}" if len(runs) > 1 else ""),
                [100 * item.low for item in each.bins] + [100.0],
                [100 * item.pixels / max(run.scores.pixels, 1) for item in each.bins],
                Axes(x="confidence (per cent)", y="pixels (per cent)"),
                series=number,
            )
            for number, (run, each) in enumerate(zip(runs, found, strict=True))
        ],
        summary=table(
            "Over all pixels (per cent)",
            ("", "mean confidence", "pixel accuracy", "expected calibration error"),
            [
                (
                    run.name,
                    *(100 * v for v in (each.confidence, each.accuracy, each.expected_error)),
                )
                for run, each in zip(runs, found, strict=True)
            ],
        ),
    )


def _filled(run: ScoredRun) -> list[CalibrationBin]:
    """Return the bins with enough pixels for a share of them to mean something."""
    pixels = run.scores.pixels
    return [item for item in run.scores.calibration.bins if item.pixels > _FEWEST * pixels]


def masks_section(runs: Sequence[ScoredRun]) -> Section:
    """Return the quality of the masks where the classes are given."""
    first = runs[0].scores
    found = {"all slots": [run.scores.masks for run in runs]} | {
        label: [run.scores.masks_by_slots[slots] for run in runs] for slots, label in _SLOTS.items()
    }
    rows = [
        Bar(
            label=f"{label} ({slots:,} slots)",
            values=(
                *(100 * each.iou for each in qualities),
                100 * qualities[0].iou_of_largest,
            ),
        )
        for label, qualities in found.items()
        if (slots := qualities[0].slots)
    ]
    return section(
        "masks",
        "Masks",
        "run_masks.html",
        chart=bars(
            "Mask IoU where the classes are given, beside the largest class everywhere (per cent)",
            [*(run.name if len(runs) > 1 else "masks" for run in runs), "largest class"],
            rows,
            most=100.0,
        ),
        table=table(
            "Mask IoU of all slots (per cent)",
            ("", "masks that fit best", "each class's own mask", "largest class"),
            [
                (run.name, *(100 * v for v in (each.iou, each.own_iou, each.iou_of_largest)))
                for run, each in zip(runs, found["all slots"], strict=True)
            ],
        ),
        slots=first.masks.slots,
    )


def errors_section(runs: Sequence[ScoredRun]) -> Section:
    """Return where wrong pixels lie, and what they were taken for."""
    several, told = len(runs) > 1, runs[0].scores.errors.background is not None
    kinds = ("object as background", "wrong object", "background as object")
    rows = [
        (f"{run.name}, {label}" if several else label, part)
        for run in runs
        for label, part in (
            ("patches of one class", run.scores.errors.pure),
            ("patches of several", run.scores.errors.mixed),
        )
    ]
    return section(
        "errors",
        "Errors",
        "run_errors.html",
        told=told,
        chart=bars(
            "Wrong pixels (per cent of all pixels)",
            kinds if told else ("wrong class",),
            [Bar(label=label, values=_kinds(part, told)) for label, part in rows],
        ),
        table=table(
            "Wrong pixels by the patches that they lie in (per cent of all pixels)",
            ("", "all pixels", "wrong", *(kinds if told else ())),
            [
                (label, 100 * part.pixels, 100 * part.wrong, *(_kinds(part, told) if told else ()))
                for label, part in rows
            ],
        ),
    )


def _kinds(part: ErrorShares, told: bool) -> tuple[float, ...]:
    """Return the kinds of errors in per cent; all together where there is no background."""
    if not told:
        return (100 * part.wrong,)
    shares = (part.missed_object, part.wrong_object, part.false_object)
    return tuple(100 * (share or 0.0) for share in shares)
