"""``vocprep download``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from vocprep.cli.bars import Bars, stop
from vocprep.cli.common import PATH, json_option
from vocprep.cli.printing import print_json, print_table
from vocprep.cli.shared_options import data_dir_option
from vocprep.errors import UsageError
from vocprep.validation import printable

if TYPE_CHECKING:
    from vocprep.downloading.outcomes import DownloadOutcome


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@data_dir_option
@click.option(
    "--list", "list_only", is_flag=True, help="List every source and its state in the data dir."
)
@click.option(
    "--mirror",
    "mirrors",
    multiple=True,
    metavar="URL",
    help="Folder to try before the known mirrors: http, https or file. May be repeated.",
)
@click.option(
    "--from",
    "from_dir",
    type=PATH,
    metavar="DIR",
    help="Folder of archives that you have: verified, then linked or copied.",
)
@click.option("--offline", is_flag=True, help="Use no network; list what is missing.")
@click.option("--extract/--no-extract", default=True, help="Unpack archives.  [default: extract]")
@click.option("--partial", is_flag=True, help="Allow archives with a subset of the official files.")
@json_option
def download(
    names: tuple[str, ...],
    data_dir: Path,
    list_only: bool,
    mirrors: tuple[str, ...],
    from_dir: Path | None,
    offline: bool,
    extract: bool,
    partial: bool,
    as_json: bool,
) -> None:
    """Fetch, verify and unpack what datasets need.

    NAME is a dataset (all its sources), a source, the path of your own .toml, or a model whose
    weights timm or torchvision publish, timm:NAME; what is both is the dataset. A file is kept only
    when every published digest agrees. Interrupted at any byte, the same command goes on from
    there; when all is there, it fetches nothing.

    \b
    Example:
      vocprep download pascal-context --data-dir data
      vocprep download voc2012 --from ~/archives --offline
      vocprep download timm:tf_efficientnet_lite0 --data-dir data
      vocprep download --list
    """
    from vocprep.downloading.download import DownloadOptions
    from vocprep.downloading.download import download as download_sources
    from vocprep.downloading.outcomes import raise_failures

    if list_only:
        _print_sources(data_dir, as_json=as_json)
        return
    if not names:
        raise UsageError("nothing to download: name a dataset or a source, or see --list")
    options = DownloadOptions(
        mirrors=mirrors, from_dir=from_dir, offline=offline, extract=extract, partial=partial
    )
    bars = Bars()
    try:
        outcomes = download_sources(names, data_dir, options, bars)
    except KeyboardInterrupt:
        stop(bars, "what was fetched is kept: run the same command again to go on from there")
    _print_outcomes(outcomes, as_json=as_json)
    raise_failures(outcomes)


def _print_outcomes(outcomes: Sequence[DownloadOutcome], *, as_json: bool) -> None:
    if as_json:
        print_json([outcome.to_json() for outcome in outcomes])
        return
    rows = [
        (
            outcome.path,
            _place(outcome.mirror),
            "-" if outcome.size is None else f"{outcome.size:,}",
            "-" if outcome.sha256 is None else f"sha256:{outcome.sha256[:12]}",
            outcome.state,
        )
        for outcome in outcomes
    ]
    print_table(("file", "mirror", "bytes", "digest", "state"), rows)


def _place(mirror: str | None) -> str:
    """Return a mirror's host or folder."""
    if mirror is None:
        return "-"
    try:
        parts = urlsplit(mirror)
    except ValueError:  # the record of an earlier run was edited
        return printable(mirror)
    folder = str(Path(parts.path).parent) if parts.scheme == "file" else mirror
    return printable(parts.netloc or folder)


def _print_sources(data_dir: Path, *, as_json: bool) -> None:
    """Print every shipped source with its size, terms and state on this disk."""
    from vocprep.downloading.plan import list_sources

    listed = list_sources(data_dir)
    if as_json:
        print_json([item.to_json() for item in listed])
        return
    rows = [(item.name, item.size, item.state, item.title) for item in listed]
    print_table(("source", "bytes", "state", "what"), rows)
    for terms in dict.fromkeys(item.terms for item in listed):
        names = ", ".join(item.name for item in listed if item.terms == terms)
        click.echo(f"\n{names}:\n  {terms}")
