"""``vocprep train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vocprep.cli.common import (
    PATH,
    device_option,
    json_option,
    print_json,
    progress,
    say,
)
from vocprep.heads.options import TrainOptions

if TYPE_CHECKING:
    from vocprep.heads.history import EpochMetrics


@click.command()
@click.argument("shards", type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder for the run.")
@click.option("--epochs", default=TrainOptions.epochs, show_default=True)
@click.option("--batch-size", default=TrainOptions.batch_size, show_default=True, help="Images.")
@click.option("--lr", default=TrainOptions.lr, show_default=True, help="Peak learning rate.")
@click.option("--weight-decay", default=TrainOptions.weight_decay, show_default=True)
@click.option("--seed", default=TrainOptions.seed, show_default=True)
@click.option(
    "--position/--no-position",
    default=TrainOptions.position,
    show_default=True,
    help="Add the 2-D sine position code; without it, the seed's literal model.",
)
@click.option("--train-split", default=TrainOptions.train_split, show_default=True)
@click.option("--val-split", default=TrainOptions.val_split, show_default=True)
@click.option(
    "--validate-every", default=TrainOptions.validate_every, show_default=True, help="Epochs."
)
@device_option
@click.option("--overwrite", is_flag=True, help="Replace the run that --out holds.")
@json_option
def train(
    shards: Path,
    out: Path,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    seed: int,
    position: bool,
    train_split: str,
    val_split: str,
    validate_every: int,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Fit the TFDet heads to a dataset version.

    Writes run.json, model.safetensors, metrics.jsonl (a line an epoch) and curves.png.

    \b
    Example:
      vocprep train shards/voc --out runs/first --epochs 20
    """
    options = TrainOptions(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        seed=seed,
        position=position,
        train_split=train_split,
        val_split=val_split,
        validate_every=validate_every,
        device=device,
        overwrite=overwrite,
    )
    from dataclasses import asdict

    from vocprep.files import write_atomic
    from vocprep.heads.run import CURVES_FILE
    from vocprep.heads.train import train as train_heads
    from vocprep.pages.plot import curves_png
    from vocprep.shards.reader import ShardDataset

    with progress(epochs, "epochs") as step:

        def on_epoch(metrics: EpochMetrics) -> None:
            step()
            if not as_json:
                _print_epoch(metrics)

        summary = train_heads(ShardDataset.open(shards), out, options, on_epoch)
    write_atomic(out / CURVES_FILE, curves_png(summary.history))
    if as_json:
        print_json(
            {
                "run": str(out),
                "seconds": summary.seconds,
                "parameters": summary.parameters,
                "history": [asdict(metrics) for metrics in summary.history],
            }
        )
        return
    click.echo(
        f"{out}: {summary.parameters:,} parameters, {summary.images:,} records, {epochs} epochs "
        f"in {summary.seconds:.1f} s on {summary.device}; curves in {out / 'curves.png'}"
    )


def _print_epoch(metrics: EpochMetrics) -> None:
    """Print the epochs that were scored."""
    if metrics.val_miou is None or metrics.val_pixel_accuracy is None:
        return
    say(
        f"epoch {metrics.epoch:3d}  loss {metrics.loss:.3f}  val mIoU {100 * metrics.val_miou:5.1f}"
        f"  val pixel accuracy {100 * metrics.val_pixel_accuracy:5.1f}"
        f"  {metrics.images_per_second:,.0f} images/s"
    )
