"""What the heads are worth: scores of runs beside oracles and chance."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from vocprep.heads.scoring.scores import RunScores, ScoreRow, ScoreTable, TableRow
from vocprep.pages.report.charts import Bar, bars
from vocprep.pages.report.page import Section, section, table
from vocprep.pages.report.runs.scored import ScoredRun

_SHAPE_HEADS = ("IoU 3 px", "IoU 8 px", "mask IoU", "own mask", "top-1", "recall@4")


def scores_section(runs: Sequence[ScoredRun], notes: Sequence[str]) -> Section:
    """Return the scores of runs above what they would be if parts of the heads were right."""
    first = runs[0].scores
    return section(
        "scores",
        "Scores",
        "run_scores.html",
        facts=_main_numbers(first) if len(runs) == 1 else [],
        ladder=_ladder(runs),
        main=_score_table(runs),
        mixed=_mixed_table(runs) if len(runs) > 1 else None,
        further=[_further_table(runs, found) for found in first.tables],
        notes=[*notes, *_merged_notes(runs)],
    )


def _main_numbers(scores: RunScores) -> list[tuple[str, str]]:
    model = scores.model
    return [
        ("mIoU ≥1 %", f"{100 * model.miou_frequent:.1f} %"),
        ("pixel accuracy", f"{100 * model.pixel_accuracy:.1f} %"),
        (f"mIoU, {scores.classes_present} present", f"{100 * model.miou_present:.1f} %"),
        ("macro mAP", f"{100 * scores.mean_average_precision:.1f} %"),
        ("IoU within 8 px of borders", f"{100 * model.boundary_iou_8:.1f} %"),
        ("mask IoU", f"{100 * scores.masks.iou:.1f} %"),
        ("loss", f"{scores.loss:.3f}"),
    ]


def _rows(runs: Sequence[ScoredRun]) -> list[tuple[str, RunScores, ScoreRow]]:
    """Return the rows of a table, with a run that has each: the models', then those of all runs.

    Of one run all rows; of several each oracle that does not depend on a model once.
    """
    if len(runs) == 1:
        scores = runs[0].scores
        return [(scores.row_name(row), scores, row) for row in scores.rows]
    shared = {
        run.scores.row_name(row): (run.scores, row)
        for run in runs
        for row in run.scores.rows
        if not row.kind.uses_model
    }
    return [
        *((run.name, run.scores, run.scores.model) for run in runs),
        *((label, *found) for label, found in shared.items()),
    ]


def _ladder(runs: Sequence[ScoredRun]) -> Markup:
    return bars(
        "What the heads reach, and what is above and below (per cent)",
        ("mIoU ≥1 %", "pixel accuracy"),
        [
            Bar(label=label, values=(100 * row.miou_frequent, 100 * row.pixel_accuracy))
            for label, _, row in _rows(runs)
        ],
        most=100.0,
    )


def _score_table(runs: Sequence[ScoredRun]) -> Markup:
    first = runs[0].scores
    return table(
        f"{first.schema}, covered area: {first.pixels:,} pixels (per cent)",
        ("", *_pixel_heads(first), *_SHAPE_HEADS),
        [
            (label, *_pixel_cells(row), *_shape_cells(scores, row))
            for label, scores, row in _rows(runs)
        ],
    )


def _shape_cells(scores: RunScores, row: ScoreRow) -> tuple[float | None, ...]:
    shares = (
        *(row.boundary_iou_3, row.boundary_iou_8, *scores.mask_ious(row)),
        *(row.patch_top1, row.recall_at_4),
    )
    return tuple(None if share is None else 100 * share for share in shares)


def _mixed_table(runs: Sequence[ScoredRun]) -> Markup:
    """Return what each run would score if its classes or its masks were right."""
    mixed = [row for row in runs[0].scores.rows if row.kind.uses_model]
    return table(
        "mIoU ≥1 % with a part of the heads' output replaced by the truth (per cent)",
        ("", *(row.name for row in mixed)),
        [
            (run.name, *(100 * run.scores.row(row.kind).miou_frequent for row in mixed))
            for run in runs
        ],
    )


def _further_table(runs: Sequence[ScoredRun], shown: ScoreTable) -> Markup:
    """Return a table over another area or in another label space, of the runs that have it."""
    rows: dict[str, TableRow] = {}
    shared: dict[str, TableRow] = {}
    for run in runs:
        found = [each for each in run.scores.tables if _subject(each) == _subject(shown)]
        for row in (row for each in found for row in each.rows):
            label = run.scores.row_name(row)
            if len(runs) == 1 or not row.kind.uses_model:
                shared[label] = row
            elif row.kind is shown.rows[0].kind:
                rows[run.name] = row
    return table(
        f"{shown.schema}, {shown.area}: {shown.pixels:,} pixels (per cent)",
        ("", *_pixel_heads(shown)),
        [(label, *_pixel_cells(row)) for label, row in (*rows.items(), *shared.items())],
    )


def _subject(found: ScoreTable) -> tuple[str, str, int]:
    return found.area, found.schema, found.pixels


def _pixel_heads(found: RunScores | ScoreTable) -> tuple[str, ...]:
    return (
        f"mIoU {found.classes_present} present",
        f"mIoU all {found.classes_all}",
        *("mIoU ≥1 %", "pixel accuracy", "fw IoU"),
    )


def _pixel_cells(row: TableRow) -> tuple[float, ...]:
    scores = (
        *(row.miou_present, row.miou_all, row.miou_frequent),
        *(row.pixel_accuracy, row.frequency_weighted_iou),
    )
    return tuple(100 * score for score in scores)


def _merged_notes(runs: Sequence[ScoredRun]) -> list[str]:
    """Return the notes of all runs, with the runs' names where they do not hold for all."""
    holders: dict[str, list[str]] = {}
    for run in runs:
        for note in run.scores.notes:
            holders.setdefault(note, []).append(run.name)
    return [
        note if len(held) == len(runs) else f"{', '.join(held)}: {note}"
        for note, held in holders.items()
    ]
