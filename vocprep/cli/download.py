"""``vocprep download`` and ``vocprep verify``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import click

from vocprep.cli.common import (
    INTERRUPTED,
    PATH,
    data_dir_option,
    json_option,
    print_json,
    print_table,
)
from vocprep.errors import UsageError

if TYPE_CHECKING:
    from tqdm import tqdm

    from vocprep.sources.outcomes import Outcome
    from vocprep.sources.verify import Report

DIFFERENCES = 1
"""Exit code of a check that ran to its end and found something."""
MOST_LINES = 50
"""Differences that are printed; ``--json`` lists all."""


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@data_dir_option
@click.option("--list", "list_only", is_flag=True, help="Show every source and its state here.")
@click.option(
    "--mirror",
    "mirrors",
    multiple=True,
    metavar="URL",
    help="Folder to ask before the known mirrors: http, https or file. May be repeated.",
)
@click.option(
    "--from",
    "from_dir",
    type=PATH,
    metavar="DIR",
    help="Folder of archives that you have: verified, then linked or copied.",
)
@click.option("--offline", is_flag=True, help="Use no network; say what is missing.")
@click.option("--extract/--no-extract", default=True, help="Unpack archives.  [default: extract]")
@click.option("--partial", is_flag=True, help="Allow archives with a subset of the official files.")
@click.option("--connections", default=4, show_default=True, help="Parallel parts of a large file.")
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
    connections: int,
    as_json: bool,
) -> None:
    """Fetch, verify and unpack what datasets need.

    NAME is a dataset (all its sources), a source, or the path of your own .toml; what is both is
    the dataset. A file is kept only when every published digest agrees. Interrupted at any byte,
    the same command goes on from there; when all is there, it fetches nothing.

    \b
    Example:
      vocprep download pascal-context --data-dir data
      vocprep download voc2012 --from ~/archives --offline
      vocprep download --list
    """
    from vocprep.sources import download as library
    from vocprep.sources.outcomes import failure
    from vocprep.sources.plan import resolve_sources
    from vocprep.sources.transfer import TransferOptions

    if list_only:
        _list_sources(data_dir, as_json=as_json)
        return
    if not names:
        raise UsageError("nothing to download: name a dataset or a source, or ask with --list")
    options = library.DownloadOptions(
        mirrors=mirrors,
        from_dir=from_dir,
        offline=offline,
        extract=extract,
        partial=partial,
        transfer=TransferOptions(connections=connections),
    )
    bars = Bars()
    try:
        outcomes = library.download(data_dir, resolve_sources(names), options, bars, _tensor_digest)
    except KeyboardInterrupt:
        _stop(bars, "what was fetched is kept: run the same command again to go on from there")
    _print_outcomes(outcomes, as_json=as_json)
    if error := failure(outcomes):
        raise error


@click.command()
@click.argument("path", type=PATH)
@click.option(
    "--level",
    type=click.Choice(["files", "content"]),
    default="files",
    show_default=True,
    help="files: digests of everything that was fetched and unpacked; content: also decode it.",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="NAME",
    help="Dataset whose content is looked at; may be repeated.  [default: all that are there]",
)
@click.option("--partial", is_flag=True, help="Miss nothing: a subset of the files is right.")
@click.option("--workers", default=2, show_default=True, help="Processes that decode.")
@json_option
def verify(
    path: Path,
    level: str,
    datasets: tuple[str, ...],
    partial: bool,
    workers: int,
    as_json: bool,
) -> None:
    """Say file by file what in a data dir is right, missing, changed or extra.

    Exit code 1 when anything differs. The level "content" decodes every picture and label map,
    compares their sizes, and compares the label areas with those that the authors logged.

    \b
    Example:
      vocprep verify data
      vocprep verify data --level content --workers 8
    """
    if workers < 1:
        raise UsageError(f"workers {workers}: expected 1 or more")
    bars = Bars()
    try:
        reports = _verify_data_dir(path, level, datasets, workers, bars, partial=partial)
    except KeyboardInterrupt:
        _stop(bars, "nothing was changed")
    _print_reports(reports, as_json=as_json)
    if not all(report.clean for report in reports):
        click.get_current_context().exit(DIFFERENCES)


class Bars:
    """Progress on stderr, one bar a file; silent where there is no terminal, notes excepted."""

    def __init__(self, unit: str = "B") -> None:
        self._unit = unit
        self._bar: tqdm[Any] | None = None

    def begin(self, name: str, total: int | None, done: int) -> None:
        """Open a bar."""
        from tqdm import tqdm

        in_bytes = self._unit == "B"
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=name,
            unit=self._unit,
            unit_scale=in_bytes,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            leave=False,
        )

    def expect(self, total: int) -> None:
        """Let the bar know how long it is."""
        if self._bar is not None:
            self._bar.total = total

    def advance(self, count: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(count)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.clear()
        click.echo(text, err=True)

    def end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def _tensor_digest(path: Path) -> str:
    """Digest weights; torch is loaded only when there are any to look at."""
    from vocprep.features.backbone import file_tensor_digest

    return file_tensor_digest(path)


def _stop(bars: Bars, what_now: str) -> NoReturn:
    """End after Ctrl-C."""
    bars.end()
    click.echo(f"stopped; {what_now}", err=True)
    raise SystemExit(INTERRUPTED)


def _print_outcomes(outcomes: Sequence[Outcome], *, as_json: bool) -> None:
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
    """Name a mirror as briefly as people do: a host or a folder."""
    if mirror is None:
        return "-"
    parts = urlsplit(mirror)
    return parts.netloc or str(Path(parts.path).parent if parts.scheme == "file" else mirror)


def _list_sources(data_dir: Path, *, as_json: bool) -> None:
    """Print every shipped source with its size, terms and state on this disk."""
    from vocprep.sources.plan import list_sources

    listed = list_sources(data_dir)
    if as_json:
        print_json([item.to_json() for item in listed])
        return
    rows = [(item.name, item.size, item.state, item.title) for item in listed]
    print_table(("source", "bytes", "state", "what"), rows)
    for terms in dict.fromkeys(item.terms for item in listed):
        names = ", ".join(item.name for item in listed if item.terms == terms)
        click.echo(f"\n{names}:\n  {terms}")


def _verify_data_dir(
    path: Path, level: str, names: Sequence[str], workers: int, bars: Bars, *, partial: bool
) -> list[Report]:
    """Compare the files, then look into them; content needs no record of a download."""
    from vocprep.shards.verify_data import datasets_in, verify_content
    from vocprep.sources.manifest import load_dataset
    from vocprep.sources.verify import has_records, verify_files

    if not path.is_dir():
        raise UsageError(f"{path}: no such folder; expected a data dir")
    if (path / "dataset.json").exists():
        raise UsageError(f"{path}: is a dataset of shards; expected a data dir")
    reports = []
    if level == "files" or has_records(path):
        reports.append(verify_files(path, workers, bars, partial=partial))
    if level == "content":
        datasets = [load_dataset(name) for name in names] or datasets_in(path)
        samples = Bars("samples")
        reports.append(verify_content(path, datasets, workers, samples, partial=partial))
    return reports


def _print_reports(reports: Sequence[Report], *, as_json: bool) -> None:
    if as_json:
        clean = all(report.clean for report in reports)
        print_json({"clean": clean, "reports": [report.to_json() for report in reports]})
        return
    found = [item for report in reports for item in report.differences]
    for item in found[:MOST_LINES]:
        click.echo(f"{item.state}: {item.path}: {item.detail}")
    if len(found) > MOST_LINES:
        click.echo(f"… and {len(found) - MOST_LINES:,} more: --json lists them all")
    for report in reports:
        counts = ", ".join(
            f"{report.count(state):,} {state}" for state in ("missing", "changed", "extra")
        )
        pardoned = f" ({report.pardoned:,} absent, allowed)" if report.pardoned else ""
        click.echo(f"{report.level}: {report.right:,} right, {counts}{pardoned}")
