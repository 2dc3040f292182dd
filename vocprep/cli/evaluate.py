"""``vocprep evaluate`` and ``vocprep predict``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from vocprep.cli.common import (
    PATH,
    data_dir_option,
    device_option,
    json_option,
    print_json,
    progress,
    say,
)
from vocprep.cli.scores import print_comparison, print_evaluation
from vocprep.geometry import Geometry, GeometryKind
from vocprep.heads.options import EvaluateOptions, TrainOptions

if TYPE_CHECKING:
    from vocprep.features.embed import Embedder
    from vocprep.heads.evaluation import Evaluation
    from vocprep.heads.run import Run


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
    help="How many images of the lowest pixel accuracy to list.",
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
    from vocprep.heads.evaluate import choose_dataset
    from vocprep.heads.evaluate import evaluate as evaluate_run
    from vocprep.heads.run import load_run
    from vocprep.shards.reader import ShardDataset

    runs, shards = _runs_and_shards(paths)
    if out is not None:
        names = [run.resolve().name for run in runs]
        _check_names_differ(runs, names, "their confusion matrices")
    options = EvaluateOptions(device=device, worst=worst, data_dir=data_dir, dataset=dataset)
    opened = [ShardDataset.open(path) for path in shards]
    # All before the first is scored: a wrong path should not end minutes of work.
    loaded = [load_run(run) for run in runs]
    chosen = [choose_dataset(run, opened) for run in loaded]
    with progress(len(runs), "runs") as step:
        results = []
        for trained, dataset_version in zip(loaded, chosen, strict=True):
            results.append(evaluate_run(trained, dataset_version, split, options))
            step()
    _check_one_truth(results)
    if len({result.run for result in results}) < len(results):
        results = [replace(r, run=str(path)) for r, path in zip(results, runs, strict=True)]
    if out is not None:
        for result in results:
            _write_confusion(result, out)
    if as_json:
        values = [result.to_json() for result in results]
        print_json(values[0] if len(values) == 1 else values)
    elif len(results) == 1:
        print_evaluation(results[0], classes=classes)
    else:
        print_comparison(results, classes=classes)


def _runs_and_shards(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Tell runs from shards; a run that is given twice counts once."""
    from vocprep.errors import UsageError
    from vocprep.heads.run import CONFIG_FILE
    from vocprep.shards.index import DATASET_FILE

    given = list(dict.fromkeys(paths))

    def is_run(path: Path) -> bool:
        # What is neither is taken for a run, the last one for shards, and refused as such.
        looks_like_none = path != given[-1] and not (path / DATASET_FILE).is_file()
        return (path / CONFIG_FILE).is_file() or looks_like_none

    runs = [path for path in given if is_run(path)]
    shards = [path for path in given if path not in runs]
    if not (runs and shards):
        raise UsageError(
            "expected at least one run and, after it, the shards to score it on, found "
            f"{' and '.join(map(str, paths))} alone; give RUN... SHARDS..."
        )
    return runs, shards


def _check_one_truth(results: Sequence[Evaluation]) -> None:
    """Refuse to compare runs that were scored on other pictures or labels."""
    from vocprep.errors import UsageError

    first = results[0]
    for result in results[1:]:
        if result.confusion.truth_pixels.tolist() != first.confusion.truth_pixels.tolist():
            raise UsageError(
                f"{result.run} and {first.run}: expected shards with the same pictures, geometry "
                "and labels, found others; evaluate the runs one by one"
            )


def _write_confusion(result: Evaluation, out: Path) -> None:
    """Write RUN.confusion.png, the largest classes, and RUN.confusion.csv, all of them."""
    from vocprep.files import write_atomic
    from vocprep.pages.plot import confusion_png

    write_atomic(out / f"{result.run}.confusion.png", confusion_png(result))
    write_atomic(out / f"{result.run}.confusion.csv", result.confusion.to_csv().encode())


@click.command()
@click.argument("run", type=PATH)
@click.argument("images", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="Folder for the pictures.")
@click.option(
    "--geometry",
    type=click.Choice(get_args(GeometryKind)),
    help="native: the whole picture at its own size; crop, squash: 224×224.  [default: the run's]",
)
@data_dir_option
@click.option("--weights", help="PATH or random:SEED of the run's backbone.")
@device_option
@json_option
def predict(
    run: Path,
    images: tuple[Path, ...],
    out: Path,
    geometry: GeometryKind | None,
    data_dir: Path,
    weights: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Label new pictures: NAME.overlay.png with a legend, NAME.labels.png with 16-bit ids.

    The backbone's weights must be those that the run's shards were built with. Both files show
    what the geometry covers, at its size: the run's own geometry, for crop the centre, 224×224, or
    the one given. --geometry native labels every pixel of a picture of any size, with any run.

    \b
    Example:
      vocprep predict runs/first holiday.jpg --out predictions
      vocprep predict runs/first holiday.jpg --out predictions --geometry native
    """
    from vocprep.errors import DataError
    from vocprep.features.image import decode_picture, read_image_file
    from vocprep.files import write_atomic
    from vocprep.heads.predict import predict_image
    from vocprep.heads.run import load_run
    from vocprep.labels.png import encode_png
    from vocprep.labels.statistics import label_areas
    from vocprep.pages.plot import overlay, png_bytes

    _check_names_differ(images, [path.stem for path in images], "their predictions")
    trained = load_run(run)
    embedder = _embedder_of(trained, weights, data_dir, device)
    chosen = _geometry(geometry)
    made = []
    pictures = {path: decode_picture(read_image_file(path), str(path)) for path in images}
    with progress(len(images), "images") as step:
        for path, image in pictures.items():
            try:
                found = predict_image(trained, image, embedder, chosen)
            except DataError as error:
                raise type(error)(f"{path}: {error}") from error
            sheet = overlay(found.image, found.label_map, trained.config.labels.label_name)
            files = {kind: out / f"{path.stem}.{kind}.png" for kind in ("overlay", "labels")}
            write_atomic(files["overlay"], png_bytes(sheet))
            write_atomic(files["labels"], encode_png(found.label_map))
            made.append(
                {"image": str(path), **{kind: str(file) for kind, file in files.items()}}
                | {"label_pixels": label_areas(found.label_map)}
            )
            step()
            if not as_json:
                say(str(files["overlay"]))
    if as_json:
        print_json(made)


def _geometry(kind: GeometryKind | None) -> Geometry | None:
    """Return the geometry of a prediction; native with its borders, which a picture should keep."""
    if kind is None:
        return None
    return Geometry(geometry=kind, edge="pad" if kind == "native" else "drop")


def _check_names_differ(paths: Sequence[Path], names: Sequence[str], what: str) -> None:
    """Refuse two paths of one name, of which the later would overwrite the earlier's files."""
    from vocprep.errors import UsageError

    seen: dict[str, Path] = {}
    for path, name in zip(paths, names, strict=True):
        if name in seen:
            raise UsageError(
                f"{path}: {what} would have the names of those of {seen[name]}; rename one, or put "
                "them into different --out"
            )
        seen[name] = path


def _embedder_of(trained: Run, weights: str | None, data_dir: Path, device: str) -> Embedder:
    """Return the embedder that a run's shards were built with; RunError for other weights."""
    from vocprep.errors import RunError
    from vocprep.features.backbone import load_weights, tensor_digest
    from vocprep.features.embed import Embedder, EmbeddingSpec, choose_device

    recipe = trained.config.recipe
    state = load_weights(weights, data_dir, recipe.backbone)
    digest = tensor_digest(state)
    if digest != recipe.weights_sha256:
        raise RunError(
            f"{trained.path}: was trained on embeddings of weights {recipe.weights_sha256[:12]}…, "
            f"found {digest[:12]}…; give the same --weights as to build-shards"
        )
    return Embedder(state, EmbeddingSpec.of(recipe), device=choose_device(device))
