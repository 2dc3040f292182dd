"""How the scores of one run are printed, with its oracles."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from vocprep.heads.scoring.measures.calibration import Calibration
    from vocprep.heads.scoring.measures.errors import Errors
    from vocprep.heads.scoring.measures.masks import MaskQuality
    from vocprep.heads.scoring.scores import RunScores, ScoreTable


def print_evaluation(result: RunScores, *, classes: bool) -> None:
    """Print all scores of one run."""
    if classes:
        _print_classes(result)
    click.echo(
        f"{result.run} after epoch {result.epoch} on split {result.split}: {result.images:,} "
        f"images, {result.pixels:,} pixels, {result.classes_present} of {result.classes_all} "
        "classes present"
    )
    names = [label(result, row) for row in result.rows]
    print_table(
        ("%", *pixel_head(result)),
        [(name, *pixel_cells(r)) for name, r in zip(names, result.rows, strict=True)],
    )
    print_chances([result])
    click.echo()
    print_table(
        ("near borders, masks, patches, %", *SHAPE_HEAD),
        [(name, *shape_cells(result, r)) for name, r in zip(names, result.rows, strict=True)],
    )
    _print_masks(result.masks, result.mean_average_precision)
    for table in result.tables:
        click.echo()
        _print_further(table, result)
    click.echo()
    _print_errors(result.errors)
    _print_calibration(result.calibration)
    if result.worst_images:
        click.echo()
        _print_worst(result)
    print_notes(result.notes)


def _print_masks(masks: MaskQuality, mean_average_precision: float) -> None:
    click.echo(
        f"macro mAP of the patches' classes {100 * mean_average_precision:.1f}\n"
        f"mask IoU, classes given, over {masks.slots:,} slots: {100 * masks.iou:.1f} by the masks "
        f"that fit best, {100 * masks.own_iou:.1f}\nby each class's own, "
        f"{100 * masks.iou_of_largest:.1f} by the largest class everywhere"
    )


def _print_calibration(calibration: Calibration) -> None:
    click.echo(
        f"mean confidence of the pixels {100 * calibration.confidence:.1f}; expected calibration "
        f"error {100 * calibration.expected_error:.1f}"
    )


def _print_worst(result: RunScores) -> None:
    print_table(
        ("worst images, %", "pixel acc.", "mIoU"),
        [
            (image.image_id, 100 * image.pixel_accuracy, 100 * image.miou)
            for image in result.worst_images
        ],
    )


def _print_errors(errors: Errors) -> None:
    """Print where the wrong pixels lie, and what they were taken for."""
    told = errors.background is not None
    rows = [
        (name, 100 * part.pixels, 100 * part.wrong, *(error_cells(part) if told else ()))
        for name, part in (
            ("patches of one class", errors.pure),
            ("patches of several", errors.mixed),
        )
    ]
    print_table(("% of all pixels", "pixels", "wrong", *(ERROR_HEAD if told else ())), rows)


def _print_further(table: ScoreTable, result: RunScores) -> None:
    """Print a further table, or that it equals the first."""
    if (table.schema, table.pixels) == (result.schema, result.pixels):
        click.echo(f"{table.area}: the same, the geometry leaves nothing out")
        return
    print_table_head(table)
    print_table(
        ("%", *pixel_head(table)),
        [(label(result, row), *pixel_cells(row)) for row in table.rows],
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
