"""Making an existing dataset version once more: by its recipe, or by the lock file that pins it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from vocprep.backbones import NORMALISATIONS, NormalisationName, normalisation_name
from vocprep.building.describe import PlanDescription, describe_plan
from vocprep.building.local import build_plan
from vocprep.building.plan import BuildPlan, plan
from vocprep.building.results import BuildResult, PartResult
from vocprep.checks.lock import LockFile, compare_with_lock, read_lock
from vocprep.data_dir.layout import read_split
from vocprep.data_dir.place import default_data_place
from vocprep.errors import DataDirError, DataError, SourceUnavailableError, UsageError
from vocprep.features.components import Components
from vocprep.features.libraries.own_file import allow
from vocprep.features.weights import OF_FUNCTION, OFFICIAL, UNTRAINED, official_weights
from vocprep.manifests import (
    DatasetManifest,
    SplitFlags,
    load_recorded_dataset,
    manifest_names,
)
from vocprep.options import BuildChoices, BuildOptions, Layout, MaxFailures, Projection
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.recipe import OWN_FILE, Recipe, SplitIds, differing_fields, joined_differences
from vocprep.shards.version import Version
from vocprep.storage.places import Place, parse_place
from vocprep.storage.store import StorePath

MOST_DIFFERENCES = 3
"""Differences from the lock file that the error names."""


@dataclass(frozen=True, kw_only=True)
class RemakeSources:
    """Where the sources of a finished version are, to make it once more."""

    data_dir: Place
    dataset: str | None = None
    """Name or path of the dataset's manifest; the recipe's own name when None."""
    weights: str | None = None
    """As in ``load_weights``; None finds downloaded ones, and untrained ones by their label."""
    weights_label: str = ""
    """``weights`` of the version's index or lock file."""
    backbone: str | None = None
    """``FILE.py:FUNCTION`` where a file of one's own makes the backbone; its code is run."""
    components: Components | None = None
    """The version's principal components; None where only a lock file names them."""


def plan_remake(recipe: Recipe, layout: Layout, sources: RemakeSources) -> BuildPlan:
    """Plan the build that has this recipe; DataError naming what has changed since.

    Which images a limit and ``--split-flags`` chose is not in a recipe, but how many of each split,
    and the digest of their ids.
    """
    dataset = load_recorded_dataset(recipe.dataset, sources.dataset, sources.data_dir)
    allow(sources.backbone, recipe.backbone, recipe.network)
    choices = BuildChoices(
        splits=tuple(recipe.splits),
        limit_per_split={split: ids.count for split, ids in recipe.splits.items()},
        schema=recipe.schema.name,
        void_unknown=recipe.schema.void_unknown,
        geometry=recipe.geometry,
        backbone=sources.backbone or recipe.backbone,
        windows=recipe.windows,
        layers=recipe.layers,
        cells=_recorded_cells(recipe),
        normalisation=_recorded_normalisation(recipe),
        **_reduction_choices(recipe),
        precision=recipe.precision,
        embedding_dtype=recipe.embedding_dtype,
        views=recipe.chosen_views,
    )
    remake = plan(
        dataset.with_flags(_recorded_flags(recipe, dataset, sources.data_dir)),
        data_dir=sources.data_dir,
        weights=_recorded_weights(recipe, sources),
        choices=choices,
        layout=layout,
        allow_missing=True,
    )
    remake = _with_matrix(remake, recipe, sources.components)
    differing = differing_fields(recipe.to_json(), remake.recipe.to_json())
    if differing:
        raise DataError(
            f"{sources.data_dir}: does not give the recipe {recipe.recipe_id[:12]}…, recorded and "
            f"found {joined_differences(differing)}; use the data, weights and vocprep that it "
            "was made with"
        )
    return remake


def _recorded_cells(recipe: Recipe) -> int | None:
    """Return the most cells that give those of the recipe's layers; None of a built-in backbone."""
    if recipe.network is None:
        return None
    return max(layer.cells for layer in recipe.network.layers.values())


def _recorded_normalisation(recipe: Recipe) -> NormalisationName | None:
    """Return the name of the recipe's constants; None where they are those of its own network."""
    if recipe.network is not None and recipe.normalisation not in NORMALISATIONS.values():
        return None
    return normalisation_name(recipe.normalisation)


def _reduction_choices(recipe: Recipe) -> dict[str, Any]:
    """Return the choices that give a recipe's reduction, without the matrix that was fitted."""
    reduction = recipe.reduction
    if reduction is None:
        return {}
    if reduction.seed is None:
        return {"pca": reduction.size}
    return {"project": Projection(size=reduction.size, seed=reduction.seed)}


def _with_matrix(plan: BuildPlan, recipe: Recipe, components: Components | None) -> BuildPlan:
    """Return a plan with a version's components, or with their digest, which a build compares."""
    if components is not None:
        return plan.with_components(components)
    if recipe.is_complete and not plan.recipe.is_complete:
        return replace(plan, recipe=replace(plan.recipe, reduction=recipe.reduction))
    return plan


def _recorded_flags(recipe: Recipe, dataset: DatasetManifest, data_dir: Place) -> SplitFlags | None:
    """Return by which flags the recipe's ids were chosen, as far as their digests show it."""
    choices: tuple[SplitFlags | None, ...] = (None, *get_args(SplitFlags))
    for flags in choices:
        flagged = dataset.with_flags(flags)
        try:
            found = {
                split: SplitIds.of(read_split(data_dir, flagged, split)[: expected.count])
                for split, expected in recipe.splits.items()
            }
        except DataDirError:
            continue
        if found == recipe.splits:
            return flags
    return None


def _recorded_weights(recipe: Recipe, sources: RemakeSources) -> str | None:
    """Return the weights to make a version once more with, as for ``plan``.

    SourceUnavailableError when they are neither given nor where downloaded ones are.
    """
    if sources.weights is not None:
        return sources.weights
    label = sources.weights_label
    if label.startswith(UNTRAINED):
        return label.removeprefix(UNTRAINED).removesuffix(")")
    if recipe.backbone.startswith(f"{OWN_FILE}:") and label.startswith(OF_FUNCTION):
        return None
    path = sources.data_dir / official_weights(recipe.backbone).path
    if isinstance(path, StorePath):
        if label.startswith(OFFICIAL):
            return None  # who reads them says so where they are not there
    elif path.exists():
        return None
    fetch = f"run: vocprep download {recipe.backbone} --data-dir {sources.data_dir}, or "
    raise SourceUnavailableError(
        f"{path}: the weights that the shards were built with, {label}, are not there; "
        f"{fetch if label.startswith(OFFICIAL) else ''}give their file with --weights PATH"
    )


def build_locked(  # noqa: PLR0913  # where from, where to, how, progress
    lock: str | Path,
    *,
    out: str | Place,
    dataset: str | Path | None = None,
    data_dir: str | Place | None = None,
    weights: str | Path | None = None,
    backbone: str | None = None,
    options: BuildOptions | None = None,
    progress: Progress = NO_PROGRESS,
) -> BuildResult | PartResult:
    """Build the version that a lock file pins into the folder ``out``, or a part of it.

    ``dataset`` is needed where the version is of one's own manifest, ``backbone`` where a file of
    one's own makes its network: ``FILE.py:FUNCTION``, whose code is run. By default as many samples
    may be quarantined as were when the lock file was made. Raises DataError, and publishes
    nothing, when the version that was built is another; deviations that are allowed, as in another
    numerics class, are the result's notes.
    """
    locked = read_lock(lock)
    plan = _plan(lock, locked, _sources(locked, dataset, data_dir, weights, backbone))
    options = _locked_options(locked, options)
    notes: list[str] = []

    def check(version: Version, folder: Place) -> None:
        found = compare_with_lock(locked, version, folder)
        notes.extend(found.notes)
        if found.differences:
            details = "; ".join(item.detail for item in found.differences[:MOST_DIFFERENCES])
            raise DataError(
                f"{lock}: what was built is another version: {details}; nothing was published; "
                "build without --lock to keep it, and compare with vocprep diff"
            )

    result = build_plan(plan, out, options, progress=progress, check=check)
    return replace(result, notes=(*result.notes, *notes))


def describe_locked(
    lock: str | Path,
    *,
    dataset: str | Path | None = None,
    data_dir: str | Place | None = None,
    weights: str | Path | None = None,
    backbone: str | None = None,
    options: BuildOptions | None = None,
) -> PlanDescription:
    """Return what ``build_locked`` would make; DataError naming what has changed since."""
    locked = read_lock(lock)
    plan = _plan(lock, locked, _sources(locked, dataset, data_dir, weights, backbone))
    return describe_plan(plan, _locked_options(locked, options))


def _locked_options(locked: LockFile, options: BuildOptions | None) -> BuildOptions:
    """Allow as many quarantined samples as the locked version has, unless a number was chosen."""
    options = options or BuildOptions()
    if options.max_failures != MaxFailures():
        return options
    return replace(options, max_failures=MaxFailures(count=len(locked.quarantined)))


def _sources(
    locked: LockFile,
    dataset: str | Path | None,
    data_dir: str | Place | None,
    weights: str | Path | None,
    backbone: str | None,
) -> RemakeSources:
    return RemakeSources(
        data_dir=default_data_place() if data_dir is None else parse_place(data_dir),
        dataset=None if dataset is None else str(dataset),
        weights=None if weights is None else str(weights),
        weights_label=locked.weights,
        backbone=backbone,
    )


def _plan(lock: str | Path, locked: LockFile, sources: RemakeSources) -> BuildPlan:
    name = locked.recipe.dataset
    if sources.dataset is None and name not in manifest_names("datasets"):
        raise UsageError(
            f"{lock}: is of dataset {name!r}, which is no shipped one: name its manifest too, as "
            f"in vocprep build-shards {name}.toml --lock {lock}"
        )
    return plan_remake(locked.recipe, locked.layout, sources)
