"""``vocprep report``."""

from __future__ import annotations

from pathlib import Path

import click

from vocprep.cli.bars import Bars
from vocprep.cli.common import PATH, PLACE, json_option
from vocprep.cli.printing import print_json
from vocprep.cli.shared_options import dataset_option, device_option, scored_split_option
from vocprep.pages.report.options import ReportOptions
from vocprep.storage.places import Place


@click.command()
@click.argument("paths", type=PLACE, nargs=-1, required=True, metavar="PATH...")
@click.option("--out", type=PATH, required=True, metavar="FILE.html", help="File to write.")
@click.option("--data-dir", type=PATH, help="Data dir of the build: show photographs too.")
@dataset_option
@click.option(
    "--audit", type=PATH, metavar="FILE", help="JSON of vocprep audit: show likely label errors."
)
@click.option(
    "--pictures",
    type=int,
    default=ReportOptions.pictures,
    show_default=True,
    help="Pictures to show per split, or per list of best and worst.",
)
@scored_split_option
@device_option
@json_option
def report(
    paths: tuple[Place, ...],
    out: Path,
    data_dir: Path | None,
    dataset: str | None,
    audit: Path | None,
    pictures: int,
    split: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Write a page about a dataset version, or about runs, as one HTML file to send or to print.

    PATH is a dataset version; two of them are shown side by side. Or it is a run, or up to six,
    followed by the versions that they are scored on. Versions are folders, or URLs of an object
    store.

    The file holds everything that it shows: it needs no network, no script and no other file.

    \b
    Example:
      vocprep report shards/voc --data-dir data --out voc.html
      vocprep report runs/first shards/voc --out first.html
      vocprep report runs/first runs/second shards/voc --data-dir data --out both.html
    """
    from vocprep.pages.report.report import report as write_report

    options = ReportOptions(
        data_dir=data_dir,
        dataset=dataset,
        audit=audit,
        pictures=pictures,
        split=split,
        device=device,
    )
    result = write_report(paths, out, options, Bars("it"))
    if as_json:
        print_json(result.to_json())
        return
    click.echo(f"{result.title}: {len(result.sections)} sections")
    click.echo(f"{result.path}, {result.bytes / 1e6:,.1f} MB: open it in a browser")
