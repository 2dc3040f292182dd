"""``vocprep train``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from vocprep.cli.common import PATH, PLACE, check_folder, json_option
from vocprep.cli.printing import print_json
from vocprep.cli.shared_options import device_option
from vocprep.cli.time_left import TimeLeft, seconds_left
from vocprep.cli.train_lines import (
    TrainBars,
    print_advice,
    print_epoch,
    print_several,
    print_summary,
)
from vocprep.errors import UsageError
from vocprep.files.names import VERSION, found_at
from vocprep.heads.runs.options import DEFAULT_PRESET, EXECUTION, TrainOptions
from vocprep.heads.runs.sweeps import Sweep, number_text, run_name
from vocprep.options import LoaderMode
from vocprep.storage.places import Place, shown_url, url_scheme
from vocprep.storage.store import SCHEMES

if TYPE_CHECKING:
    from vocprep.heads.runs.log import EpochMetrics

PRESETS = "preset's"
"""The default, in the help, of a flag that overrides the preset."""


def _tracking_store(
    _context: click.Context, _option: click.Parameter, uri: str | None
) -> str | None:
    """Return the URI of --mlflow; UsageError for SHARDS behind an --mlflow without URI."""
    if uri and (url_scheme(uri) in SCHEMES or found_at(Path(uri)) == VERSION):
        raise UsageError(
            f"--mlflow {shown_url(uri)}: expected the URI of a tracking store, found that of a "
            "dataset version; give SHARDS first, and --mlflow behind it"
        )
    return uri


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
    "--sweep",
    metavar="OPTION=VALUE,VALUE...",
    help="Train a run with each of these values of weight_decay, lr, warmup, clip or ema, in "
    "OUT/OPTION-VALUE, all on one pass over the shards.",
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
    callback=_tracking_store,
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
    sweep: str | None,
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
      vocprep train shards/voc --out runs/probe --preset linear --sweep weight_decay=0,1,4
    """
    from vocprep.heads.runs.folder import options_for

    given = {name: value for name, value in flags.items() if name in EXECUTION or value is not None}
    check_folder(out)
    several = _several(seeds, sweep, settings, flags)
    if several is None:
        options = options_for(out, preset, settings, given)
        _train_one(shards, out, options, weights, as_json=as_json)
    else:
        folder = _begun_folder(several.folders(out))
        options = options_for(folder, preset, settings, given)
        _train_several(shards, out, options, several, weights, as_json=as_json)


@dataclass(frozen=True)
class _Several:
    """Several runs that differ in one option, as they are asked for."""

    option: str
    values: tuple[float, ...]
    argument: Mapping[str, Any]
    """Of ``train``: its keyword and value."""

    def folders(self, out: Path) -> list[Path]:
        """Return the folder of each run."""
        return [out / run_name(self.option, value) for value in self.values]

    def label(self, value: float) -> str:
        """Return what stands before the lines of a value's run."""
        width = max(len(number_text(each)) for each in self.values)
        return f"{self.option} {number_text(value):>{width}}  "


def _several(
    seeds: str | None, sweep: str | None, settings: Sequence[str], flags: Mapping[str, Any]
) -> _Several | None:
    """Return the runs of --seeds or --sweep; UsageError where what they set is set besides."""
    if seeds is not None and sweep is not None:
        raise UsageError(
            "seeds and sweep: expected one of them; choose a value by --sweep, then train it with "
            "--seeds"
        )
    if seeds is not None:
        _refuse_besides("seed", "seeds", settings, flags)
        chosen = _parse_seeds(seeds)
        return _Several("seed", chosen, {"seeds": chosen})
    if sweep is not None:
        parsed = Sweep.parse(sweep)
        _refuse_besides(parsed.option, "sweep", settings, flags)
        return _Several(parsed.option, parsed.values, {"sweep": parsed})
    return None


def _refuse_besides(
    option: str, several: str, settings: Sequence[str], flags: Mapping[str, Any]
) -> None:
    """Raise UsageError where an option is given that --seeds or --sweep sets in each run."""
    is_set = any(each.partition("=")[0].strip() == option for each in settings)
    if is_set or flags.get(option) is not None:
        flag = f"--{option.replace('_', '-')}" if option in flags else f"--set {option}"
        raise UsageError(
            f"{option} and {several}: expected one of them; leave {flag} out, or --{several}"
        )


def _parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of --seeds; UsageError for a bad list."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,19}", part) for part in parts):
        raise UsageError(
            f"seeds {text!r}: expected whole numbers from 0 with commas between them, such as 0,1,2"
        )
    return tuple(int(part) for part in parts)


def _begun_folder(folders: Sequence[Path]) -> Path:
    """Return the first folder whose run is begun, the first where none is."""
    from vocprep.heads.runs.folder import holds_run

    return next((folder for folder in folders if holds_run(folder)), folders[0])


def _train_one(
    shards: Place, out: Path, options: TrainOptions, weights: str | None, *, as_json: bool
) -> None:
    from vocprep.heads.training.train import train as train_heads

    trained: list[EpochMetrics] = []

    def on_epoch(metrics: EpochMetrics) -> None:
        trained.append(metrics)
        if not as_json:
            print_epoch(metrics, options.epochs, seconds_left(trained, options))

    try:
        summary = train_heads(shards, out, options, on_epoch, TrainBars(), weights)
    except KeyboardInterrupt:
        if trained:
            print_advice([out], overwrite=options.overwrite)
        raise
    if not summary.leads:
        return
    if as_json:
        print_json(summary.to_json())
    else:
        print_summary(summary)


def _train_several(  # the command's words
    shards: Place,
    out: Path,
    options: TrainOptions,
    several: _Several,
    weights: str | None,
    *,
    as_json: bool,
) -> None:
    from vocprep.heads.runs.folder import is_finished
    from vocprep.heads.training.train import train as train_heads

    folders = several.folders(out)
    done = [folder for folder in folders if options.resume and is_finished(folder)]
    on_one_pass = "sweep" in several.argument
    left = TimeLeft(options.epochs, len(folders) - len(done), on_one_pass=on_one_pass)

    def on_epoch(value: float, metrics: EpochMetrics) -> None:
        is_new = not left.is_counted(metrics.epoch)
        seconds = left.after(value, metrics.epoch)
        if not as_json and (is_new or metrics.val_loss is not None):
            print_epoch(metrics, options.epochs, seconds, several.label(value))

    try:
        summary = train_heads(
            shards, out, options, on_epoch, TrainBars(), weights, **several.argument
        )
    except KeyboardInterrupt:
        if left.has_begun:
            print_advice(folders, overwrite=options.overwrite)
        raise
    if not summary.leads:
        return
    if as_json:
        print_json(summary.to_json())
    else:
        print_several(summary)
