"""``vocprep verify``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vocprep.cli.bars import Bars, stop
from vocprep.cli.common import (
    DIFFERENCES,
    PATH,
    data_dir_option,
    device_option,
    json_option,
    print_json,
    progress,
    workers_option,
)
from vocprep.errors import UsageError

if TYPE_CHECKING:
    from vocprep.checks.recompute import Recomputed
    from vocprep.checks.report import Report

MOST_LINES = 50
"""Differences that are printed; ``--json`` lists all."""


@dataclass(frozen=True, kw_only=True)
class Again:
    """What a version is made again from, and how much of it."""

    data_dir: Path
    dataset: str | None
    weights: str | None
    samples: int | None
    seed: int
    device: str
    workers: int


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a verification came to."""

    reports: Sequence[Report]
    notes: Sequence[str] = ()
    measured: dict[str, Any] | None = None
    """What ``recompute`` measured, for programs."""


@click.command()
@click.argument("path", type=PATH)
@click.option(
    "--level",
    type=click.Choice(["files", "content", "recompute"]),
    default="files",
    show_default=True,
    help="files: every file's digest; content: also decode everything; recompute: also make a "
    "dataset's records again from the data dir.",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="NAME",
    help="Data dir: dataset whose content is looked at; may be repeated.  [default: all that are "
    "there]  Shards: own manifest that they were built by.",
)
@click.option("--partial", is_flag=True, help="Data dir: a subset of the files is right.")
@click.option("--lock", type=PATH, metavar="FILE", help="Shards: also compare with this lock file.")
@data_dir_option
@click.option("--weights", help="recompute: PATH or random:SEED, as for build-shards.")
@click.option(
    "--samples",
    default="32",
    show_default=True,
    help="recompute: pictures whose embeddings are made again, or all.",
)
@click.option("--seed", default=0, show_default=True, help="recompute: decides which pictures.")
@device_option
@workers_option
@json_option
def verify(
    path: Path,
    level: str,
    datasets: tuple[str, ...],
    partial: bool,
    lock: Path | None,
    data_dir: Path,
    weights: str | None,
    samples: str,
    seed: int,
    device: str,
    workers: int,
    as_json: bool,
) -> None:
    """Check a data dir or a dataset of shards; say file by file what is right and what is not.

    Exit code 1 when anything differs.

    A data dir is compared with the record of its downloads; "content" decodes every picture and
    label map and compares the label areas with those that the authors logged.

    Shards are compared with their index, and with --lock; "content" decodes every record;
    "recompute" makes all targets again and the embeddings of some pictures: the same bits where
    the numerics class is the same, else within the stated tolerance, with what was measured.

    \b
    Example:
      vocprep verify data --level content --workers 8
      vocprep verify shards/voc --lock voc.lock.json
      vocprep verify shards/voc --level recompute --data-dir data --samples 100
    """
    if workers < 1:
        raise UsageError(f"workers {workers}: expected 1 or more")
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder; expected a data dir or a dataset of shards")
    bars = Bars()
    try:
        if _is_shards(path):
            found = _verify_shards(path, level, lock, workers)
            if level == "recompute" and all(report.clean for report in found.reports):
                again = Again(
                    data_dir=data_dir,
                    dataset=datasets[0] if datasets else None,
                    weights=weights,
                    samples=_sample_count(samples),
                    seed=seed,
                    device=device,
                    workers=workers,
                )
                found = _recompute(path, again, found)
        else:
            _refuse_for_data_dir(level, lock)
            found = Found(
                reports=_verify_data_dir(path, level, datasets, workers, bars, partial=partial)
            )
    except KeyboardInterrupt:
        stop(bars, "nothing was changed")
    _print_found(found, as_json=as_json)
    if not all(report.clean for report in found.reports):
        click.get_current_context().exit(DIFFERENCES)


def _is_shards(path: Path) -> bool:
    """Say whether a folder is a dataset of shards: finished, unfinished, or with its index lost."""
    names = ("dataset.json", "samples.jsonl", ".tmp-build", ".lock")
    return any((path / name).exists() for name in names)


def _sample_count(text: str) -> int | None:
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(f"samples {text!r}: expected a number of pictures, or all") from error


def _refuse_for_data_dir(level: str, lock: Path | None) -> None:
    if level == "recompute" or lock is not None:
        option = "--lock" if lock is not None else "--level recompute"
        raise UsageError(f"{option} goes with a dataset of shards, found a data dir; leave it out")


def _verify_shards(path: Path, level: str, lock: Path | None, workers: int) -> Found:
    """Compare the files; where they are right, look into them and at the lock."""
    from vocprep.checks.lock import compare_with_lock, read_lock
    from vocprep.checks.report import Report
    from vocprep.checks.shards import verify_content, verify_files
    from vocprep.shards.index import read_index
    from vocprep.shards.version import Version

    locked = read_lock(lock) if lock is not None else None
    with progress(None, "files") as step:
        reports = [verify_files(path, workers, step)]
    notes: list[str] = []
    if reports[0].clean:
        if level != "files":
            with progress(len(read_index(path).shards), "shards") as step:
                reports.append(verify_content(path, workers, step))
        if locked is not None:
            version = Version.read(path)
            check = compare_with_lock(locked, version, path)
            right = len(locked.shards) + len(locked.files) if not check.differences else 0
            reports.append(Report(level="lock", right=right, differences=tuple(check.differences)))
            notes = check.notes
        quarantined = read_index(path).quarantined
        if quarantined:
            notes.append(f"quarantined pictures: {quarantined:,}, see quarantine.jsonl")
    elif level != "files" or locked is not None:
        notes.append("neither content nor lock was looked at, because the files differ")
    return Found(reports=reports, notes=notes)


def _recompute(path: Path, again: Again, found: Found) -> Found:
    """Make the version again, and hold heads fed from it against heads fed by the backbone."""
    from vocprep.building.plan import AgainFrom, plan_again
    from vocprep.checks.recompute import RecomputeOptions, recompute
    from vocprep.checks.through_heads import TOLERANCES, compare_through_heads
    from vocprep.options import BuildOptions, Layout
    from vocprep.shards.reader import ShardDataset

    dataset = ShardDataset.open(path)
    index = dataset.index
    sources = AgainFrom(
        data_dir=again.data_dir,
        dataset=again.dataset,
        weights=again.weights,
        weights_label=index.weights,
    )
    layout = Layout(format=index.container, samples_per_shard=index.samples_per_shard)
    plan = plan_again(index.recipe, layout, sources)
    engine = BuildOptions(device=again.device, workers=again.workers)
    options = RecomputeOptions(samples=again.samples, seed=again.seed, engine=engine)
    with progress(len(plan.samples), "images") as step:
        made = recompute(dataset, plan, options, step)
    heads = compare_through_heads(
        ((pair.grid, pair.stored, pair.made) for pair in made.pairs),
        max(dataset.schema.names) + 1,
    )
    report = made.report
    allowed = TOLERANCES[index.recipe.embedding_dtype]
    if not made.other_class and heads.largest > allowed:
        report = _with_difference(
            report, f"heads: outputs deviate by {heads.largest:.2g}, allowed {allowed:g}"
        )
    notes = [*found.notes, *_measured_notes(made, index.recipe.precision)]
    notes.append(
        f"through fresh heads, cached and uncached outputs deviate by {heads.category:.2g} "
        f"(categories) and {heads.mask:.2g} (masks) of the largest, allowed {allowed:g}"
    )
    measured = {
        "other_numerics_class": list(made.other_class),
        "embeddings": asdict(made.deviation),
        "embeddings_from_fp32": asdict(made.from_fp32) if made.from_fp32 else None,
        "heads": asdict(heads),
    }
    return Found(reports=[*found.reports, report], notes=notes, measured=measured)


def _with_difference(report: Report, detail: str) -> Report:
    from vocprep.checks.report import Difference

    difference = Difference(path="dataset.json", state="changed", detail=detail)
    return replace(report, differences=(*report.differences, difference))


def _measured_notes(made: Recomputed, precision: str) -> list[str]:
    """Say what was measured, and by which rule it was judged."""
    if made.other_class:
        rule = f"within tolerances: made in another numerics class ({'; '.join(made.other_class)})"
    else:
        rule = "to the bit: made in this numerics class"
    notes = [
        f"embeddings compared {rule}",
        f"embeddings of {made.deviation.patches:,} patches made again: {made.deviation}",
    ]
    if made.from_fp32 is not None:
        notes.append(f"{precision} from fp32, the same patches: {made.from_fp32}")
    return notes


def _verify_data_dir(
    path: Path, level: str, names: Sequence[str], workers: int, bars: Bars, *, partial: bool
) -> list[Report]:
    """Compare the files, then look into them; content needs no record of a download."""
    from vocprep.checks.data_content import datasets_in, verify_content
    from vocprep.checks.data_files import has_records, verify_files
    from vocprep.manifests import load_dataset

    reports = []
    if level == "files" or has_records(path):
        reports.append(verify_files(path, workers, bars, partial=partial))
    if level == "content":
        datasets = [load_dataset(name) for name in names] or datasets_in(path)
        samples = Bars("samples")
        reports.append(verify_content(path, datasets, workers, samples, partial=partial))
    return reports


def _print_found(result: Found, *, as_json: bool) -> None:
    reports = result.reports
    if as_json:
        print_json(
            {
                "clean": all(report.clean for report in reports),
                "reports": [report.to_json() for report in reports],
                "notes": list(result.notes),
                "measured": result.measured,
            }
        )
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
    for note in result.notes:
        click.echo(f"note: {note}")
