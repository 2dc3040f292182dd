"""The cells of tables of scores, and the lines between tables. All in percent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vocprep.heads.scoring.measures.errors import ErrorShares
    from vocprep.heads.scoring.scores import RunScores, ScoreRow, ScoreTable, TableRow

SHAPE_HEAD = ("IoU 3 px", "IoU 8 px", "mask IoU", "own mask", "top-1", "recall@4")
ERROR_HEAD = ("object as background", "wrong object", "background as object")


def pixel_head(table: RunScores | ScoreTable) -> tuple[str, ...]:
    """Return the heads of ``pixel_cells``."""
    return (
        "mIoU present",
        f"mIoU all {table.classes_all}",
        "mIoU ≥1 %",
        "pixel acc.",
        "fw IoU",
    )


def pixel_cells(row: TableRow) -> tuple[float, ...]:
    """Return the scores of a row's pixels."""
    scores = (
        *(row.miou_present, row.miou_all, row.miou_frequent),
        *(row.pixel_accuracy, row.frequency_weighted_iou),
    )
    return tuple(100 * score for score in scores)


def shape_cells(result: RunScores, row: ScoreRow) -> tuple[float | None, ...]:
    """Return the scores of one of a run's rows near borders, of masks and of patches."""
    scores = (
        *(row.boundary_iou_3, row.boundary_iou_8, *result.mask_ious(row)),
        *(row.patch_top1, row.recall_at_4),
    )
    return tuple(None if score is None else 100 * score for score in scores)


def error_cells(part: ErrorShares) -> tuple[float | None, ...]:
    """Return the wrong pixels by what they were taken for."""
    shares = (part.missed_object, part.wrong_object, part.false_object)
    return tuple(None if share is None else 100 * share for share in shares)


def label(result: RunScores, row: TableRow) -> str:
    """Return a row's name; that of chance with its class alone, since tables must be narrow."""
    return f"chance: {result.majority_class.name}" if row.kind.is_constant else row.name


def print_chances(results: Sequence[RunScores]) -> None:
    """Print what chance predicts."""
    for name in dict.fromkeys(r.chance for r in results):
        click.echo(name)


def print_table_head(table: ScoreTable) -> None:
    """Print what a further table is of."""
    click.echo(
        f"{table.schema}, {table.area}: {table.pixels:,} pixels, {table.classes_present} of "
        f"{table.classes_all} classes present"
    )


def print_notes(notes: Sequence[str]) -> None:
    """Print each note on a line of its own."""
    for note in notes:
        click.echo(f"note: {note}")
