"""How the scores of several runs are printed, a line per run in each table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from vocprep.cli.printing import print_table
from vocprep.cli.scores.cells import (
    ERROR_HEAD,
    SHAPE_HEAD,
    error_cells,
    label,
    pixel_cells,
    pixel_head,
    print_chances,
    print_notes,
    print_table_head,
    shape_cells,
)
from vocprep.cli.scores.groups import print_groups
from vocprep.cli.scores.one_run import print_evaluation

if TYPE_CHECKING:
    from vocprep.heads.scoring.comparison import Comparison, ScoreDifference
    from vocprep.heads.scoring.evaluate import Evaluation
    from vocprep.heads.scoring.scores import RunScores, ScoreTable, TableRow

Row = TypeVar("Row", bound="TableRow")
_COMPARED = {
    "miou_present": "mIoU present",
    "miou_frequent": "mIoU ≥1 %",
    "pixel_accuracy": "pixel acc.",
    "boundary_iou_3": "IoU 3 px",
    "boundary_iou_8": "IoU 8 px",
}


def print_scores(result: Evaluation, *, classes: bool) -> None:
    """Print one run with its oracles, or several in one table."""
    if len(result.runs) == 1:
        print_evaluation(result.runs[0], classes=classes)
    else:
        print_comparison(result.runs, result.differences, classes=classes)
        if result.groups:
            click.echo()
            print_groups(result.groups, result.group_differences)
        print_notes(_merged_notes(result.runs))


def print_comparison(
    results: Sequence[RunScores], differences: Sequence[Comparison], *, classes: bool
) -> None:
    """Print several runs on one split, a line per run, above the oracles that they share."""
    first = results[0]
    if classes:
        _print_class_comparison(results)
    click.echo(
        f"{len(results)} runs on split {first.split}: {first.images:,} images, {first.pixels:,} "
        f"pixels, {first.classes_present} of {first.classes_all} classes present"
    )
    shared = _shared([(result, result.rows) for result in results])
    print_table(
        ("%", *pixel_head(first)),
        [
            *((f"{r.run} (epoch {r.epoch})", *pixel_cells(r.model)) for r in results),
            *((name, *pixel_cells(row)) for name, row in shared),
        ],
    )
    print_chances(results)
    click.echo()
    _print_shapes(results)
    if differences:
        click.echo()
        _print_differences(differences)
    click.echo()
    _print_mixed_rows(results)
    click.echo()
    _print_error_comparison(results)
    for table in first.tables:
        _print_further(results, table)


def _print_further(results: Sequence[RunScores], table: ScoreTable) -> None:
    """Print a further table, where all runs have it."""
    tables = [(r, t) for r in results for t in r.tables if _subject(t) == _subject(table)]
    if len(tables) < len(results):
        return
    click.echo()
    print_table_head(table)
    lines: list[tuple[object, ...]] = [(r.run, *pixel_cells(t.rows[0])) for r, t in tables]
    for name, other in _shared([(result, found.rows) for result, found in tables]):
        lines.append((name, *pixel_cells(other)))
    print_table(("%", *pixel_head(table)), lines)


def _print_shapes(results: Sequence[RunScores]) -> None:
    """Print what the runs are worth near borders, in masks and patches, and of confidences."""
    rows: list[tuple[object, ...]] = []
    for result in results:
        further = (result.mean_average_precision, result.calibration.expected_error)
        cells = shape_cells(result, result.model)
        rows.append((result.run, *cells, *(100 * score for score in further)))
    shared = {
        label(result, row): shape_cells(result, row)
        for result in results
        for row in result.rows
        if not row.kind.uses_model
    }
    rows += [(name, *cells, None, None) for name, cells in shared.items()]
    print_table(("%", *SHAPE_HEAD, "mAP", "ECE"), rows)


def _print_differences(differences: Sequence[Comparison]) -> None:
    """Print how the scores of further runs differ from the first's, with intervals."""
    first = differences[0]
    print_table(
        ("run", f"points above {first.first}", "difference", "from", "to"),
        [
            (each.second, _COMPARED[item.score], *map(_signed, _interval(item)))
            for each in differences
            for item in each.scores
        ],
    )
    click.echo(
        f"from … to: {100 * first.level:.0f} % intervals, from {first.resamples:,} resamples of "
        f"the {first.images:,} images"
    )


def _interval(item: ScoreDifference) -> tuple[float, float, float]:
    return item.difference, item.low, item.high


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}"


def _print_error_comparison(results: Sequence[RunScores]) -> None:
    """Print where the wrong pixels of runs lie, and what they were taken for in all patches."""
    rows: list[tuple[object, ...]] = []
    told = results[0].errors.background is not None
    for result in results:
        pure, mixed = result.errors.pure, result.errors.mixed
        cells = zip(error_cells(pure), error_cells(mixed), strict=True)
        sums = [(one or 0.0) + (other or 0.0) for one, other in cells]
        rows.append((result.run, 100 * pure.wrong, 100 * mixed.wrong, *(sums if told else ())))
    head = ("wrong, % of all pixels", "one class", "several", *(ERROR_HEAD if told else ()))
    print_table(head, rows)


def _print_mixed_rows(results: Sequence[RunScores]) -> None:
    """Print what each run would score if its classes or its masks were right."""
    mixed = [row for row in results[0].rows if row.kind.uses_model]
    print_table(
        ("mIoU ≥1 %", *(row.name for row in mixed)),
        [(r.run, *(100 * r.row(row.kind).miou_frequent for row in mixed)) for r in results],
    )


def _subject(table: ScoreTable) -> tuple[str, str, int]:
    """Return what must be equal of tables that stand side by side."""
    return table.area, table.schema, table.pixels


def _shared(tables: Sequence[tuple[RunScores, Sequence[Row]]]) -> list[tuple[str, Row]]:
    """Return the rows that do not depend on a model, each once, with their names.

    Runs that were trained on different splits may have different majority classes.
    """
    rows = {
        label(result, row): row
        for result, rows in tables
        for row in rows
        if not row.kind.uses_model
    }
    return list(rows.items())


def _merged_notes(results: Sequence[RunScores]) -> list[str]:
    """Return the notes of several runs, with the runs' names where they do not hold for all."""
    holders: dict[str, list[str]] = {}
    for result in results:
        for note in result.notes:
            holders.setdefault(note, []).append(result.run)
    return [
        note if len(runs) == len(results) else f"{', '.join(runs)}: {note}"
        for note, runs in holders.items()
    ]


def _print_class_comparison(results: Sequence[RunScores]) -> None:
    """Print each class's IoU, a column per run; all runs have the same ground truth."""
    by_run = [{score.id: score.iou for score in result.classes} for result in results]
    print_table(
        ("id", "class", "pixels", *(f"IoU {result.run}" for result in results)),
        [
            (score.id, score.name, score.pixels, *(100 * ious[score.id] for ious in by_run))
            for score in results[0].classes
        ],
    )
    click.echo()
