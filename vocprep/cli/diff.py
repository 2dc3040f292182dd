"""``vocprep diff``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vocprep.cli.common import DIFFERENCES, PATH, json_option, print_json, print_table, progress

if TYPE_CHECKING:
    from vocprep.checks.diff import VersionDiff

MOST_IDS = 5
"""Ids that stand on one line."""
MOST_LINES = 20
"""Samples and label flips that are printed; ``--json`` lists all."""


@click.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@json_option
def diff(a: Path, b: Path, as_json: bool) -> None:
    """Say what differs between two dataset versions, from A to B, and by which cause.

    Recipe fields; pictures added, removed, quarantined; records whose picture, label map, targets
    or embeddings differ, with the labels that pixels changed from and to, and how far embeddings
    are apart. Exit code 1 when they differ. Containers and shards may differ without a word:
    they hold the same records.

    \b
    Example:
      vocprep diff shards/v1 shards/v2
    """
    from vocprep.checks.diff import diff_versions
    from vocprep.shards.reader import ShardDataset

    with progress(None, "samples") as step:
        found = diff_versions(a, b, step)
    if as_json:
        print_json(found.to_json())
    else:
        datasets = [ShardDataset.open(path) for path in (a, b)]
        for sign, dataset in zip("AB", datasets, strict=True):
            click.echo(f"{sign}  {dataset.index.short_id}")
        _print_diff(found, datasets[0].schema.label_name)
    if not found.is_same:
        click.get_current_context().exit(DIFFERENCES)


def _print_diff(found: VersionDiff, label_name: Callable[[int], str]) -> None:
    for line in found.recipe:
        click.echo(f"recipe      {line}")
    for line in found.numerics_class:
        click.echo(f"numerics    {line}")
    for title, ids in (
        ("added", found.added),
        ("removed", found.removed),
        ("other split", found.moved),
        ("quarantined", found.newly_quarantined),
        ("mended", found.no_longer_quarantined),
    ):
        if ids:
            more = f" and {len(ids) - MOST_IDS:,} more" if len(ids) > MOST_IDS else ""
            click.echo(f"{title:11} {len(ids):,}: {', '.join(ids[:MOST_IDS])}{more}")
    if found.samples:
        _print_samples(found)
    if found.label_flips:
        _print_flips(found, label_name)
    if found.embeddings is not None:
        click.echo(f"embeddings of {found.embeddings.patches:,} patches: {found.embeddings}")
    if found.is_same:
        click.echo("the same data by the same recipe")
    elif found.same_content:
        click.echo("the same records, described by another recipe")


def _print_samples(found: VersionDiff) -> None:
    """Print the records that differ, the most changed labels first."""
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
    _say_more(len(found.samples))


def _print_flips(found: VersionDiff, label_name: Callable[[int], str]) -> None:
    click.echo("label pixels that changed, from and to:")
    rows = [
        (label_name(flip.before), label_name(flip.after), flip.pixels)
        for flip in found.label_flips[:MOST_LINES]
    ]
    print_table(("A", "B", "pixels"), rows)
    _say_more(len(found.label_flips))


def _say_more(count: int) -> None:
    if count > MOST_LINES:
        click.echo(f"… and {count - MOST_LINES:,} more: --json lists them all")
