"""The lines that ``vocprep train`` prints: notes, epochs, summaries, the table of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import click

from vocprep.cli.bars import Bars, print_above_bar
from vocprep.cli.printing import counted, duration, print_table
from vocprep.heads.runs.sweeps import SWEEP_FILE, number_text

if TYPE_CHECKING:
    from vocprep.heads.runs.log import EpochMetrics
    from vocprep.heads.training.summary import RunSummary, SeedsSummary, SweepSummary


class TrainBars(Bars):
    """Bars of shards, steps and batches, whose notes are marked as such."""

    def __init__(self) -> None:
        super().__init__(unit="")

    def note(self, text: str) -> None:
        """Print a note above the bar."""
        super().note(f"note: {text}")


def print_advice(folders: Sequence[Path], *, overwrite: bool) -> None:
    """Print what can be done after an interruption."""
    from vocprep.heads.runs.state import CHECKPOINT_FILE

    if any((folder / CHECKPOINT_FILE).is_file() for folder in folders):
        instead = " instead of --overwrite" if overwrite else ""
        click.echo(f"note: the same command with --resume{instead} continues", err=True)


def print_epoch(metrics: EpochMetrics, epochs: int, seconds_left: float, name: str = "") -> None:
    """Print an epoch after the name of its run, and below it its validation where it has one."""
    number = f"epoch {metrics.epoch:{len(str(epochs))}d} of {epochs}"
    left = f"  {duration(seconds_left):>6} left" if seconds_left else ""
    lines = [
        f"{name}{number}  loss {metrics.loss:.3f}  {metrics.images_per_second:6,.0f} images/s{left}"
    ]
    if scores := _scores(metrics):
        lines.append(f"{name}{' ' * len(number)}  {scores}".rstrip())
    print_above_bar("\n".join(lines))


def _scores(metrics: EpochMetrics) -> str:
    """Return what was validated, each number behind that of train images where these are scored."""
    if metrics.val_loss is None:
        return ""
    has_train = metrics.train_loss is not None
    losses, mious, accuracies = (
        (metrics.train_loss, metrics.val_loss),
        (metrics.train_miou, metrics.val_miou),
        (metrics.train_pixel_accuracy, metrics.val_pixel_accuracy),
    )
    pairs = [_pair(*losses, 1, 3), _pair(*mious, 100, 1), _pair(*accuracies, 100, 1)]
    loss, miou, accuracy = pairs if has_train else [pair.partition("/")[2] for pair in pairs]
    return f"{'train/' * has_train}val loss {loss}  mIoU {miou}  pixel accuracy {accuracy}"


def _pair(train: float | None, val: float | None, scale: float, digits: int) -> str:
    texts = ["-" if value is None else f"{scale * value:.{digits}f}" for value in (train, val)]
    return f"{texts[0]:>5}/{texts[1]:<5}"


def print_summary(summary: RunSummary) -> None:
    """Print what came of one run."""
    epochs, before = len(summary.history), summary.resumed_from
    if before == epochs:
        click.echo(f"{summary.run_dir}: finished before, after {counted(epochs, 'epoch')}")
        return
    rates = summary.final.spike_rates or {}
    for name, rate in rates.items():
        click.echo(f"spike rate {100 * rate:5.1f} %  {name}")
    if rates:
        click.echo(f"spike rate {100 * mean(rates.values()):5.1f} %  mean of the layers")
    resumed = f", resumed after {counted(before, 'epoch')}," if before else ""
    click.echo(
        f"{summary.run_dir}: {summary.parameters:,} parameters, {summary.images:,} records, "
        f"{counted(epochs - before, 'epoch')}{resumed} in {duration(summary.seconds)} on "
        f"{summary.device} in {summary.precision}; curves in {summary.run_dir / 'curves.png'}"
    )


def print_several(summary: SeedsSummary | SweepSummary) -> None:
    """Print what came of several runs: a line for each seed, or the table of a sweep."""
    from vocprep.heads.training.summary import SweepSummary

    count = f"{summary.out}: {counted(len(summary.runs), 'run')} in {duration(summary.seconds)}"
    if isinstance(summary, SweepSummary):
        _print_sweep(summary)
        best = "no validation split to choose a value by"
        if summary.best is not None:
            best = f"the best by val mIoU is {summary.option} {number_text(summary.best)}"
        click.echo(f"{count}; {best}; this table is in {summary.out / SWEEP_FILE}")
        return
    for run in summary.runs:
        print_summary(run)
    click.echo(
        f"{count}; vocprep evaluate {summary.out} SHARDS gives their scores, mean and spread"
    )


def _print_sweep(summary: SweepSummary) -> None:
    """Print the scores of a sweep's runs after their last epoch, the best marked."""
    rows = []
    for value, run in zip(summary.values, summary.runs, strict=True):
        final = run.final
        losses = [None if loss is None else f"{loss:.3f}" for loss in (final.loss, final.val_loss)]
        scores = (final.train_miou, final.val_miou, final.val_pixel_accuracy)
        percents = [None if score is None else 100 * score for score in scores]
        mark = "best" if value == summary.best else ""
        rows.append((number_text(value), *losses, *percents, mark))
    head = ("loss", "val loss", "train mIoU", "val mIoU", "val pixel accuracy", "")
    print_table((summary.option, *head), rows)
