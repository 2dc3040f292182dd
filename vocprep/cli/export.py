"""``vocprep export``."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

import click

from vocprep.cli.bars import Bars
from vocprep.cli.common import PATH, PLACE, comma_list, json_option
from vocprep.cli.printing import counted, megabytes, print_json
from vocprep.exporting.options import ExportFormat, ExportOptions, Rows, Views
from vocprep.storage.places import Place


@click.command()
@click.argument("path", type=PLACE)
@click.option(
    "--to", type=click.Choice(get_args(ExportFormat)), required=True, help="Format to write."
)
@click.option("--out", type=PATH, required=True, metavar="DIR", help="Folder to write.")
@click.option("--splits", callback=comma_list, metavar="NAME,...", help="Splits.  [default: all]")
@click.option(
    "--views",
    type=click.Choice(get_args(Views)),
    default=ExportOptions.views,
    show_default=True,
    help="plain: without the mirrored views and crops that the version may hold.",
)
@click.option(
    "--rows",
    type=click.Choice(get_args(Rows)),
    default=ExportOptions.rows,
    show_default=True,
    help="What a row of a table is; pictures hold lists over their patches.",
)
@json_option
def export(
    path: Place,
    to: str,
    out: Path,
    splits: tuple[str, ...] | None,
    views: str,
    rows: str,
    as_json: bool,
) -> None:
    """Write a dataset version in the files of another library.

    PATH is a dataset version, a folder or the URL of one in an object store. The same version gives
    the same bytes; export.json lists the files with their digests.

    \b
    npy            arrays for numpy.load(..., mmap_mode="r"), a folder per split
    parquet        tables for pandas, polars, DuckDB, a folder per split
    hugging-face   a dataset for datasets.load_dataset, with its card

    \b
    Example:
      vocprep export shards/voc --to npy --out arrays
      vocprep export shards/voc --to parquet --rows patches --out tables
    """
    from vocprep.exporting.export import export as write_export

    options = ExportOptions(splits=splits, views=cast(Views, views), rows=cast(Rows, rows))
    result = write_export(path, cast(ExportFormat, to), out, options, Bars("record"))
    if as_json:
        print_json(result.to_json())
        return
    click.echo(f"{result.path}: {counted(len(result.files), 'file')}, {megabytes(result.bytes)}")
