"""``vocprep view``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vocprep.cli.bars import Bars
from vocprep.cli.common import PATH, PLACE
from vocprep.cli.shared_options import dataset_option, device_option
from vocprep.pages.viewer.options import ViewOptions
from vocprep.program import end_after_interrupt
from vocprep.storage.places import Place


@click.command()
@click.argument("paths", type=PLACE, nargs=-1, required=True, metavar="SHARDS... [RUN...]")
@click.option("--data-dir", type=PATH, help="Data dir of the build: show its photographs.")
@dataset_option
@click.option(
    "--audit", type=PATH, metavar="FILE", help="JSON of vocprep audit: show label quality."
)
@click.option(
    "--port",
    type=int,
    default=ViewOptions.port,
    show_default="a free one",
    help="Port of 127.0.0.1 to listen at.",
)
@click.option("--no-browser", is_flag=True, help="Print the URL only.")
@device_option
def view(
    paths: tuple[Place, ...],
    data_dir: Path | None,
    dataset: str | None,
    audit: Path | None,
    port: int,
    no_browser: bool,
    device: str,
) -> None:
    """Look at dataset versions and runs in the browser, until Ctrl-C.

    SHARDS are one or two dataset versions, folders or URLs of an object store; two are compared.
    Runs are scored in the background on the version that they fit.

    The page is for this machine only: at 127.0.0.1, under a secret path that is printed. It shows
    photographs where --data-dir is given, else label maps.

    \b
    Example:
      vocprep view shards/voc --data-dir data
      vocprep view shards/voc runs/first runs/second --data-dir data
    """
    from vocprep.pages.viewer.view import view as view_paths

    options = ViewOptions(
        data_dir=data_dir,
        dataset=dataset,
        audit=audit,
        port=port,
        open_browser=not no_browser,
        device=device,
    )
    view_paths(paths, options, Bars("it"), _print_url)
    end_after_interrupt()


def _print_url(url: str) -> None:
    click.echo(url)
    click.echo("Ctrl-C ends the viewer", err=True)
    sys.stdout.flush()
