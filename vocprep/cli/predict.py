"""``vocprep predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from vocprep.cli.common import (
    PATH,
    check_folder,
    check_names_differ,
    counted,
    data_dir_option,
    device_option,
    json_option,
    print_json,
    progress,
    say,
)
from vocprep.geometry import Geometry, GeometryKind

if TYPE_CHECKING:
    from vocprep.features.embed import Embedder
    from vocprep.heads.predict import Prediction
    from vocprep.heads.runs.run import Run
    from vocprep.labels.label_space import LabelSpace


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
    from vocprep.heads.runs.run import load_run
    from vocprep.labels.statistics import label_areas

    check_folder(out)
    images = tuple(dict.fromkeys(images))
    check_names_differ(images, [path.stem for path in images], "predictions")
    trained = load_run(run)
    embedder = _embedder_of(trained, weights, data_dir, device)
    chosen = _geometry(geometry)
    if trained.unfinished is not None:
        click.echo(f"note: {run}: {trained.unfinished}", err=True)
    made, errors = [], []
    with progress(len(images), "images") as step:
        for path in images:
            step()
            try:
                found = _predict(trained, path, embedder, chosen)
            except DataError as error:
                errors.append(error)
                if len(images) > 1:
                    say(f"error: {error}", err=True)
                continue
            files = _write(found, trained.config.labels, out / path.stem)
            made.append({"image": str(path), **files, "label_pixels": label_areas(found.label_map)})
            if not as_json:
                say(files["overlay"])
    if len(images) == 1 and errors:
        raise errors[0]
    if as_json:
        print_json(made)
    if errors:
        others = "the others are done" if made else "nothing was written"
        raise DataError(
            f"{len(errors)} of {counted(len(images), 'picture')} could not be labelled, for the "
            f"reasons above; {others}"
        )


def _predict(trained: Run, path: Path, embedder: Embedder, geometry: Geometry | None) -> Prediction:
    """Return the prediction for a picture's file; a DataError names it."""
    from vocprep.errors import DataError
    from vocprep.features.image import decode_picture, read_image_file
    from vocprep.heads.predict import predict_image

    image = decode_picture(read_image_file(path), str(path))
    try:
        return predict_image(trained, image, embedder, geometry)
    except DataError as error:
        raise type(error)(f"{path}: {error}") from error


def _write(found: Prediction, labels: LabelSpace, stem: Path) -> dict[str, str]:
    """Write STEM.overlay.png and STEM.labels.png and return their paths."""
    from vocprep.drawing.overlay import overlay, png_bytes
    from vocprep.files import write_atomic
    from vocprep.labels.png import encode_png

    sheet = overlay(found.image, found.label_map, labels.label_name, unpainted=labels.unpainted)
    contents = {"overlay": png_bytes(sheet), "labels": encode_png(found.label_map)}
    files = {kind: stem.with_name(f"{stem.name}.{kind}.png") for kind in contents}
    for kind, data in contents.items():
        write_atomic(files[kind], data)
    return {kind: str(path) for kind, path in files.items()}


def _geometry(kind: GeometryKind | None) -> Geometry | None:
    """Return the geometry of a prediction; native with its borders, which a picture should keep."""
    if kind is None:
        return None
    return Geometry(geometry=kind, edge="pad" if kind == "native" else "drop")


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
