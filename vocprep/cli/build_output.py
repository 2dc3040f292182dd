"""What ``vocprep build-shards`` prints: the plan, and what a build or a part came to."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from vocprep.cli.printing import counted, duration, gigabytes, megabytes, print_json, print_table
from vocprep.geometry import PATCH
from vocprep.heads.runs.options import TrainOptions, fit_splits
from vocprep.memory import available_memory

if TYPE_CHECKING:
    from vocprep.building.describe import PlanDescription
    from vocprep.building.results import BuildResult, PartResult, ShardCounts

_MOST_PARTS = 8
"""Parts that are named as unfinished."""
_WORK = {
    "read": "reading files",
    "decode": "decoding",
    "geometry": "resizing",
    "targets": "targets",
    "embed": "the backbone",
    "write": "writing shards",
}
"""Stages of a build in words; ``waiting`` is no work."""
_LEAST_SHARE = 0.5
"""Of a build's seconds in the stages of all threads together: below it, most went to the start."""


def print_result(result: BuildResult | PartResult, *, as_json: bool) -> None:
    """Print what a build came to."""
    from vocprep.building.results import PartResult

    for note in result.notes:
        click.echo(f"note: {note}", err=True)
    if as_json:
        print_json(result.to_json())
    elif isinstance(result, PartResult):
        _print_part(result)
    else:
        _print_version(result)


def _print_version(result: BuildResult) -> None:
    """Print a version: what it is, what it holds, how it was made, what to do with it."""
    from vocprep.checks.inspect import VersionSummary

    index = result.index
    summary = VersionSummary.of(index)
    click.echo(index.short_id)
    records = {split.split: split.records for split in summary.splits}
    splits = ", ".join(f"{split} {count:,}" for split, count in records.items())
    shards = counted(len(index.shards), f"{index.container} shard")
    total = counted(sum(records.values()), "record")
    click.echo(f"{total}: {splits}; {shards}, {megabytes(summary.bytes)}, in {result.path}")
    if index.quarantined:
        images = counted(result.images, "image")
        where = result.path / "quarantine.jsonl"
        click.echo(f"quarantined {index.quarantined:,} of {images}, left out: see {where}")
    click.echo(_how_made(result))
    out = shlex.quote(str(result.path))
    if records.get(fit_splits(TrainOptions(), index.recipe.splits).train_split):
        wide = " --preset wide" if max(index.recipe.windows, default=0) > PATCH else ""
        click.echo(f"next: vocprep train {out} --out runs/first{wide}")
    click.echo(f"more: vocprep inspect {out}")


def _how_made(result: BuildResult) -> str:
    """Return what a build did, and where its time went."""
    if result.up_to_date:
        state = "its shards were there, now published" if result.published else "up to date"
        return f"{state}: checked in {duration(result.seconds)}, nothing to build"
    kept = kept_words(result.shards)
    reused = f"embeddings of {counted(result.reused, 'record')} reused" if result.reused else ""
    speed = f"{result.made / result.seconds:,.1f} images/s"
    took = f"{counted(result.made, 'image')} made in {duration(result.seconds)}, {speed}"
    return "; ".join(
        filter(None, (kept, reused, f"{took}{work_words(result.stage_seconds, result.seconds)}"))
    )


def kept_words(shards: ShardCounts) -> str:
    """Return how many shards were not made anew; nothing where all were.

    >>> from vocprep.building.results import ShardCounts
    >>> kept_words(ShardCounts(made=28, resumed=12))
    '12 of 40 shards finished before'
    >>> kept_words(ShardCounts(made=1, resumed=2, kept=3))
    '2 of 6 shards finished before, 3 kept as they were'
    """
    total = counted(shards.total, "shard")
    before = f"{shards.resumed:,} of {total} finished before" if shards.resumed else ""
    number = f"{shards.kept:,}" if before else f"{shards.kept:,} of {total}"
    kept = f"{number} kept as they were" if shards.kept else ""
    return ", ".join(filter(None, (before, kept)))


def work_words(stage_seconds: Mapping[str, float], seconds: float) -> str:
    """Return where the time of all threads went, in a build of so many seconds.

    >>> work_words({"read": 0.5, "decode": 0.9, "embed": 8.6, "waiting": 5.0}, seconds=8.0)
    ', most of the time in the backbone (86 %)'
    >>> work_words({"read": 4.0, "decode": 3.0, "embed": 3.0, "waiting": 5.0}, seconds=8.0)
    ', 40 % of the time in reading files, 30 % in decoding'
    """
    work = {words: stage_seconds.get(stage, 0.0) for stage, words in _WORK.items()}
    total = sum(work.values())
    if total <= _LEAST_SHARE * seconds:
        return ""
    shares = {words: 100 * part / total for words, part in work.items()}
    first, second = sorted(shares, key=lambda words: -shares[words])[:2]
    if shares[first] > 50:
        return f", most of the time in {first} ({shares[first]:.0f} %)"
    return f", {shares[first]:.0f} % of the time in {first}, {shares[second]:.0f} % in {second}"


def memory_words(plan: PlanDescription, free: int | None) -> str:
    """Return how much memory a build takes beside what is free, where that is known.

    >>> from types import SimpleNamespace
    >>> plan = SimpleNamespace(memory=1_400_000_000, memory_per_process=150_000_000, processes=4)
    >>> memory_words(plan, free=8_000_000_000)
    'about 1.4 GB, of it 0.1 GB in each of 4 processes; 8.0 GB are free'
    """
    in_all = f"about {gigabytes(plan.memory)}"
    if plan.processes > 1:
        each = f"{gigabytes(plan.memory_per_process)} in each of {plan.processes} processes"
        in_all = f"{in_all}, of it {each}"
    if free is None:
        return in_all
    if free >= plan.memory:
        return f"{in_all}; {gigabytes(free)} are free"
    fewer = "--processes or --samples-per-shard" if plan.processes > 1 else "--samples-per-shard"
    return f"{in_all}, and only {gigabytes(free)} are free: use fewer {fewer}"


def _print_part(result: PartResult) -> None:
    staged = counted(len(result.shards), "shard")
    click.echo(
        f"part     {result.part}: {staged} finished, {counted(result.images, 'image')}, "
        f"{result.made:,} of them made now in {duration(result.seconds)}"
    )
    if result.quarantined:
        click.echo(f"bad      {counted(result.quarantined, 'image')} quarantined")
    if not result.missing:
        click.echo("missing  none: the same command without --part publishes")
        return
    parts = [f"{part}" for part in result.unfinished]
    more = f" and {len(parts) - _MOST_PARTS:,} more" if len(parts) > _MOST_PARTS else ""
    click.echo(
        f"missing  {counted(len(result.missing), 'shard')}, of --part "
        f"{', '.join(parts[:_MOST_PARTS])}{more}"
    )
    click.echo("next     once they are there, the same command without --part publishes")


def print_plan(plan: PlanDescription, *, as_json: bool) -> None:
    """Print what a build would make."""
    if as_json:
        print_json(plan.to_json())
        return
    recipe_id = f"{plan.recipe_id[:12]}…" if plan.recipe_id else "comes with the build: --pca"
    click.echo(f"recipe   {plan.recipe}  (recipe_id {recipe_id})")
    click.echo(f"weights  {plan.weights}")
    click.echo(f"backbone {'compiled first' if plan.compiled else 'as it is, not compiled'}")
    if plan.part is not None:
        click.echo(f"part     {plan.part}, which alone is counted below")
    click.echo(f"samples  {plan.samples:,}")
    if plan.unreadable:
        click.echo(f"missing  {plan.unreadable:,} of them, which cannot be read")
    click.echo(f"patches  {plan.patches:,}")
    before = f" of {plan.backbone_size:,}" if plan.embedding_size < plan.backbone_size else ""
    click.echo(
        f"numbers  {plan.embedding_size:,}{before} per patch: {plan.bytes_per_image:,} bytes of "
        "embeddings per picture"
    )
    if plan.warning is not None:
        click.echo(f"warning  {plan.warning}")
    click.echo(f"bytes    about {megabytes(plan.estimated_bytes)}")
    click.echo(f"memory   {memory_words(plan, available_memory())}")
    click.echo(f"shards   {len(plan.shards)}")
    print_table(("shard", "samples"), [(shard.name, shard.samples) for shard in plan.shards])
    click.echo("dry run: nothing was written")
