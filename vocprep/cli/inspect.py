"""``vocprep inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vocprep.cli.common import PATH, PLACE, json_option
from vocprep.cli.printing import megabytes, print_json, print_table
from vocprep.storage.places import Place

if TYPE_CHECKING:
    from vocprep.shards.index import DatasetIndex


@click.command()
@click.argument("shards", type=PLACE)
@click.option(
    "--lock",
    type=PATH,
    metavar="FILE",
    help="Also write a lock file: recipe, identities and digests, for a git repository.",
)
@json_option
def inspect(shards: Place, lock: Path | None, as_json: bool) -> None:
    """Print what a dataset version is and holds: its identities, recipe, splits, shards.

    SHARDS is a folder, or a URL of an object store.

    \b
    Example:
      vocprep inspect shards/voc --lock voc.lock.json
      vocprep inspect s3://bucket/voc
    """
    from vocprep.checks.inspect import inspect as inspect_version

    summary = inspect_version(shards)
    if lock is not None:
        from vocprep.checks.lock import lock as lock_version

        lock_version(shards, lock)
    if as_json:
        print_json(summary.to_json())
        return
    index = summary.index
    print_summary(shards, index)
    print_table(
        ("shard", "records", "patches", "bytes", "sha256"),
        [(s.name, s.records, s.patches, s.bytes, s.sha256[:12] + "…") for s in index.shards],
    )
    if lock is not None:
        click.echo(f"lock file   {lock}")
    seconds = index.statistics.get("seconds", {})
    if seconds:
        shares = ", ".join(f"{stage} {part:.1f}" for stage, part in seconds.items())
        click.echo(f"seconds     {shares}: of all threads of its build")
    click.echo("numerics    " + ", ".join(f"{k} {v}" for k, v in index.numerics_class.items()))
    click.echo("versions    " + ", ".join(f"{k} {v}" for k, v in index.versions.items()))


def print_summary(out: Place, index: DatasetIndex) -> None:
    """Print what a dataset version is: identities first, then what it holds."""
    from vocprep.checks.inspect import VersionSummary

    recipe, summary = index.recipe, VersionSummary.of(index)
    click.echo(index.short_id)
    click.echo(f"recipe_id   {index.recipe_id}")
    click.echo(f"source_id   {index.source_id}")
    click.echo(f"content_id  {index.content_id}")
    click.echo(f"targets_id  {index.targets_id}")
    click.echo(f"dataset     {recipe.dataset}, schema {recipe.schema.name}")
    views = ", ".join(map(str, recipe.chosen_views))
    click.echo(f"views       {views}; embeddings {recipe.embedding_dtype}, {recipe.precision}")
    click.echo(f"weights     {index.weights}")
    print_table(
        ("split", "records", "patches", "void %", "outside top 4 %"),
        [
            (split.split, split.records, split.patches, split.void_percent, split.other_percent)
            for split in summary.splits
        ],
    )
    empty = [split.split for split in summary.splits if split.records == 0]
    if empty:
        click.echo(f"note: no record in split {', '.join(empty)}")
    if index.quarantined:
        click.echo(f"quarantined {index.quarantined:,}, left out: see {out / 'quarantine.jsonl'}")
    shards = f"{len(index.shards)} {index.container} shards"
    click.echo(f"{shards}, {megabytes(summary.bytes)}, in {out}")
