"""``vocprep push`` and ``vocprep pull``."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from vocprep.cli.bars import Bars, stop
from vocprep.cli.common import PATH, PLACE, json_option
from vocprep.cli.printing import counted, megabytes, print_json
from vocprep.options import IfExists, TransferOptions
from vocprep.storage.places import Place

_workers_option = click.option(
    "--workers",
    type=int,
    default=TransferOptions.workers,
    show_default=True,
    help="Files in flight.",
)
_if_exists_option = click.option(
    "--if-exists",
    type=click.Choice(get_args(IfExists)),
    default=TransferOptions.if_exists,
    show_default=True,
    help="What to do when something is there: resume goes on with the same version and refuses "
    "another one, overwrite replaces it, fail refuses.",
)


@click.command()
@click.argument("version", type=PLACE)
@click.argument("url", type=PLACE)
@_workers_option
@_if_exists_option
@json_option
def push(version: Place, url: Place, workers: int, if_exists: IfExists, as_json: bool) -> None:
    """Publish a finished dataset version at the URL of an object store.

    Each file becomes an object of its name below URL, with its sha256 as metadata; dataset.json
    comes last. Interrupted at any moment, the same command goes on with what is there. A version
    is never changed in place: another one at URL is a refusal.

    \b
    Example:
      vocprep push shards/voc s3://bucket/voc
    """
    from vocprep.transfer.push import push as push_version

    options = TransferOptions(workers=workers, if_exists=if_exists)
    bars = Bars()
    try:
        result = push_version(version, url, options, bars)
    except KeyboardInterrupt:
        stop(bars, "what was sent is kept: run the same command again to go on from there")
    if as_json:
        print_json(result.to_json())
        return
    state = "published" if result.published else "was there already"
    click.echo(
        f"{result.url}: {result.index.short_id}: {state}: {counted(result.objects, 'object')}, "
        f"{result.sent:,} sent now, {megabytes(result.sent_bytes)}, in {result.seconds:.1f} s"
    )


@click.command()
@click.argument("url", type=PLACE)
@click.argument("out", type=PATH, metavar="DIR")
@_workers_option
@_if_exists_option
@json_option
def pull(url: Place, out: Path, workers: int, if_exists: IfExists, as_json: bool) -> None:
    """Fetch the dataset version at the URL of an object store into a folder.

    Every file is compared with its digest while it comes in, and gets its name when all of them
    are there. Interrupted at any moment, the same command goes on with what was fetched.

    \b
    Example:
      vocprep pull s3://bucket/voc shards/voc
    """
    from vocprep.transfer.pull import pull as pull_version

    options = TransferOptions(workers=workers, if_exists=if_exists)
    bars = Bars()
    try:
        result = pull_version(url, out, options, bars)
    except KeyboardInterrupt:
        stop(bars, "what was fetched is kept: run the same command again to go on from there")
    if as_json:
        print_json(result.to_json())
        return
    fetched = f"{result.fetched:,} fetched now, {megabytes(result.fetched_bytes)}"
    state = "up to date" if result.up_to_date else fetched
    click.echo(
        f"{result.path}: {result.index.short_id}: {counted(result.files, 'file')}, {state}, in "
        f"{result.seconds:.1f} s"
    )
