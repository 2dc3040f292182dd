"""``vocprep evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from vocprep.cli.bars import Bars
from vocprep.cli.common import PATH, PLACE, json_option
from vocprep.cli.printing import counted, print_json
from vocprep.cli.scores.several_runs import print_scores
from vocprep.cli.shared_options import (
    dataset_option,
    decoding_options,
    device_option,
    scored_split_option,
)
from vocprep.heads.model.config import Tta
from vocprep.heads.runs.options import EvaluateOptions
from vocprep.storage.places import Place


@click.command()
@click.argument("paths", type=PLACE, nargs=-1, required=True, metavar="RUN... SHARDS...")
@scored_split_option
@click.option(
    "--data-dir",
    type=PATH,
    help="Data dir of the build: score whole images too, what the geometry left out as wrong.",
)
@dataset_option
@click.option("--classes", is_flag=True, help="Also print a line per class.")
@click.option(
    "--worst",
    default=EvaluateOptions.worst,
    show_default=True,
    help="How many images of the lowest pixel accuracy to list, for one run.",
)
@click.option(
    "--pictures",
    metavar="N",
    type=int,
    default=EvaluateOptions.pictures,
    help="Draw the N worst, middle and best images of each run into --out, with truth, prediction, "
    "error and confidence, over the photographs of --data-dir.",
)
@click.option(
    "--batch-size",
    type=int,
    default=EvaluateOptions.batch_size,
    show_default=True,
    help="Images per step.",
)
@click.option(
    "--out", type=PATH, help="Folder for each run's confusion matrix, PNG and CSV, and pictures."
)
@decoding_options
@device_option
@json_option
def evaluate(
    paths: tuple[Place, ...],
    split: str | None,
    data_dir: Path | None,
    dataset: str | None,
    classes: bool,
    worst: int,
    pictures: int,
    batch_size: int,
    out: Path | None,
    prior_power: float,
    tta: Tta,
    device: str,
    as_json: bool,
) -> None:
    """Score runs on a split, beside oracles and chance; several runs in one table.

    SHARDS are folders, or URLs of an object store; runs are folders. A folder that train --seeds
    or --sweep wrote stands for all runs in it; of seeds, mean and spread of their scores are
    printed too.

    Runs that were trained on different embeddings are compared by giving the shards of each: a run
    is scored on those that it was trained on, else on the first whose embeddings and labels fit it.

    Scores come from one confusion matrix over the split's pixels that are not void: those that the
    geometry covers and, with --data-dir, those of whole images. The rows below the model are what
    it would score if its classes, its masks or both were right.

    \b
    Example:
      vocprep evaluate runs/first shards/voc
      vocprep evaluate runs/first runs/second shards/voc --data-dir data
      vocprep evaluate runs/first runs/wide shards/voc shards/wide
      vocprep evaluate runs/three shards/voc
    """
    from vocprep.heads.scoring.evaluate import evaluate as evaluate_runs
    from vocprep.heads.scoring.evaluate import runs_and_shards

    runs, shards = runs_and_shards(paths)
    options = EvaluateOptions(
        prior_power=prior_power,
        tta=tta,
        device=device,
        worst=worst,
        pictures=pictures,
        batch_size=batch_size,
        data_dir=data_dir,
        dataset=dataset,
    )
    result = evaluate_runs(runs, shards, split, options, out, Bars(" images"))
    for note in result.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        print_json(result.to_json())
    else:
        print_scores(result, classes=classes)
        if out is not None:
            click.echo(f"confusion matrices, PNG and CSV, in {out}")
        if names := [Path(each.file).name for run in result.runs for each in run.pictures]:
            click.echo(f"{counted(len(names), 'picture')}, {names[0]} to {names[-1]}, in {out}")
