"""``vocprep verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vocprep.cli.bars import Bars, stop
from vocprep.cli.common import DIFFERENCES, PATH, PLACE, json_option
from vocprep.cli.printing import print_json, print_more
from vocprep.cli.shared_options import data_place_option, device_option, workers_option
from vocprep.options import VerifyLevel, VerifyOptions
from vocprep.storage.places import Place

if TYPE_CHECKING:
    from vocprep.checks.report import Report
    from vocprep.checks.verify import Verification

MOST_LINES = 50
"""Differences that are printed; ``--json`` lists all."""


class _Bars(Bars):
    """Progress in bytes for files, in items for everything else."""

    def begin(self, name: str, total: int | None, done: int) -> None:
        self._unit = "B" if name == "files" else "it"
        super().begin(name, total, done)


@click.command()
@click.argument("path", type=PLACE)
@click.option(
    "--level",
    type=click.Choice(["files", "content", "recompute"]),
    default=VerifyOptions.level,
    show_default=True,
    help="files: every file's digest; content: also decode everything; recompute: also make the "
    "records of a dataset version again from the data dir.",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="NAME",
    help="Data dir: dataset whose content is checked; may be repeated.  [default: all that are "
    "there]  Shards: own manifest that they were built by.  [default: dataset.toml in --data-dir]",
)
@click.option("--partial", is_flag=True, help="Data dir: missing files are allowed.")
@click.option("--lock", type=PATH, metavar="FILE", help="Shards: also compare with this lock file.")
@data_place_option
@click.option(
    "--weights",
    help="recompute: PATH or random:SEED, as for build-shards.  [default: as they were built]",
)
@click.option(
    "--backbone",
    metavar="FILE.py:FUNCTION",
    help="recompute: the file that makes the backbone, where one of your own does; its code is "
    "run.",
)
@click.option(
    "--samples",
    default=VerifyOptions.samples,
    type=click.UNPROCESSED,
    callback=lambda _context, _option, value: None if value == "all" else value,
    show_default=True,
    metavar="N|all",
    help="recompute: images whose embeddings are made again, or all.",
)
@click.option(
    "--seed",
    type=int,
    default=VerifyOptions.seed,
    show_default=True,
    help="recompute: decides which images.",
)
@device_option
@workers_option
@json_option
def verify(
    path: Place,
    level: VerifyLevel,
    datasets: tuple[str, ...],
    partial: bool,
    lock: Path | None,
    data_dir: Place,
    weights: str | None,
    backbone: str | None,
    samples: int | None,
    seed: int,
    device: str,
    workers: int,
    as_json: bool,
) -> None:
    """Check a data dir or a dataset version, and name every file that is not as expected.

    Exit code 1 when anything differs. PATH is a folder, or the URL of a version in an object store,
    whose objects are all read.

    A data dir is compared with the record of its downloads; "content" decodes every image and
    label map and compares the label areas with those that the authors logged.

    Shards are compared with their index, and with --lock; "content" decodes every record;
    "recompute" makes all targets again and the embeddings of some images: the same bits where
    the numerics class is the same, else within the stated tolerance, with what was measured.

    \b
    Example:
      vocprep verify data --level content --workers 8
      vocprep verify shards/voc --lock voc.lock.json
      vocprep verify shards/voc --level recompute --data-dir data --samples 100
    """
    from vocprep.checks.verify import verify as verify_path

    options = VerifyOptions(
        level=level,
        datasets=datasets,
        partial=partial,
        lock=lock,
        data_dir=data_dir,
        weights=weights,
        backbone=backbone,
        samples=samples,
        seed=seed,
        device=device,
        workers=workers,
    )
    bars = _Bars()
    try:
        result = verify_path(path, options, bars)
    except KeyboardInterrupt:
        stop(bars, "nothing was changed")
    if as_json:
        print_json(result.to_json())
    else:
        _print_result(result)
    if not result.ok:
        click.get_current_context().exit(DIFFERENCES)


def _print_result(result: Verification) -> None:
    found = [item for report in result.reports for item in report.differences]
    for item in found[:MOST_LINES]:
        click.echo(f"{item.state}: {item.path}: {item.detail}")
    print_more(len(found), MOST_LINES)
    for report in result.reports:
        click.echo(_summary(report))
    for note in result.notes:
        click.echo(f"note: {note}")


def _summary(report: Report) -> str:
    """Return the counts of a report on one line."""
    counts = ", ".join(
        f"{report.count(state):,} {state}" for state in ("missing", "changed", "extra")
    )
    if unreadable := report.count("unreadable"):
        counts += f", {unreadable:,} unreadable"
    allowed = f" ({report.allowed_missing:,} missing, allowed)" if report.allowed_missing else ""
    return f"{report.level}: {report.matching:,} match, {counts}{allowed}"
