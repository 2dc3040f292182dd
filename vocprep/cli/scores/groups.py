"""How mean and spread of runs with several seeds are printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from vocprep.cli.printing import counted, print_tables

if TYPE_CHECKING:
    from vocprep.heads.scoring.groups import (
        GroupComparison,
        RunGroup,
        ScoreSpread,
        SpreadDifference,
    )

_NAMES = {
    "miou_present": "mIoU present",
    "miou_all": "mIoU all",
    "miou_frequent": "mIoU ≥1 %",
    "pixel_accuracy": "pixel acc.",
    "frequency_weighted_iou": "fw IoU",
    "patch_top1": "top-1",
    "recall_at_4": "recall@4",
    "boundary_iou_3": "IoU 3 px",
    "boundary_iou_8": "IoU 8 px",
    "mask_iou": "own mask",
    "masks_iou": "mask IoU",
    "mean_average_precision": "mAP",
}
"""Scores of groups as the other tables name them."""


def print_groups(groups: Sequence[RunGroup], differences: Sequence[GroupComparison]) -> None:
    """Print the scores of groups, mean and lowest to highest, and how the groups differ."""
    first = groups[0]
    columns = [f"{group.name}, {counted(len(group.runs), 'run')}" for group in groups]
    above = [f"{each.second} above {each.first}" for each in differences]
    rows = []
    for number, score in enumerate(first.scores):
        spreads = [_spread(group.scores[number]) for group in groups]
        found = [_difference(each.scores[number]) for each in differences]
        rows.append((_NAMES.get(score.score, score.score), *spreads, *found))
    print_tables(("%", *columns, *above), rows)
    click.echo("each the mean over seeds (lowest to highest)")


def _spread(score: ScoreSpread) -> str:
    ends = f"{100 * score.lowest:.1f} to {100 * score.highest:.1f}"
    return f"{100 * score.mean:.1f} ({ends})"


def _difference(score: SpreadDifference) -> str:
    if score.exceeds_spread is None:
        return f"{100 * score.difference:+.1f}"
    where = "beyond" if score.exceeds_spread else "within"
    return f"{100 * score.difference:+.1f}, {where} the spread of {100 * score.spread:.1f}"
