"""How scores are printed: one run with its oracles, or several in one table. All in percent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from vocprep.cli.common import print_table

if TYPE_CHECKING:
    from vocprep.heads.scoring.evaluation import Evaluation, ScoreRow, ScoreTable, TableRow

MAJORITY = "majority label"
MODEL = "model"
Row = TypeVar("Row", bound="TableRow")


def print_scores(results: Sequence[Evaluation], *, classes: bool) -> None:
    """Print one run with its oracles, or several in one table."""
    if len(results) == 1:
        print_evaluation(results[0], classes=classes)
    else:
        print_comparison(results, classes=classes)


def print_evaluation(result: Evaluation, *, classes: bool) -> None:
    """Print all that is known of one run."""
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
        [(_row_name(r, result), *_pixel_cells(r), *_patch_cells(r)) for r in result.rows],
    )
    masks = result.masks
    click.echo(
        f"macro mAP of the patches' labels {100 * result.mean_average_precision:.1f}; mask IoU, "
        f"labels given, {100 * masks.iou:.1f} (largest label everywhere "
        f"{100 * masks.iou_of_largest:.1f}) over {masks.slots:,} slots"
    )
    for table in result.tables:
        click.echo()
        _print_further(table, result)
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


def print_comparison(results: Sequence[Evaluation], *, classes: bool) -> None:
    """Print several runs on one split, a line a run, above the oracles that they share."""
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
        row = result.row(MODEL)
        # As text, since the oracles have none of these.
        own = (f"{100 * result.mean_average_precision:5.1f}", f"{100 * result.masks.iou:8.1f}")
        name = f"{result.run} (epoch {result.epoch})"
        rows.append((name, *_pixel_cells(row), *_patch_cells(row), *own))
    for name, row in _shared([(result, result.rows) for result in results]):
        rows.append((name, *_pixel_cells(row), *_patch_cells(row), "", ""))
    print_table(head, rows)
    click.echo()
    _print_mixtures(results)
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


def _print_mixtures(results: Sequence[Evaluation]) -> None:
    """Print what each run would score if its labels or its masks were right."""
    names = [row.name for row in results[0].rows if MODEL in row.name.split()]
    print_table(
        ("mIoU ≥1 %", *names),
        [(r.run, *(100 * r.row(name).miou_frequent for name in names)) for r in results],
    )


def _subject(table: ScoreTable) -> tuple[str, str, int]:
    """Return what a table is about: only tables of one subject may stand side by side."""
    return table.area, table.schema, table.pixels


def _shared(tables: Sequence[tuple[Evaluation, Sequence[Row]]]) -> list[tuple[str, Row]]:
    """Return the rows in which no model has a part, each once, with their names.

    Runs that learnt from other splits have other majorities.
    """
    rows = {
        _row_name(row, result): row
        for result, rows in tables
        for row in rows
        if MODEL not in row.name.split()
    }
    return list(rows.items())


def _merged_notes(results: Sequence[Evaluation]) -> list[str]:
    """Return the notes of several runs, with the runs' names where they are not true of all."""
    holders: dict[str, list[str]] = {}
    for result in results:
        for note in result.notes:
            holders.setdefault(note, []).append(result.run)
    return [
        note if len(runs) == len(results) else f"{', '.join(runs)}: {note}"
        for note, runs in holders.items()
    ]


def _print_further(table: ScoreTable, result: Evaluation) -> None:
    """Print a further table, or that it is the first once more."""
    if (table.schema, table.pixels) == (result.schema, result.pixels):
        click.echo(f"{table.area}: the same, the geometry leaves nothing out")
        return
    _print_table_head(table)
    print_table(
        ("%", *_pixel_head(table)),
        [(_row_name(row, result), *_pixel_cells(row)) for row in table.rows],
    )


def _print_table_head(table: ScoreTable) -> None:
    click.echo(
        f"{table.schema}, {table.area}: {table.pixels:,} pixels, {table.classes_present} of "
        f"{table.classes_all} classes present"
    )


def _print_classes(result: Evaluation) -> None:
    print_table(
        ("id", "class", "pixels", "IoU", "accuracy", "IoU GT top-4"),
        [
            (c.label, c.name, c.pixels, 100 * c.iou, 100 * c.accuracy, 100 * c.oracle_iou)
            for c in result.classes
        ],
    )
    click.echo()


def _print_class_comparison(results: Sequence[Evaluation]) -> None:
    """Print each class's IoU, a column a run; all runs saw the same ground truth."""
    by_run = [{score.label: score.iou for score in result.classes} for result in results]
    print_table(
        ("id", "class", "pixels", *(f"IoU {result.run}" for result in results)),
        [
            (score.label, score.name, score.pixels, *(100 * ious[score.label] for ious in by_run))
            for score in results[0].classes
        ],
    )
    click.echo()


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        click.echo(f"note: {note}")


def _pixel_head(table: Evaluation | ScoreTable) -> tuple[str, ...]:
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


def _row_name(row: TableRow, result: Evaluation) -> str:
    if row.name == MAJORITY:
        return f"chance: {result.majority_label!r} everywhere (majority of {result.majority_split})"
    return row.name
