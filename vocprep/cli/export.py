"""``vocprep export``."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

import click

from vocprep.cli.bars import Bars
from vocprep.cli.common import PATH, PLACE, comma_list, json_option
from vocprep.cli.printing import counted, megabytes, print_json
from vocprep.cli.shared_options import (
    data_dir_option,
    dataset_option,
    own_backbone_option,
    prior_power_option,
    weights_option,
)
from vocprep.exporting.options import (
    FORMATS,
    ExportFormat,
    ExportOptions,
    Part,
    Photos,
    Rows,
    RunFormat,
    Views,
)
from vocprep.storage.places import Place


@click.command()
@click.argument("path", type=PLACE)
@click.option("--to", type=click.Choice(FORMATS), required=True, help="Format to write.")
@click.option("--out", type=PATH, required=True, metavar="DIR", help="Folder to write.")
@click.option("--splits", callback=comma_list, metavar="NAME,...", help="Splits.  [default: all]")
@click.option(
    "--views",
    type=click.Choice(get_args(Views)),
    show_default="all; of pictures plain",
    help="plain: without the mirrored views and crops that the version may hold.",
)
@click.option(
    "--rows",
    type=click.Choice(get_args(Rows)),
    default=ExportOptions.rows,
    show_default=True,
    help="What a row of a table is; pictures hold lists over their patches.",
)
@click.option(
    "--photographs",
    type=click.Choice(get_args(Photos)),
    default=ExportOptions.photographs,
    show_default=True,
    help="Photographs beside label maps, from the data dir, as the build placed them.",
)
@dataset_option
@click.option(
    "--parts",
    callback=comma_list,
    metavar="PART,...",
    help="Of a run: heads, which take embeddings; pixels, which take pictures.  [default: both]",
)
@data_dir_option
@weights_option
@own_backbone_option
@prior_power_option
@json_option
def export(
    path: Place,
    to: str,
    out: Path,
    splits: tuple[str, ...] | None,
    views: str | None,
    rows: str,
    photographs: str,
    dataset: str | None,
    parts: tuple[str, ...] | None,
    data_dir: Path,
    weights: str | None,
    backbone: str | None,
    prior_power: float,
    as_json: bool,
) -> None:
    """Write a dataset version or a run in the files of another library.

    PATH is a dataset version, a folder or the URL of one in an object store, or the folder of a
    run. The same version gives the same bytes; export.json lists the files with their digests.

    \b
    npy            arrays for numpy.load(..., mmap_mode="r"), a folder per split
    parquet        tables for pandas, polars, DuckDB, a folder per split
    hugging-face   a dataset for datasets.load_dataset, with its card
    fiftyone       pictures for fiftyone.Dataset.from_dir, with classes and embeddings
    coco-panoptic  pictures and panoptic label maps, in the layout of COCO
    onnx           of a run: heads.onnx and pixels.onnx, compared with PyTorch
    torch-export   of a run: heads.pt2 and pixels.pt2 for torch.export.load

    \b
    Example:
      vocprep export shards/voc --to npy --out arrays
      vocprep export shards/voc --to parquet --rows patches --out tables
      vocprep export shards/voc --to fiftyone --data-dir data --out pictures
      vocprep export runs/first --to onnx --out model
    """
    from vocprep.exporting.export import export as write_export

    options = ExportOptions(
        splits=splits,
        views=cast(Views | None, views),
        rows=cast(Rows, rows),
        photographs=cast(Photos, photographs),
        dataset=dataset,
        parts=cast(tuple[Part, ...] | None, parts),
        data_dir=data_dir,
        weights=weights,
        backbone=backbone,
        prior_power=prior_power,
    )
    unit = "part" if to in get_args(RunFormat) else "record"
    result = write_export(path, cast(ExportFormat, to), out, options, Bars(unit))
    for note in result.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        print_json(result.to_json())
        return
    click.echo(f"{result.path}: {counted(len(result.files), 'file')}, {megabytes(result.bytes)}")
