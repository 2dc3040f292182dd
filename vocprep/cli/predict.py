"""``vocprep predict``."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from vocprep.cli.bars import Bars
from vocprep.cli.common import PATH, json_option
from vocprep.cli.printing import counted, print_json
from vocprep.cli.shared_options import (
    data_dir_option,
    decoding_options,
    device_option,
    own_backbone_option,
    weights_option,
)
from vocprep.errors import DataError
from vocprep.geometry import GeometryKind
from vocprep.heads.model.config import Tta


@click.command()
@click.argument("run", type=PATH)
@click.argument("images", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="Folder for the overlays and label maps.")
@click.option(
    "--geometry",
    type=click.Choice(get_args(GeometryKind)),
    help="native: the whole image at its own size; crop, squash: 224×224.  [default: the run's]",
)
@click.option("--confidence", is_flag=True, help="Also write and draw NAME.confidence.png.")
@data_dir_option
@weights_option
@own_backbone_option
@decoding_options
@device_option
@json_option
def predict(
    run: Path,
    images: tuple[Path, ...],
    out: Path,
    geometry: GeometryKind | None,
    confidence: bool,
    data_dir: Path,
    weights: str | None,
    backbone: str | None,
    prior_power: float,
    tta: Tta,
    device: str,
    as_json: bool,
) -> None:
    """Label new images: NAME.overlay.png with a legend, NAME.labels.png with 16-bit class ids.

    NAME.confidence.png holds the probability of each pixel's class, 0 to 255 for 0 to 1.

    The backbone's weights must be those that the run's shards were built with. All files cover
    what the geometry covers, at its size: the run's own geometry, for crop the centre 224×224, or
    the one given. --geometry native labels every pixel of an image of any size, with any run.

    \b
    Example:
      vocprep predict runs/first holiday.jpg --out predictions
      vocprep predict runs/first holiday.jpg --out predictions --geometry native --confidence
    """
    from vocprep.heads.predict import PredictOptions
    from vocprep.heads.predict import predict as predict_images

    options = PredictOptions(
        weights=weights,
        backbone=backbone,
        data_dir=data_dir,
        geometry=geometry,
        prior_power=prior_power,
        tta=tta,
        device=device,
        confidence=confidence,
    )
    result = predict_images(run, images, out, options, Bars("images"))
    for note in result.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        print_json(result.to_json())
    else:
        for made in result.images:
            if made.files is not None:
                click.echo(made.files.overlay)
    if result.ok:
        return
    total = len(result.images) + len(result.errors)
    if total == 1:
        raise DataError(result.errors[0].error)
    for failed in result.errors:
        click.echo(f"error: {failed.error}", err=True)
    others = "the others are done" if result.images else "nothing was written"
    raise DataError(
        f"{len(result.errors)} of {counted(total, 'image')} could not be labelled, for the "
        f"reasons above; {others}"
    )
