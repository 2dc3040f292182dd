"""``vocprep build-shards --lock``: the very version of a lock file, or none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from vocprep.errors import UsageError

if TYPE_CHECKING:
    from vocprep.building.local import Accept
    from vocprep.building.plan import BuildPlan
    from vocprep.checks.lock import LockFile
    from vocprep.shards.version import Version

MOST_DIFFERENCES = 3
"""Differences from a lock that the error names."""
_CHOICES = (
    *("splits", "limit", "schema", "void_unknown", "geometry", "edge", "views", "precision"),
    *("backbone", "windows", "layers", "normalisation"),
    *("embedding_dtype", "shard_format", "samples_per_shard"),
)
"""Parameters that a lock file decides."""


def refuse_choices(context: click.Context) -> None:
    """Refuse options beside ``--lock`` that it decides."""
    given = [
        name
        for name in _CHOICES
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE
    ]
    if given:
        option = given[0].removeprefix("shard_").replace("_", "-")
        raise UsageError(f"--{option} beside --lock: the lock file decides it; leave it out")


def locked_plan(
    lock: Path, locked: LockFile, dataset: str | None, data_dir: Path, weights: str | None
) -> tuple[BuildPlan, Accept]:
    """Plan a locked version, and return what refuses to publish any other."""
    from vocprep.building.plan import AgainFrom, plan_again
    from vocprep.checks.lock import compare_with_lock
    from vocprep.errors import DataError
    from vocprep.manifests import manifest_names

    name = locked.recipe.dataset
    if dataset is None and name not in manifest_names("datasets"):
        raise UsageError(
            f"{lock}: is of dataset {name!r}, which is no shipped one: name its manifest too, as "
            f"in vocprep build-shards {name}.toml --lock {lock}"
        )
    sources = AgainFrom(
        data_dir=data_dir, dataset=dataset, weights=weights, weights_label=locked.weights
    )
    plan = plan_again(locked.recipe, locked.layout, sources)

    def accept(version: Version, folder: Path) -> None:
        check = compare_with_lock(locked, version, folder)
        for note in check.notes:
            click.echo(f"note: {note}", err=True)
        if check.differences:
            details = "; ".join(item.detail for item in check.differences[:MOST_DIFFERENCES])
            raise DataError(
                f"{lock}: what was built is another version: {details}; nothing was published; "
                "build without --lock to keep it, and compare with vocprep diff"
            )

    return plan, accept
