"""Where the principal components of a build are: beside its shards, and in versions.

Until a version is published, its folder or URL keeps them as unfinished work, which parts and nodes
of the build read; the version then has them as one of its files.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from vocprep.building.output.publish import (
    refuse_existing,
    refuse_other_recipe,
    refuse_other_staging,
)
from vocprep.building.output.staging import STAGING, Staging
from vocprep.building.output.store_publish import published_at
from vocprep.building.plan import BuildKey
from vocprep.errors import DataError, ShardError, UsageError
from vocprep.features.components import COMPONENTS_FILE, MAX_COMPONENTS_BYTES, Components
from vocprep.files.names import TEMPORARY_PREFIX
from vocprep.files.writing import sha256_hex, write_atomic
from vocprep.options import IfExists
from vocprep.recipe import Recipe
from vocprep.shards.index import DatasetIndex, has_index, read_index
from vocprep.shards.version import read_listed
from vocprep.storage.places import Place
from vocprep.storage.reading import read_bytes
from vocprep.storage.store import StorePath


def refuse_other_builds(key: BuildKey, out: Place, if_exists: IfExists) -> None:
    """Refuse, before anything is fitted, a build that ``out`` could not take."""
    if if_exists == "overwrite":
        return
    if isinstance(out, Path):
        staging = Staging(out)
        if if_exists == "fail":
            refuse_existing(out, staging)
        found = staging.read_key()
        if found is not None and not has_index(out):
            refuse_other_staging(out, staging, _named_as(key, found.get("reduction")))
    index = _index_at(out)
    if index is None:
        return
    refuse_other_recipe(out, index, _named_as(key, index.recipe.to_json().get("reduction")))
    raise UsageError(
        f"{out}: holds a finished dataset version whose --pca was fitted to other pictures; choose "
        "another --out, or --if-exists overwrite"
    )


def _named_as(key: BuildKey, found: object) -> BuildKey:
    """Return a build's key with the matrix of what is there, so that all else is compared."""
    reduction = key.plan.recipe.reduction
    digest = found.get("matrix_sha256") if isinstance(found, dict) else None
    if reduction is None:
        return key
    recipe = replace(key.plan.recipe, reduction=replace(reduction, matrix_sha256=digest))
    return replace(key, plan=replace(key.plan, recipe=recipe))


def _index_at(place: Place) -> DatasetIndex | None:
    """Return the index of the version in a place; None where there is none that reads."""
    with suppress(ShardError):
        if isinstance(place, StorePath):
            return published_at(place)
        return read_index(place) if has_index(place) else None
    return None


def components_of(place: Place, index: DatasetIndex) -> Components | None:
    """Return the principal components of a version; None where it has none.

    ShardError where its file is damaged, or is not of the matrix that its recipe names.
    """
    reduction = index.recipe.reduction
    listed = any(entry.name == COMPONENTS_FILE for entry in index.files)
    if reduction is None or reduction.kind != "pca" or not listed:
        return None
    data = read_listed(place, index, COMPONENTS_FILE, MAX_COMPONENTS_BYTES)
    where = str(place / COMPONENTS_FILE)
    try:
        components = Components.from_bytes(data, where)
    except DataError as error:
        raise ShardError(str(error)) from error
    if components.sha256 != reduction.matrix_sha256:
        raise ShardError(
            f"{where}: expected the matrix that the recipe names, of digest "
            f"{(reduction.matrix_sha256 or '')[:12]}…, found {components.sha256[:12]}…; build the "
            "shards again"
        )
    return components


def staged_components(out: Place, recipe: Recipe) -> Components | None:
    """Return the components that a recipe names, from where a build is running.

    UsageError where they are not there any more.
    """
    reduction = recipe.reduction
    if reduction is None or reduction.kind != "pca":
        return None
    for found in (kept_components(out), published_components(out)):
        if found is not None and found.sha256 == reduction.matrix_sha256:
            return found
    raise UsageError(
        f"{out}: does not hold the principal components of this shard's build: that build has "
        "ended or was replaced; make shards of the build that is running there"
    )


def _kept_at(out: Place) -> Place:
    """Return where the components of an unfinished build are."""
    if isinstance(out, StorePath):
        return out / STAGING / COMPONENTS_FILE
    return out / f"{TEMPORARY_PREFIX}{COMPONENTS_FILE}"


def kept_components(out: Place) -> Components | None:
    """Return what an unfinished build has kept; None where there is nothing that reads."""
    path = _kept_at(out)
    try:
        return Components.from_bytes(read_bytes(path, MAX_COMPONENTS_BYTES), str(path))
    except (OSError, DataError):
        return None


def published_components(place: Place) -> Components | None:
    """Return those of the version in a place; None where there are none that read."""
    index = _index_at(place)
    with suppress(ShardError):
        return None if index is None else components_of(place, index)
    return None


def keep_components(out: Place, components: Components, if_exists: IfExists) -> Components:
    """Keep components for the processes of a build; return those of the first one that did."""
    path, data = _kept_at(out), components.to_bytes()
    if isinstance(path, Path):
        write_atomic(path, data)
        return components
    if if_exists != "overwrite":
        if path.put_new(data, sha256_hex(data)):
            return components
        there = kept_components(out)
        if there is not None and there.fit.fit_sha256 == components.fit.fit_sha256:
            return there
    path.put(data, sha256_hex(data))
    return components


def forget_components(out: Place) -> None:
    """Delete what was kept for a build that has published its version."""
    path = _kept_at(out)
    if isinstance(path, Path):
        path.unlink(missing_ok=True)
    else:
        path.delete()
