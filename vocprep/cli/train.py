"""``vocprep train``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, get_args

import click

from vocprep.cli.bars import Bars, print_above_bar
from vocprep.cli.common import PATH, PLACE, check_folder, json_option
from vocprep.cli.printing import counted, duration, print_json
from vocprep.cli.shared_options import device_option
from vocprep.cli.time_left import TimeLeft, seconds_left
from vocprep.errors import UsageError
from vocprep.heads.runs.options import DEFAULT_PRESET, EXECUTION, TrainOptions
from vocprep.options import LoaderMode
from vocprep.storage.places import Place

if TYPE_CHECKING:
    from vocprep.heads.runs.log import EpochMetrics
    from vocprep.heads.training.summary import RunSummary

PRESETS = "preset's"
"""The default, in the help, of a flag that overrides the preset."""


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
    "--seeds",
    metavar="N,N...",
    help="Train a run with each of these seeds, in OUT/seed-N, several at once on a CPU.",
)
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
@click.option(
    "--mlflow",
    metavar="[URI]",
    is_flag=False,
    flag_value="",
    help="Log to this MLflow tracking store too, or without URI to $MLFLOW_TRACKING_URI, else "
    "./mlflow.db.",
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
    seeds: str | None,
    weights: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train the TFDet heads on a dataset version, in a folder or at a URL of an object store.

    Writes run.json, options.toml, model.safetensors, metrics.jsonl (one line per epoch),
    curves.png, weights.json (where the backbone's weights are, for predict), where tensorboard is
    installed its event files, and with --mlflow a run of MLflow. Under torchrun several processes
    train together.

    \b
    Example:
      vocprep train shards/voc --out runs/first --epochs 20
      vocprep train shards/voc --out runs/spikes --preset quick --set encoder=spikformer
      vocprep train shards/voc --out runs/three --seeds 0,1,2
    """
    from vocprep.heads.runs.folder import options_for

    given = {name: value for name, value in flags.items() if name in EXECUTION or value is not None}
    check_folder(out)
    if seeds is not None:
        chosen = _parse_seeds(seeds, settings, flags["seed"])
        options = options_for(_begun_folder(out, chosen), preset, settings, given)
        _train_several(shards, out, options, chosen, weights, as_json=as_json)
        return
    options = options_for(out, preset, settings, given)
    _train_one(shards, out, options, weights, as_json=as_json)


def _train_one(
    shards: Place, out: Path, options: TrainOptions, weights: str | None, *, as_json: bool
) -> None:
    from vocprep.heads.training.train import train as train_heads

    trained: list[EpochMetrics] = []

    def on_epoch(metrics: EpochMetrics) -> None:
        trained.append(metrics)
        if not as_json:
            _print_epoch(metrics, options.epochs, seconds_left(trained, options))

    try:
        summary = train_heads(shards, out, options, on_epoch, _Bars(), weights)
    except KeyboardInterrupt:
        if trained:
            _print_advice([out], overwrite=options.overwrite)
        raise
    if not summary.leads:
        return
    if as_json:
        print_json(summary.to_json())
    else:
        _print_summary(summary)


def _train_several(  # the command's words
    shards: Place,
    out: Path,
    options: TrainOptions,
    seeds: Sequence[int],
    weights: str | None,
    *,
    as_json: bool,
) -> None:
    from vocprep.heads.runs.folder import is_finished
    from vocprep.heads.runs.run import seed_folder
    from vocprep.heads.training.train import train as train_heads

    done = [seed for seed in seeds if options.resume and is_finished(seed_folder(out, seed))]
    left = TimeLeft(options.epochs, len(seeds) - len(done))
    width = max(len(str(seed)) for seed in seeds)

    def on_epoch(seed: int, metrics: EpochMetrics) -> None:
        seconds = left.after(seed, metrics.epoch)
        if not as_json:
            name = f"seed {seed:{width}d}  "
            _print_epoch(metrics, options.epochs, seconds, name)

    try:
        summary = train_heads(shards, out, options, on_epoch, _Bars(), weights, seeds=seeds)
    except KeyboardInterrupt:
        if left.has_begun:
            _print_advice([seed_folder(out, seed) for seed in seeds], overwrite=options.overwrite)
        raise
    if not summary.leads:
        return
    if as_json:
        print_json(summary.to_json())
        return
    for run in summary.runs:
        _print_summary(run)
    click.echo(
        f"{out}: {counted(len(seeds), 'run')} in {duration(summary.seconds)}; "
        f"vocprep evaluate {out} SHARDS gives their scores, mean and spread"
    )


def _parse_seeds(text: str, settings: Sequence[str], seed: int | None) -> tuple[int, ...]:
    """Return the seeds of --seeds; UsageError for a bad list, or where a seed is given besides."""
    if seed is not None or any(each.partition("=")[0].strip() == "seed" for each in settings):
        raise UsageError("seed and seeds: expected one of them; leave --seed out, or --seeds")
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,19}", part) for part in parts):
        raise UsageError(
            f"seeds {text!r}: expected whole numbers from 0 with commas between them, such as 0,1,2"
        )
    return tuple(int(part) for part in parts)


def _begun_folder(out: Path, seeds: Sequence[int]) -> Path:
    """Return the folder of the first seed whose run is begun, that of the first where none is."""
    from vocprep.heads.runs.folder import holds_run
    from vocprep.heads.runs.run import seed_folder

    folders = [seed_folder(out, seed) for seed in seeds]
    return next((folder for folder in folders if holds_run(folder)), folders[0])


class _Bars(Bars):
    """Bars of shards, steps and batches, whose notes are marked as such."""

    def __init__(self) -> None:
        super().__init__(unit="")

    def note(self, text: str) -> None:
        """Print a note above the bar."""
        super().note(f"note: {text}")


def _print_advice(folders: Sequence[Path], *, overwrite: bool) -> None:
    """Print what can be done after an interruption."""
    from vocprep.heads.runs.state import CHECKPOINT_FILE

    if any((folder / CHECKPOINT_FILE).is_file() for folder in folders):
        instead = " instead of --overwrite" if overwrite else ""
        click.echo(f"note: the same command with --resume{instead} continues", err=True)


def _print_epoch(metrics: EpochMetrics, epochs: int, seconds_left: float, name: str = "") -> None:
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
