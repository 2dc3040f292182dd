"""``vocprep train``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, get_args

import click

from vocprep.cli.common import (
    PATH,
    check_folder,
    counted,
    device_option,
    json_option,
    print_json,
    progress,
    say,
)
from vocprep.geometry import PATCH
from vocprep.heads.runs.options import EXECUTION, TrainOptions
from vocprep.options import LoaderMode

if TYPE_CHECKING:
    from vocprep.heads.runs.history import EpochMetrics
    from vocprep.heads.training.train import RunSummary
    from vocprep.shards.reader import ShardDataset

PRESETS = "preset's"
"""What the help gives as the default of a flag that lies over the preset."""


@click.command()
@click.argument("shards", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder for the run.")
@click.option(
    "--preset",
    show_default=f"{TrainOptions.preset}; with --resume the run's own",
    help="default, seed, quick, wide, or the PATH of a .toml file.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Lay a value over the preset's, e.g. encoder=spikformer; again for more.",
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
    help="Keep the split on the device, or read it again each epoch: the same batches.",
)
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=TrainOptions.compiled,
    show_default=True,
    help="Compile the step, for a minute or more: pays for spiking heads and for long trainings.",
)
@click.option(
    "--checkpoint-every",
    default=TrainOptions.checkpoint_every,
    show_default=True,
    help="Seconds at least between two checkpoints.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out.")
@click.option("--overwrite", is_flag=True, help="Replace the run that --out holds.")
@json_option
def train(
    shards: Path,
    out: Path,
    preset: str | None,
    settings: tuple[str, ...],
    as_json: bool,
    **flags: Any,
) -> None:
    """Fit the TFDet heads to a dataset version.

    Writes run.json, options.toml, model.safetensors, metrics.jsonl (a line an epoch), curves.png
    and, where tensorboard is installed, its event files. Under torchrun several processes train
    together.

    \b
    Example:
      vocprep train shards/voc --out runs/first --epochs 20
      vocprep train shards/voc --out runs/spikes --preset quick --set encoder=spikformer
    """
    from vocprep.files import write_atomic
    from vocprep.heads.runs.history import draw_curves
    from vocprep.heads.runs.presets import load_options
    from vocprep.heads.runs.run import CURVES_FILE, holds_run, read_config
    from vocprep.heads.training.train import train as train_heads
    from vocprep.shards.reader import ShardDataset

    given = {name: value for name, value in flags.items() if name in EXECUTION or value is not None}
    check_folder(out)
    own = preset is None and given["resume"] and holds_run(out)
    base = read_config(out).options if own else preset or TrainOptions.preset
    options = load_options(base, settings, given)
    dataset = ShardDataset.open(shards)
    report = _Report(out, options, list(_notes(dataset, options)), as_json)
    with progress(options.epochs, "epochs") as step:

        def on_epoch(metrics: EpochMetrics) -> None:
            step()
            report.epoch(metrics)

        try:
            summary = train_heads(dataset, out, options, on_epoch)
        except KeyboardInterrupt:
            report.interrupted()
            raise
    if not summary.leads:
        return
    write_atomic(out / CURVES_FILE, draw_curves(summary.history))
    if as_json:
        print_json(_summary_json(summary))
    else:
        _print_summary(summary)


@dataclass
class _Report:
    """What is printed of a training while it runs, by the process that leads."""

    out: Path
    options: TrainOptions
    notes: list[str]
    """Told with the first epoch: the training has not been refused, and can still be stopped."""
    as_json: bool
    learnt: int = 0

    def epoch(self, metrics: EpochMetrics) -> None:
        """Tell of an epoch that has been run."""
        self.learnt += 1
        if self.options.resume and metrics.epoch == 1:
            self.notes.insert(0, f"nothing to go on with in {self.out}: this training is a new one")
        while self.notes:
            say(f"note: {self.notes.pop(0)}", err=True)
        if not self.as_json and (metrics.val_miou is not None or not self.options.val_split):
            _print_epoch(metrics)

    def interrupted(self) -> None:
        """Tell what can be done now."""
        from vocprep.heads.runs.run import CHECKPOINT_FILE

        if self.learnt and (self.out / CHECKPOINT_FILE).is_file():
            instead = " instead of --overwrite" if self.options.overwrite else ""
            say(f"note: the same command with --resume{instead} goes on", err=True)


def _notes(dataset: ShardDataset, options: TrainOptions) -> Iterator[str]:
    """Yield what of the data a reader of the scores should know."""
    if options.val_split == options.train_split:
        yield "val scores are of the split that is learnt from: they flatter"
    if dataset.quarantined:
        missing = f"{len(dataset.quarantined):,} bad pictures are not in {dataset.path}"
        yield f"{missing}; see quarantine.jsonl"
    if options.flip and "flip" not in dataset.index.recipe.views:
        yield f"no mirrored views in {dataset.path}: build-shards --views flip makes them"
    if options.preset == "wide" and dataset.index.recipe.windows == (PATCH,):
        yield f"{dataset.path} has no wide embeddings: build-shards --windows makes them"


def _summary_json(summary: RunSummary) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "run": str(summary.run_dir),
        "seconds": summary.seconds,
        "device": summary.device,
        "precision": summary.precision,
        "parameters": summary.parameters,
        "history": [asdict(metrics) for metrics in summary.history],
    }


def _print_epoch(metrics: EpochMetrics) -> None:
    """Print an epoch, with its scores where it has them."""
    scores = ""
    if metrics.val_miou is not None and metrics.val_pixel_accuracy is not None:
        scores = (
            f"  val mIoU {100 * metrics.val_miou:5.1f}"
            f"  val pixel accuracy {100 * metrics.val_pixel_accuracy:5.1f}"
        )
    speed = f"{metrics.images_per_second:,.0f} images/s"
    say(f"epoch {metrics.epoch:3d}  loss {metrics.loss:.3f}{scores}  {speed}")


def _print_summary(summary: RunSummary) -> None:
    epochs, before = len(summary.history), summary.gone_on_from
    if before == epochs:
        click.echo(f"{summary.run_dir}: finished before, after {counted(epochs, 'epoch')}")
        return
    rates = summary.final.spike_rates or {}
    for name, rate in rates.items():
        click.echo(f"spike rate {100 * rate:5.1f} %  {name}")
    if rates:
        click.echo(f"spike rate {100 * mean(rates.values()):5.1f} %  mean of the layers")
    went_on = f", gone on with after {counted(before, 'epoch')}," if before else ""
    click.echo(
        f"{summary.run_dir}: {summary.parameters:,} parameters, {summary.images:,} records, "
        f"{counted(epochs - before, 'epoch')}{went_on} in {summary.seconds:.1f} s on "
        f"{summary.device} in {summary.precision}; curves in {summary.run_dir / 'curves.png'}"
    )
