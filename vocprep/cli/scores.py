"""How scores are printed: one run with its oracles, or several in one table. All in percent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from vocprep.cli.common import print_table
from vocprep.cli.group_scores import print_groups

if TYPE_CHECKING:
    from vocprep.heads.scoring.comparison import Comparison, ScoreDifference
    from vocprep.heads.scoring.evaluate import Evaluation
    from vocprep.heads.scoring.scores import RunScores, ScoreRow, ScoreTable, TableRow

Row = TypeVar("Row", bound="TableRow")
_COMPARED = {
    "miou_present": "mIoU present",
    "miou_frequent": "mIoU ≥1 %",
    "pixel_accuracy": "pixel acc.",
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


def print_evaluation(result: RunScores, *, classes: bool) -> None:
    """Print all scores of one run."""
    if classes:
        _print_classes(result)
    click.echo(
        f"{result.run} after epoch {result.epoch} on split {result.split}: {result.images:,} "
        f"images, {result.pixels:,} pixels, {result.classes_present} of {result.classes_all} "
        "classes present"
    )
    head = ("%", *_pixel_head(result), "top-1", "recall@4")
    print_table(
        head,
        [(result.row_name(r), *_pixel_cells(r), *_patch_cells(r)) for r in result.rows],
    )
    masks = result.masks
    click.echo(
        f"macro mAP of the patches' classes {100 * result.mean_average_precision:.1f}; mask IoU, "
        f"classes given, {100 * masks.iou:.1f} (largest class everywhere "
        f"{100 * masks.iou_of_largest:.1f}) over {masks.slots:,} slots"
    )
    for table in result.tables:
        click.echo()
        _print_further(table, result)
    click.echo()
    calibration = result.calibration
    click.echo(
        f"mean confidence of the pixels {100 * calibration.confidence:.1f}; expected calibration "
        f"error {100 * calibration.expected_error:.1f}"
    )
    if result.worst_images:
        click.echo()
        print_table(
            ("worst images, %", "pixel acc.", "mIoU"),
            [
                (image.image_id, 100 * image.pixel_accuracy, 100 * image.miou)
                for image in result.worst_images
            ],
        )
    _print_notes(result.notes)


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
    head = ("%", *_pixel_head(first), "top-1", "recall@4", "mAP", "mask IoU")
    rows: list[tuple[object, ...]] = []
    for result in results:
        row = result.model
        # As text, since the oracles have none of these.
        own = (f"{100 * result.mean_average_precision:5.1f}", f"{100 * result.masks.iou:8.1f}")
        name = f"{result.run} (epoch {result.epoch})"
        rows.append((name, *_pixel_cells(row), *_patch_cells(row), *own))
    for name, row in _shared([(result, result.rows) for result in results]):
        rows.append((name, *_pixel_cells(row), *_patch_cells(row), "", ""))
    print_table(head, rows)
    if differences:
        click.echo()
        _print_differences(differences)
    click.echo()
    _print_mixed_rows(results)
    for table in first.tables:
        tables = [(r, t) for r in results for t in r.tables if _subject(t) == _subject(table)]
        if len(tables) < len(results):
            continue
        click.echo()
        _print_table_head(table)
        lines: list[tuple[object, ...]] = [(r.run, *_pixel_cells(t.rows[0])) for r, t in tables]
        for name, shared in _shared([(result, found.rows) for result, found in tables]):
            lines.append((name, *_pixel_cells(shared)))
        print_table(("%", *_pixel_head(table)), lines)
    _print_notes(_merged_notes(results))


def _print_differences(differences: Sequence[Comparison]) -> None:
    """Print how the scores of further runs differ from the first's, with intervals."""
    first = differences[0]
    print_table(
        (f"points above {first.first}", *(_COMPARED[item.score] for item in first.scores)),
        [(each.second, *(_difference(item) for item in each.scores)) for each in differences],
    )
    click.echo(
        f"in brackets {100 * first.level:.0f} % intervals, from {first.resamples:,} resamples of "
        f"the {first.images:,} images"
    )


def _difference(item: ScoreDifference) -> str:
    return f"{100 * item.difference:+.1f} [{100 * item.low:+.1f} to {100 * item.high:+.1f}]"


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

    Runs that were trained on different splits have different majority classes.
    """
    rows = {
        result.row_name(row): row
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


def _print_further(table: ScoreTable, result: RunScores) -> None:
    """Print a further table, or that it equals the first."""
    if (table.schema, table.pixels) == (result.schema, result.pixels):
        click.echo(f"{table.area}: the same, the geometry leaves nothing out")
        return
    _print_table_head(table)
    print_table(
        ("%", *_pixel_head(table)),
        [(result.row_name(row), *_pixel_cells(row)) for row in table.rows],
    )


def _print_table_head(table: ScoreTable) -> None:
    click.echo(
        f"{table.schema}, {table.area}: {table.pixels:,} pixels, {table.classes_present} of "
        f"{table.classes_all} classes present"
    )


def _print_classes(result: RunScores) -> None:
    print_table(
        ("id", "class", "pixels", "IoU", "accuracy", "IoU GT top-4"),
        [
            (c.id, c.name, c.pixels, 100 * c.iou, 100 * c.accuracy, 100 * c.oracle_iou)
            for c in result.classes
        ],
    )
    click.echo()


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


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        click.echo(f"note: {note}")


def _pixel_head(table: RunScores | ScoreTable) -> tuple[str, ...]:
    return (
        f"mIoU {table.classes_present} present",
        f"mIoU all {table.classes_all}",
        "mIoU ≥1 %",
        "pixel acc.",
        "fw IoU",
    )


def _pixel_cells(row: TableRow) -> tuple[float, ...]:
    scores = (
        *(row.miou_present, row.miou_all, row.miou_frequent),
        *(row.pixel_accuracy, row.frequency_weighted_iou),
    )
    return tuple(100 * score for score in scores)


def _patch_cells(row: ScoreRow) -> tuple[float, ...]:
    return 100 * row.patch_top1, 100 * row.recall_at_4
