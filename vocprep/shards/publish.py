"""Publishing: an output folder gets a whole dataset version or stays as it was."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout

from vocprep.errors import UsageError
from vocprep.files import TEMPORARY_PREFIX
from vocprep.recipe import IfExists, Recipe, differing_fields
from vocprep.shards.build import BuildPlan, BuiltShard, dataset_statistics
from vocprep.shards.index import (
    DATASET_FILE,
    SAMPLES_FILE,
    DatasetIndex,
    content_id,
    read_index,
    source_id,
    write_index,
)

STAGING = f"{TEMPORARY_PREFIX}build"
LOCK = ".lock"
_OURS = re.compile(rf"(.+-\d{{5}}-of-\d{{5}}\.(h5|tar))|{SAMPLES_FILE}|{DATASET_FILE}|{LOCK}")


@contextmanager
def open_output(out: Path, recipe: Recipe, if_exists: IfExists) -> Iterator[Path]:
    """Lock ``out``, see that a dataset may go there, and yield a staging folder inside it.

    Raises UsageError when ``out`` holds other things, or a dataset that is not to be replaced.
    """
    with _locked(out):
        _check_target(out, recipe, if_exists)
        with _staging(out) as staging:
            yield staging


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the output folder's lock; UsageError when another build holds it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise UsageError(
            f"{out}: another build is writing there; wait for it or choose another --out"
        ) from error
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{out}: cannot be written to: {error.strerror}") from error


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Yield an empty folder for unfinished work inside ``out``; take it away at the end."""
    staging = out / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_target(out: Path, recipe: Recipe, if_exists: IfExists) -> None:
    """Refuse a folder that holds other things, or a dataset that is not to be replaced."""
    names = {path.name for path in out.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)}
    strangers = sorted(name for name in names if not _OURS.fullmatch(name))
    if strangers:
        raise UsageError(
            f"{out}: holds {strangers[0]!r}, which is no part of a dataset; choose an empty --out"
        )
    if DATASET_FILE not in names or if_exists == "overwrite":
        return
    differing = differing_fields(read_index(out).recipe.to_json(), recipe.to_json())
    if differing:
        raise UsageError(
            f"{out}: holds a dataset of another recipe, there and asked for: "
            f"{'; '.join(differing)}; choose another --out, or --if-exists overwrite"
        )
    raise UsageError(
        f"{out}: holds a finished dataset of this very recipe; nothing was done; to make it "
        "again, add --if-exists overwrite"
    )


def publish(
    plan: BuildPlan, built: Sequence[BuiltShard], out: Path, numerics: dict[str, str]
) -> DatasetIndex:
    """Move the staged shards to their final names, write the index and return it."""
    samples = sorted((item for shard in built for item in shard.samples), key=lambda item: item.id)
    index = DatasetIndex(
        recipe_id=plan.recipe.recipe_id,
        source_id=source_id(samples),
        content_id=content_id(samples),
        container=plan.layout.format,
        samples_per_shard=plan.layout.samples_per_shard,
        recipe=plan.recipe,
        numerics_class=numerics,
        weights=plan.weights_label,
        shards=tuple(shard.entry for shard in built),
        statistics=dataset_statistics(built, plan.schema.void),
        versions=_versions(),
    )
    (out / DATASET_FILE).unlink(missing_ok=True)
    for path in out.iterdir():
        unfinished = path.name.startswith(TEMPORARY_PREFIX) and path.is_file()
        if unfinished or path.suffix in (".h5", ".tar"):
            path.unlink()
    for shard in plan.shards:
        (out / STAGING / shard.name).replace(out / shard.name)
    write_index(out, index, samples)
    return index


def _versions() -> dict[str, str]:
    """Return the versions of what made the bytes."""
    packages = ("vocprep", "numpy", "torch", "pillow", "simplejpeg", "h5py")
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }
