"""The local engine: builds a dataset version in this process.

Threads read, decode and make targets ahead of the backbone; the shards are made one after another
in a staging folder, and get their final names together when all of them are done.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout

from vocprep.errors import UsageError
from vocprep.features.embed import Embedder, choose_device, numerics_class
from vocprep.files import TEMPORARY_PREFIX, write_atomic
from vocprep.parallel import map_ordered
from vocprep.recipe import EngineOptions, differing_fields
from vocprep.shards.build import (
    BuildPlan,
    BuiltShard,
    Prepared,
    dataset_statistics,
    embed_prepared,
    finish_shard,
    prepare_sample,
)
from vocprep.shards.index import (
    DATASET_FILE,
    SAMPLES_FILE,
    DatasetIndex,
    content_id,
    read_index,
    source_id,
    write_index,
)
from vocprep.sources.tree import SampleRef

STAGING = f"{TEMPORARY_PREFIX}build"
LOCK = ".lock"
_OURS = re.compile(rf"(.+-\d{{5}}-of-\d{{5}}\.(h5|tar))|{SAMPLES_FILE}|{DATASET_FILE}|{LOCK}")


def build_dataset(
    plan: BuildPlan,
    out: Path,
    options: EngineOptions,
    on_image: Callable[[], None] = lambda: None,
) -> DatasetIndex:
    """Build a dataset version into ``out`` and return its index.

    Nothing gets a final name before every shard is made; dataset.json comes last. On any error
    ``out`` is left as it was.
    """
    device = choose_device(options.device)
    embedder = Embedder(plan.weights, plan.recipe.normalisation, device=device)
    with _locked(out), _staging(out) as staging:
        _check_target(plan, out, options)
        built = []
        for shard in plan.shards:
            prepared = _prepare_all(plan, shard.samples, options.workers, on_image)
            records = list(embed_prepared(prepared, embedder, plan.recipe.embedding_dtype))
            data, finished = finish_shard(shard, records, plan.layout)
            write_atomic(staging / shard.name, data)
            built.append(finished)
        return _publish(plan, built, out, numerics_class(device))


def _prepare_all(
    plan: BuildPlan, samples: Iterable[SampleRef], workers: int, on_image: Callable[[], None]
) -> Iterator[Prepared]:
    """Prepare samples in order, some of them ahead of the backbone."""
    prepare = partial(prepare_sample, recipe=plan.recipe, schema=plan.schema)
    for views in map_ordered(prepare, samples, workers):
        yield from views
        on_image()


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


def _check_target(plan: BuildPlan, out: Path, options: EngineOptions) -> None:
    """Refuse a folder that holds other things, or a dataset that is not to be replaced."""
    names = {path.name for path in out.iterdir()} - {STAGING}
    strangers = sorted(name for name in names if not _OURS.fullmatch(name))
    if strangers:
        raise UsageError(
            f"{out}: holds {strangers[0]!r}, which is no part of a dataset; choose an empty --out"
        )
    if DATASET_FILE not in names or options.if_exists == "overwrite":
        return
    differing = differing_fields(read_index(out).recipe.to_json(), plan.recipe.to_json())
    if differing:
        raise UsageError(
            f"{out}: holds a dataset of another recipe, there and asked for: "
            f"{'; '.join(differing)}; choose another --out, or --if-exists overwrite"
        )
    raise UsageError(
        f"{out}: holds a finished dataset of this very recipe; nothing was done; to make it "
        "again, add --if-exists overwrite"
    )


def _publish(
    plan: BuildPlan, built: Sequence[BuiltShard], out: Path, numerics: dict[str, str]
) -> DatasetIndex:
    """Move the shards to their final names and write the index."""
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
        if path.suffix in (".h5", ".tar"):
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
