"""Options that several commands have, with the defaults of the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from vocprep.cli.common import PATH, PLACE
from vocprep.data_dir.place import DATA_DIR_VARIABLE, default_data_dir, default_data_place
from vocprep.heads.model.config import Tta
from vocprep.heads.runs.options import EvaluateOptions
from vocprep.manifests import SplitFlags
from vocprep.options import BuildOptions, usable_cores

F = TypeVar("F", bound=Callable[..., Any])

data_dir_option = click.option(
    "--data-dir",
    type=PATH,
    default=default_data_dir,
    show_default=f"${DATA_DIR_VARIABLE} or ./data",
    help="Folder that the sources are unpacked in.",
)
data_place_option = click.option(
    "--data-dir",
    type=PLACE,
    default=default_data_place,
    show_default=f"${DATA_DIR_VARIABLE} or ./data",
    help="Folder that the sources are unpacked in, or the URL of its copy in an object store.",
)
dataset_option = click.option(
    "--dataset",
    help="Name or TOML of the dataset in it.  [default: the shards', or dataset.toml in it]",
)
device_option = click.option(
    "--device",
    default=BuildOptions.device,
    show_default=True,
    help="auto, cpu, cuda (all GPUs) or cuda:N.",
)
weights_option = click.option(
    "--weights",
    help="PATH or random:SEED of the run's backbone.  [default: where training found them]",
)
own_backbone_option = click.option(
    "--backbone",
    metavar="FILE.py:FUNCTION",
    help="The file that makes the backbone, where one of your own does; its code is run.",
)
scored_split_option = click.option(
    "--split",
    show_default="val; without one, the split of the run's validation, else of its training",
    help="Split that runs are scored on.",
)
prior_power_option = click.option(
    "--prior-power",
    metavar="POWER",
    type=float,
    default=EvaluateOptions.prior_power,
    help="Divide each class's probability by its share of the training's pixels to this power, 0 "
    "to 1: rare classes are predicted more often.  [default: 0]",
)
_tta_option = click.option(
    "--tta",
    type=click.Choice(get_args(Tta)),
    default=EvaluateOptions.tta,
    help="flip: the mean of each image's plain and mirrored view.",
)


def decoding_options(command: F) -> F:
    """Give a command ``--prior-power`` and ``--tta``."""
    return prior_power_option(_tta_option(command))


split_flags_option = click.option(
    "--split-flags",
    type=click.Choice(get_args(SplitFlags)),
    help="Which lines count of split files that hold flags, as VOC's of one class do: positive "
    "(flag 1), present (1 and 0) or all.  [default: as the manifest says]",
)
workers_option = click.option(
    "--workers",
    type=int,
    default=usable_cores,
    show_default="one per core",
    help="Threads that read and decode.",
)
