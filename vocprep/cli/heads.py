"""``vocprep evaluate`` and ``vocprep predict``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vocprep.cli.common import (
    PATH,
    data_dir_option,
    device_option,
    json_option,
    print_json,
    print_table,
    progress,
    say,
)
from vocprep.heads.options import TrainOptions

if TYPE_CHECKING:
    from vocprep.features.embed import Embedder
    from vocprep.heads.evaluate import Evaluation
    from vocprep.heads.run import Run


@click.command()
@click.argument("run", type=PATH)
@click.argument("shards", type=PATH)
@click.option("--split", default=TrainOptions.val_split, show_default=True)
@click.option("--classes", is_flag=True, help="Also print a line a class.")
@device_option
@json_option
def evaluate(
    run: Path, shards: Path, split: str, classes: bool, device: str, as_json: bool
) -> None:
    """Score a run on a split, beside the best that four labels a patch can say and beside chance.

    Scores are of the pixels that the geometry covers and that are not void, from one confusion
    matrix over the whole split.

    \b
    Example:
      vocprep evaluate runs/first shards/voc
    """
    from vocprep.heads.evaluate import evaluate as evaluate_run
    from vocprep.heads.options import EvaluateOptions
    from vocprep.heads.run import load_run
    from vocprep.shards.reader import ShardDataset

    result = evaluate_run(
        load_run(run), ShardDataset.open(shards), split, EvaluateOptions(device=device)
    )
    if as_json:
        print_json(result.to_json())
        return
    _print_evaluation(result, classes)


def _print_evaluation(result: Evaluation, classes: bool) -> None:
    if classes:
        print_table(
            ("id", "class", "pixels", "IoU", "IoU GT top-4"),
            [(c.label, c.name, c.pixels, 100 * c.iou, 100 * c.oracle_iou) for c in result.classes],
        )
        click.echo()
    click.echo(
        f"{result.run} after epoch {result.epoch} on split {result.split}: {result.images:,} "
        f"images, {result.pixels:,} pixels, {result.classes_present} of {result.classes_all} "
        "classes present"
    )
    print_table(
        ("%", "mIoU present", f"mIoU all {result.classes_all}", "pixel accuracy", "recall@4"),
        [
            (
                _row_name(row.name, result),
                100 * row.miou_present,
                100 * row.miou_all,
                100 * row.pixel_accuracy,
                100 * row.recall_at_4,
            )
            for row in result.rows
        ],
    )
    for note in result.notes:
        click.echo(f"note: {note}")


def _row_name(name: str, result: Evaluation) -> str:
    if name == "majority label":
        return f"chance: {result.majority_label!r} everywhere (majority of {result.majority_split})"
    return name


@click.command()
@click.argument("run", type=PATH)
@click.argument("images", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="Folder for the pictures.")
@data_dir_option
@click.option("--weights", help="PATH or random:SEED of the run's backbone.")
@device_option
@json_option
def predict(
    run: Path,
    images: tuple[Path, ...],
    out: Path,
    data_dir: Path,
    weights: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Label new pictures: NAME.overlay.png with a legend, NAME.labels.png with 16-bit ids.

    The backbone's weights must be those that the run's shards were built with. Both files show
    what the run's geometry covers, at its size: for crop the centre, 224×224.

    \b
    Example:
      vocprep predict runs/first holiday.jpg --out predictions
    """
    from vocprep.errors import DataError
    from vocprep.features.image import decode_picture, read_image_file
    from vocprep.files import write_atomic
    from vocprep.heads.predict import predict_image
    from vocprep.heads.run import load_run
    from vocprep.labels.png import encode_png
    from vocprep.labels.statistics import label_areas
    from vocprep.pages.plot import overlay, png_bytes

    _check_names_differ(images)
    trained = load_run(run)
    embedder = _embedder_of(trained, weights, data_dir, device)
    made = []
    pictures = {path: decode_picture(read_image_file(path), str(path)) for path in images}
    with progress(len(images), "images") as step:
        for path, image in pictures.items():
            try:
                found = predict_image(trained, image, embedder)
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


def _check_names_differ(images: Sequence[Path]) -> None:
    """Refuse two pictures of one name, of which the later would overwrite the earlier's files."""
    from vocprep.errors import UsageError

    seen: dict[str, Path] = {}
    for path in images:
        if path.stem in seen:
            raise UsageError(
                f"{path}: its predictions would have the names of those of {seen[path.stem]}; "
                "rename one picture or predict them into different --out"
            )
        seen[path.stem] = path


def _embedder_of(trained: Run, weights: str | None, data_dir: Path, device: str) -> Embedder:
    """Return the embedder that a run's shards were built with; RunError for other weights."""
    from vocprep.errors import RunError
    from vocprep.features.backbone import load_weights, tensor_digest
    from vocprep.features.embed import Embedder, choose_device

    recipe = trained.config.recipe
    state = load_weights(weights, data_dir)
    digest = tensor_digest(state)
    if digest != recipe.weights_sha256:
        raise RunError(
            f"{trained.path}: was trained on embeddings of weights {recipe.weights_sha256[:12]}…, "
            f"found {digest[:12]}…; give the same --weights as to build-shards"
        )
    return Embedder(
        state, recipe.normalisation, device=choose_device(device), precision=recipe.precision
    )
