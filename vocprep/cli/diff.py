"""``vocprep diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vocprep.cli.bars import Bars
from vocprep.cli.common import DIFFERENCES, PLACE, json_option
from vocprep.cli.printing import print_json, print_more, print_table
from vocprep.storage.places import Place

if TYPE_CHECKING:
    from vocprep.checks.diff import VersionDiff

MOST_IDS = 5
"""Ids that are printed on one line."""
MOST_LINES = 20
"""Rows of a table that are printed; ``--json`` lists all."""
_NOT_READ = "their shards were not read: vocprep verify checks them"


@click.command()
@click.argument("a", type=PLACE)
@click.argument("b", type=PLACE)
@json_option
def diff(a: Place, b: Place, as_json: bool) -> None:
    """Print what differs between two dataset versions, from A to B, and by which cause.

    Recipe fields; images added, removed, quarantined; records whose image, label map, targets or
    embeddings differ, with the classes that pixels changed from and to, and how far embeddings
    are apart. Exit code 1 when they differ. Other containers and shards are no difference: they
    hold the same records. Records are compared by the digests in the indexes: sizes of shards
    are checked, and shards read where targets or embeddings differ; vocprep verify checks them all.

    A and B are folders, or URLs of an object store, where no sizes are looked at.

    \b
    Example:
      vocprep diff shards/v1 shards/v2
      vocprep diff s3://bucket/v1 shards/v2
    """
    from vocprep.checks.diff import diff as diff_versions

    found = diff_versions(a, b, Bars("it"))
    if as_json:
        print_json(found.to_json())
    else:
        _print_diff(found)
    if not found.same:
        click.get_current_context().exit(DIFFERENCES)


def _print_diff(found: VersionDiff) -> None:
    for letter, version in zip("AB", found.versions, strict=True):
        click.echo(f"{letter}  {version}")
    for line in found.recipe:
        click.echo(f"recipe      {line}")
    if not any(line.startswith("precision: ") for line in found.recipe):  # which decides them
        for line in found.numerics_class:
            click.echo(f"numerics    {line}")
    for title, ids in (
        ("added", found.added),
        ("removed", found.removed),
        ("other split", found.moved),
        ("quarantined", found.newly_quarantined),
        ("recovered", found.no_longer_quarantined),
    ):
        if ids:
            more = f" and {len(ids) - MOST_IDS:,} more" if len(ids) > MOST_IDS else ""
            click.echo(f"{title:11} {len(ids):,}: {', '.join(ids[:MOST_IDS])}{more}")
    if found.samples:
        _print_samples(found)
    if found.class_changes:
        _print_class_changes(found)
    if found.embeddings is not None:
        click.echo(f"embeddings of {found.embeddings.patches:,} patches: {found.embeddings}")
    if found.same:
        click.echo(f"the same data by the same recipe, by their indexes; {_NOT_READ}")
    elif found.same_content:
        click.echo(f"the same records by their indexes, described by another recipe; {_NOT_READ}")


def _print_samples(found: VersionDiff) -> None:
    """Print the records that differ, those with the most changed pixels first."""
    from vocprep.checks.diff import PARTS

    counts = ", ".join(f"{part} {found.count(part):,}" for part in PARTS)
    click.echo(f"records that differ: {len(found.samples):,} ({counts})")
    ordered = sorted(
        found.samples,
        key=lambda s: (-(s.changed_pixels or 0), -(s.largest_deviation or 0.0), s.id),
    )
    rows = [
        (
            sample.id,
            ", ".join(sample.parts),
            "-" if sample.changed_pixels is None else f"{sample.changed_pixels:,}",
            "-" if sample.largest_deviation is None else f"{sample.largest_deviation:.2g}",
            "-" if sample.smallest_cosine is None else f"{sample.smallest_cosine:.6f}",
        )
        for sample in ordered[:MOST_LINES]
    ]
    print_table(("record", "differs in", "label pixels", "deviation", "cosine"), rows)
    print_more(len(found.samples), MOST_LINES)


def _print_class_changes(found: VersionDiff) -> None:
    click.echo("pixels whose class changed, from A to B:")
    rows = [
        (change.before_name, change.after_name, change.pixels)
        for change in found.class_changes[:MOST_LINES]
    ]
    print_table(("A", "B", "pixels"), rows)
    print_more(len(found.class_changes), MOST_LINES)
