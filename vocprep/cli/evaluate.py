"""``vocprep evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vocprep.cli.common import (
    PATH,
    check_folder,
    device_option,
    json_option,
    print_json,
    progress,
)
from vocprep.cli.scores import print_scores
from vocprep.heads.runs.options import EvaluateOptions, TrainOptions

if TYPE_CHECKING:
    from vocprep.heads.scoring.evaluation import Evaluation


@click.command()
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="RUN... SHARDS...")
@click.option("--split", default=TrainOptions.val_split, show_default=True)
@click.option(
    "--data-dir",
    type=PATH,
    help="Data dir of the build: score whole images too, what the geometry left out as wrong.",
)
@click.option("--dataset", help="Name or TOML of the dataset in it.  [default: the shards']")
@click.option("--classes", is_flag=True, help="Also print a line a class.")
@click.option(
    "--worst",
    default=EvaluateOptions.worst,
    show_default=True,
    help="How many images of the lowest pixel accuracy to list, for one run.",
)
@click.option("--out", type=PATH, help="Folder for each run's confusion matrix, PNG and CSV.")
@device_option
@json_option
def evaluate(
    paths: tuple[Path, ...],
    split: str,
    data_dir: Path | None,
    dataset: str | None,
    classes: bool,
    worst: int,
    out: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Score runs on a split, beside oracles and chance; several runs in one table.

    Runs that learnt from other embeddings are compared by giving the shards of each: a run is
    scored on those that it learnt from, else on the first whose embeddings and labels fit it.

    Scores come from one confusion matrix over the split's pixels that are not void: those that the
    geometry covers and, with --data-dir, those of whole images. The rows below the model are what
    it would score if its labels, its masks or both were right.

    \b
    Example:
      vocprep evaluate runs/first shards/voc
      vocprep evaluate runs/first runs/second shards/voc --data-dir data
      vocprep evaluate runs/first runs/wide shards/voc shards/wide
    """
    from vocprep.heads.runs.run import load_run
    from vocprep.heads.scoring.evaluate import choose_dataset, require_one_truth
    from vocprep.heads.scoring.evaluate import evaluate as evaluate_run
    from vocprep.shards.reader import ShardDataset

    runs, shards = _runs_and_shards(paths)
    if out is not None:
        check_folder(out)
        names = [run.resolve().name for run in runs]
        from vocprep.files import check_names_differ

        check_names_differ(runs, names, "confusion matrices")
    options = EvaluateOptions(device=device, worst=worst, data_dir=data_dir, dataset=dataset)
    opened = [ShardDataset.open(path) for path in shards]
    # All before the first is scored: a wrong path should not end minutes of work.
    loaded = [load_run(run) for run in runs]
    chosen = [choose_dataset(run, opened) for run in loaded]
    require_one_truth(chosen, split)
    for dataset_version in opened:
        if dataset_version not in chosen:
            click.echo(f"note: no run is scored on {dataset_version.path}", err=True)
    with progress(len(runs), "runs") as step:
        results = []
        for trained, dataset_version in zip(loaded, chosen, strict=True):
            results.append(evaluate_run(trained, dataset_version, split, options))
            step()
    if len({result.run for result in results}) < len(results):
        results = [replace(r, run=str(path)) for r, path in zip(results, runs, strict=True)]
    if out is not None:
        for result in results:
            _write_confusion(result, out)
    if as_json:
        values = [result.to_json() for result in results]
        print_json(values[0] if len(values) == 1 else values)
    else:
        print_scores(results, classes=classes)


def _runs_and_shards(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Tell runs from shards; a folder that is given twice counts once."""
    from vocprep.errors import DataError, UsageError
    from vocprep.heads.runs.run import CONFIG_FILE
    from vocprep.shards.index import DATASET_FILE

    given = list({path.resolve(): path for path in paths}.values())
    runs = [path for path in given if (path / CONFIG_FILE).is_file()]
    shards = [path for path in given if (path / DATASET_FILE).is_file()]
    for path in given:
        if path not in runs and path not in shards:
            raise DataError(
                f"{path}: expected a run or finished shards, found neither {CONFIG_FILE} nor "
                f"{DATASET_FILE} in it; give what `vocprep train` or `vocprep build-shards` wrote"
            )
    if not (runs and shards):
        raise UsageError(
            "expected at least one run and the shards to score it on, found "
            f"{' and '.join(map(str, paths))} alone; give RUN... SHARDS..."
        )
    return runs, shards


def _write_confusion(result: Evaluation, out: Path) -> None:
    """Write RUN.confusion.png, the largest classes, and RUN.confusion.csv, all of them."""
    from vocprep.files import write_atomic
    from vocprep.heads.scoring.evaluation import draw_confusion

    write_atomic(out / f"{result.run}.confusion.png", draw_confusion(result))
    write_atomic(out / f"{result.run}.confusion.csv", result.confusion.to_csv().encode())
