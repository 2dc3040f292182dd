"""``vocprep inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vocprep.cli.common import PATH, json_option, print_json, print_table

if TYPE_CHECKING:
    from vocprep.shards.index import DatasetIndex


@click.command()
@click.argument("shards", type=PATH)
@click.option(
    "--lock",
    type=PATH,
    metavar="FILE",
    help="Also write a lock file: recipe, identities and digests, for a git repository.",
)
@json_option
def inspect(shards: Path, lock: Path | None, as_json: bool) -> None:
    """Say what a dataset version is and holds: its identities, recipe, splits, shards.

    \b
    Example:
      vocprep inspect shards/voc --lock voc.lock.json
    """
    from vocprep.shards.index import check_files, read_index

    index = read_index(shards)
    check_files(shards, index)
    if lock is not None:
        from vocprep.checks.lock import make_lock, write_lock

        write_lock(lock, make_lock(shards))
    if as_json:
        print_json({**index.model_dump(mode="json"), "short_id": index.short_id})
        return
    print_summary(shards, index)
    print_table(
        ("shard", "records", "patches", "bytes", "sha256"),
        [(s.name, s.records, s.patches, s.bytes, s.sha256[:12] + "…") for s in index.shards],
    )
    if lock is not None:
        click.echo(f"lock        {lock}")
    click.echo("numerics    " + ", ".join(f"{k} {v}" for k, v in index.numerics_class.items()))
    click.echo("versions    " + ", ".join(f"{k} {v}" for k, v in index.versions.items()))


def print_summary(out: Path, index: DatasetIndex) -> None:
    """Print what a dataset version is: identities first, then what it holds."""
    recipe = index.recipe
    click.echo(index.short_id)
    click.echo(f"recipe_id   {index.recipe_id}")
    click.echo(f"source_id   {index.source_id}")
    click.echo(f"content_id  {index.content_id}")
    click.echo(f"targets_id  {index.targets_id}")
    click.echo(f"dataset     {recipe.dataset}, schema {recipe.schema.name}")
    views = ", ".join(recipe.views)
    click.echo(f"views       {views}; embeddings {recipe.embedding_dtype}, {recipe.precision}")
    click.echo(f"weights     {index.weights}")
    counts = index.statistics["splits"]
    print_table(
        ("split", "records", "patches", "void %", "outside top 4 %"),
        [
            (
                split,
                counts[split]["records"],
                counts[split]["patches"],
                100 * counts[split]["void_pixels"] / counts[split]["pixels"],
                100 * counts[split]["other_pixels"] / counts[split]["pixels"],
            )
            if split in counts
            else (split, 0, 0, 0.0, 0.0)
            for split in recipe.splits
        ],
    )
    empty = [split for split in recipe.splits if split not in counts]
    if empty:
        click.echo(f"note: no record in split {', '.join(empty)}")
    if index.quarantined:
        click.echo(f"bad samples {index.quarantined:,}, left out: see {out / 'quarantine.jsonl'}")
    size = sum(shard.bytes for shard in index.shards)
    click.echo(f"{len(index.shards)} {index.container} shards, {megabytes(size)}, in {out}")


def megabytes(size: int) -> str:
    """Write bytes as people read them."""
    return f"{size / 1e6:,.1f} MB"
