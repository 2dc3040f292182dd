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
    from vocprep.heads.scoring.measures.errors import Errors, ErrorShares
    from vocprep.heads.scoring.scores import RunScores, ScoreRow, ScoreTable, TableRow

Row = TypeVar("Row", bound="TableRow")
_COMPARED = {
    "miou_present": "mIoU present",
    "miou_frequent": "mIoU ≥1 %",
    "pixel_accuracy": "pixel acc.",
    "boundary_iou_3": "IoU 3 px",
    "boundary_iou_8": "IoU 8 px",
}
_SHAPE_HEAD = ("IoU 3 px", "IoU 8 px", "mask IoU", "top-1", "recall@4")
_ERROR_HEAD = ("object as background", "wrong object", "background as object")


def print_scores(result: Evaluation, *, classes: bool) -> None:
    """Print one run with its oracles, or several in one table."""
    if len(result.runs) == 1:
        print_evaluation(result.runs[0], classes=classes)
    else:
        print_comparison(result.runs, result.differences, classes=classes)
        if result.groups:
            click.echo()
            print_groups(result.groups, result.group_differences)
        _print_notes(_merged_notes(result.runs))


def print_evaluation(result: RunScores, *, classes: bool) -> None:
    """Print all scores of one run."""
    if classes:
        _print_classes(result)
    click.echo(
        f"{result.run} after epoch {result.epoch} on split {result.split}: {result.images:,} "
        f"images, {result.pixels:,} pixels, {result.classes_present} of {result.classes_all} "
        "classes present"
    )
    names = [_label(result, row) for row in result.rows]
    print_table(
        ("%", *_pixel_head(result)),
        [(name, *_pixel_cells(r)) for name, r in zip(names, result.rows, strict=True)],
    )
    _print_chances([result])
    click.echo()
    print_table(
        ("near borders, masks, patches, %", *_SHAPE_HEAD),
        [(name, *_shape_cells(r)) for name, r in zip(names, result.rows, strict=True)],
    )
    masks = result.masks
    click.echo(
        f"macro mAP of the patches' classes {100 * result.mean_average_precision:.1f}\n"
        f"mask IoU, classes given, over {masks.slots:,} slots: {100 * masks.iou:.1f} by the masks "
        f"that fit best, {100 * masks.own_iou:.1f}\nby each class's own, "
        f"{100 * masks.iou_of_largest:.1f} by the largest class everywhere"
    )
    for table in result.tables:
        click.echo()
        _print_further(table, result)
    click.echo()
    _print_errors(result.errors)
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


def _print_errors(errors: Errors) -> None:
    """Print where the wrong pixels lie, and what they were taken for."""
    told = errors.background is not None
    rows = [
        (name, 100 * part.pixels, 100 * part.wrong, *(_error_cells(part) if told else ()))
        for name, part in (
            ("patches of one class", errors.pure),
            ("patches of several", errors.mixed),
        )
    ]
    print_table(("% of all pixels", "pixels", "wrong", *(_ERROR_HEAD if told else ())), rows)


def _error_cells(part: ErrorShares) -> tuple[float | None, ...]:
    shares = (part.missed_object, part.wrong_object, part.false_object)
    return tuple(None if share is None else 100 * share for share in shares)


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
        ("%", *_pixel_head(first)),
        [
            *((f"{r.run} (epoch {r.epoch})", *_pixel_cells(r.model)) for r in results),
            *((name, *_pixel_cells(row)) for name, row in shared),
        ],
    )
    _print_chances(results)
    click.echo()
    _print_shapes(results, shared)
    if differences:
        click.echo()
        _print_differences(differences)
    click.echo()
    _print_mixed_rows(results)
    click.echo()
    _print_error_comparison(results)
    for table in first.tables:
        tables = [(r, t) for r in results for t in r.tables if _subject(t) == _subject(table)]
        if len(tables) < len(results):
            continue
        click.echo()
        _print_table_head(table)
        lines: list[tuple[object, ...]] = [(r.run, *_pixel_cells(t.rows[0])) for r, t in tables]
        for name, other in _shared([(result, found.rows) for result, found in tables]):
            lines.append((name, *_pixel_cells(other)))
        print_table(("%", *_pixel_head(table)), lines)


def _print_shapes(results: Sequence[RunScores], shared: Sequence[tuple[str, ScoreRow]]) -> None:
    """Print what the runs are worth near borders, in masks and patches, and of confidences."""
    rows: list[tuple[object, ...]] = []
    for result in results:
        near3, near8, own, top1, recall = _shape_cells(result.model)
        masks = (100 * result.masks.iou, own)
        further = (100 * result.mean_average_precision, 100 * result.calibration.expected_error)
        rows.append((result.run, near3, near8, *masks, top1, recall, *further))
    for name, row in shared:
        near3, near8, own, top1, recall = _shape_cells(row)
        rows.append((name, near3, near8, own, own, top1, recall, None, None))
    head = (*_SHAPE_HEAD[:3], "own mask", *_SHAPE_HEAD[3:], "mAP", "ECE")
    print_table(("%", *head), rows)


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
        cells = zip(_error_cells(pure), _error_cells(mixed), strict=True)
        sums = [(one or 0.0) + (other or 0.0) for one, other in cells]
        rows.append((result.run, 100 * pure.wrong, 100 * mixed.wrong, *(sums if told else ())))
    head = ("wrong, % of all pixels", "one class", "several", *(_ERROR_HEAD if told else ()))
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
        _label(result, row): row
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
        [(_label(result, row), *_pixel_cells(row)) for row in table.rows],
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
        "mIoU present",
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


def _shape_cells(row: ScoreRow) -> tuple[float | None, ...]:
    scores = (
        *(row.boundary_iou_3, row.boundary_iou_8, row.mask_iou),
        *(row.patch_top1, row.recall_at_4),
    )
    return tuple(None if score is None else 100 * score for score in scores)


def _label(result: RunScores, row: TableRow) -> str:
    """Return a row's name; that of chance with its class alone, since tables must be narrow."""
    return f"chance: {result.majority_class.name}" if row.kind.is_constant else row.name


def _print_chances(results: Sequence[RunScores]) -> None:
    """Print what chance predicts."""
    for name in dict.fromkeys(r.chance for r in results):
        click.echo(name)
