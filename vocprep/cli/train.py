"""``vocprep train``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, get_args

import click

from vocprep.cli.bars import Bars, print_above_bar
from vocprep.cli.common import (
    PATH,
    PLACE,
    check_folder,
    counted,
    device_option,
    duration,
    json_option,
    print_json,
)
from vocprep.heads.runs.options import DEFAULT_PRESET, EXECUTION, TrainOptions
from vocprep.options import LoaderMode
from vocprep.storage.places import Place

if TYPE_CHECKING:
    from vocprep.heads.runs.log import EpochMetrics
    from vocprep.heads.training.summary import RunSummary

PRESETS = "preset's"
"""The default, in the help, of a flag that overrides the preset."""
_LATEST = 5
"""Epochs by whose seconds the time left is estimated."""


@click.command()
@click.argument("shards", type=PLACE)
@click.option("--out", type=PATH, required=True, help="Folder for the run.")
@click.option(
    "--preset",
    show_default=f"{DEFAULT_PRESET}; with --resume the run's own",
    help="default, seed, quick, wide, cells, linear, or the PATH of a .toml file.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a value of the preset, e.g. encoder=spikformer; repeatable.",
)
@click.option("--epochs", type=int, show_default=PRESETS)
@click.option("--batch-size", type=int, show_default=PRESETS, help="Images.")
@click.option("--lr", type=float, show_default=PRESETS, help="Peak learning rate.")
@click.option("--weight-decay", type=float, show_default=PRESETS)
@click.option("--seed", type=int, show_default=PRESETS)
@click.option(
    "--position/--no-position",
    default=None,
    show_default=PRESETS,
    help="Add the 2-D sine position code.",
)
@click.option("--train-split", show_default=PRESETS)
@click.option("--val-split", show_default=PRESETS)
@click.option("--validate-every", type=int, show_default=PRESETS, help="Epochs.")
@device_option
@click.option(
    "--mode",
    type=click.Choice(get_args(LoaderMode)),
    default=TrainOptions.mode,
    show_default=True,
    help="Keep the split on the device, or read it again, shard by shard, in each epoch.",
)
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=TrainOptions.compiled,
    show_default=True,
    help="Compile the step, which takes a minute or more: for spiking heads and long trainings.",
)
@click.option(
    "--checkpoint-every",
    default=TrainOptions.checkpoint_every,
    show_default=True,
    help="Minimum seconds between two checkpoints.",
)
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint in --out.")
@click.option("--overwrite", is_flag=True, help="Replace the run that --out holds.")
@click.option(
    "--weights",
    help="PATH or random:SEED of the shards' backbone, for predict.  [default: as they were built]",
)
@json_option
def train(
    shards: Place,
    out: Path,
    preset: str | None,
    settings: tuple[str, ...],
    weights: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train the TFDet heads on a dataset version, in a folder or at a URL of an object store.

    Writes run.json, options.toml, model.safetensors, metrics.jsonl (one line per epoch),
    curves.png, weights.json (where the backbone's weights are, for predict) and, where tensorboard
    is installed, its event files. Under torchrun several processes train together.

    \b
    Example:
      vocprep train shards/voc --out runs/first --epochs 20
      vocprep train shards/voc --out runs/spikes --preset quick --set encoder=spikformer
    """
    from vocprep.heads.runs.folder import options_for
    from vocprep.heads.training.train import train as train_heads

    given = {name: value for name, value in flags.items() if name in EXECUTION or value is not None}
    check_folder(out)
    options = options_for(out, preset, settings, given)
    trained: list[EpochMetrics] = []

    def on_epoch(metrics: EpochMetrics) -> None:
        trained.append(metrics)
        if not as_json:
            _print_epoch(metrics, options.epochs, _seconds_left(trained, options))

    try:
        summary = train_heads(shards, out, options, on_epoch, _Bars(), weights)
    except KeyboardInterrupt:
        if trained:
            _print_advice(out, overwrite=options.overwrite)
        raise
    if not summary.leads:
        return
    if as_json:
        print_json(summary.to_json())
    else:
        _print_summary(summary)


class _Bars(Bars):
    """Bars of shards, steps and batches, whose notes are marked as such."""

    def __init__(self) -> None:
        super().__init__(unit="")

    def note(self, text: str) -> None:
        """Print a note above the bar."""
        super().note(f"note: {text}")


def _print_advice(out: Path, *, overwrite: bool) -> None:
    """Print what can be done after an interruption."""
    from vocprep.heads.runs.state import CHECKPOINT_FILE

    if (out / CHECKPOINT_FILE).is_file():
        instead = " instead of --overwrite" if overwrite else ""
        click.echo(f"note: the same command with --resume{instead} continues", err=True)


def _seconds_left(trained: Sequence[EpochMetrics], options: TrainOptions) -> float:
    """Estimate how long the other epochs take, by the latest ones of those that were trained now.

    Epochs with a validation take longer: each kind is estimated by the epochs of its kind, or by
    all where none was trained yet.
    """
    seconds = 0.0
    left = [options.validates(epoch) for epoch in range(trained[-1].epoch + 1, options.epochs + 1)]
    for is_validated in set(left):
        alike = [each for each in trained if options.validates(each.epoch) == is_validated]
        latest = (alike or trained)[-_LATEST:]
        seconds += left.count(is_validated) * mean(each.seconds for each in latest)
    return seconds


def _print_epoch(metrics: EpochMetrics, epochs: int, seconds_left: float) -> None:
    """Print an epoch, with its validation where it has one."""
    scores = ""
    if metrics.val_miou is not None and metrics.val_pixel_accuracy is not None:
        scores = (
            f"  val mIoU {100 * metrics.val_miou:5.1f}"
            f"  val pixel accuracy {100 * metrics.val_pixel_accuracy:5.1f}"
        )
    number = f"{metrics.epoch:{len(str(epochs))}d} of {epochs}"
    speed = f"{metrics.images_per_second:6,.0f} images/s"
    left = f"{duration(seconds_left)} left" if metrics.epoch < epochs else ""
    line = f"epoch {number}  loss {metrics.loss:.3f}  {speed}  {left:>11}{scores}"
    print_above_bar(line.rstrip())


def _print_summary(summary: RunSummary) -> None:
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
