"""Parts of the heads' output by themselves: the confidence of pixels, and the masks."""

from __future__ import annotations

from collections.abc import Sequence

from vocprep.heads.scoring.measures.calibration import CalibrationBin
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
        slots=first.masks.slots,
    )
