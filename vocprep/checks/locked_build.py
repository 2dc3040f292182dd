"""Building the version that a lock file pins, or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vocprep.building.describe import PlanDescription, describe_plan
from vocprep.building.local import BuildResult, build_plan
from vocprep.building.plan import BuildPlan, RemakeSources, plan_remake
from vocprep.checks.lock import LockFile, compare_with_lock, read_lock
from vocprep.data_dir.layout import default_data_dir
from vocprep.errors import DataError, UsageError
from vocprep.manifests import manifest_names
from vocprep.options import BuildOptions, MaxFailures
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.version import Version

MOST_DIFFERENCES = 3
"""Differences from the lock file that the error names."""


def build_locked(  # noqa: PLR0913  # where from, where to, how, progress
    lock: str | Path,
    *,
    out: str | Path,
    dataset: str | Path | None = None,
    data_dir: str | Path | None = None,
    weights: str | Path | None = None,
    options: BuildOptions | None = None,
    progress: Progress = NO_PROGRESS,
) -> BuildResult:
    """Build the version that a lock file pins into the folder ``out``.

    ``dataset`` is needed where the version is of one's own manifest. By default as many samples
    may be quarantined as were when the lock file was made. Raises DataError, and publishes
    nothing, when the version that was built is another; deviations that are allowed, as in another
    numerics class, are the result's notes.
    """
    locked = read_lock(lock)
    plan = _plan(lock, locked, dataset, data_dir, weights)
    options = _locked_options(locked, options)
    notes: list[str] = []

    def check(version: Version, folder: Path) -> None:
        found = compare_with_lock(locked, version, folder)
        notes.extend(found.notes)
        if found.differences:
            details = "; ".join(item.detail for item in found.differences[:MOST_DIFFERENCES])
            raise DataError(
                f"{lock}: what was built is another version: {details}; nothing was published; "
                "build without --lock to keep it, and compare with vocprep diff"
            )

    result = build_plan(plan, out, options, progress=progress, check=check)
    return replace(result, notes=tuple(notes))


def describe_locked(
    lock: str | Path,
    *,
    dataset: str | Path | None = None,
    data_dir: str | Path | None = None,
    weights: str | Path | None = None,
    options: BuildOptions | None = None,
) -> PlanDescription:
    """Return what ``build_locked`` would make; DataError naming what has changed since."""
    locked = read_lock(lock)
    plan = _plan(lock, locked, dataset, data_dir, weights)
    return describe_plan(plan, _locked_options(locked, options))


def _locked_options(locked: LockFile, options: BuildOptions | None) -> BuildOptions:
    """Allow as many quarantined samples as the locked version has, unless a number was chosen."""
    options = options or BuildOptions()
    if options.max_failures != MaxFailures():
        return options
    return replace(options, max_failures=MaxFailures(count=len(locked.quarantined)))


def _plan(
    lock: str | Path,
    locked: LockFile,
    dataset: str | Path | None,
    data_dir: str | Path | None,
    weights: str | Path | None,
) -> BuildPlan:
    name = locked.recipe.dataset
    if dataset is None and name not in manifest_names("datasets"):
        raise UsageError(
            f"{lock}: is of dataset {name!r}, which is no shipped one: name its manifest too, as "
            f"in vocprep build-shards {name}.toml --lock {lock}"
        )
    sources = RemakeSources(
        data_dir=default_data_dir() if data_dir is None else Path(data_dir),
        dataset=None if dataset is None else str(dataset),
        weights=None if weights is None else str(weights),
        weights_label=locked.weights,
    )
    return plan_remake(locked.recipe, locked.layout, sources)
