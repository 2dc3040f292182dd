"""Publishing: an output folder gets a whole dataset version, or goes on holding the old one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vocprep.building.card import CARD_FILE, dataset_card
from vocprep.building.croissant import CROISSANT_FILE, croissant
from vocprep.building.finish import FinishedShard, dataset_statistics
from vocprep.building.stage_times import StageTimes
from vocprep.building.staging import BuildKey, Staging, versions
from vocprep.errors import ShardError, UsageError
from vocprep.files import TEMPORARY_PREFIX, json_bytes, write_atomic
from vocprep.options import IfExists
from vocprep.recipe import differing_fields
from vocprep.shards.identity import Identities
from vocprep.shards.index import (
    DATASET_FILE,
    DatasetIndex,
    describe_file,
    has_index,
    read_index,
    write_index,
)
from vocprep.shards.samples import LABELS_FILE, QUARANTINE_FILE, SAMPLES_FILE, jsonl_bytes
from vocprep.shards.version import Version

LOCK = ".lock"
SIDE_FILES = (SAMPLES_FILE, QUARANTINE_FILE, LABELS_FILE, CARD_FILE, CROISSANT_FILE)
"""What may stand beside the shards, dataset.json left out."""
SHARD_NAME = re.compile(r".+-\d{5}-of-\d{5}\.(h5|tar)")


@dataclass(frozen=True, kw_only=True)
class Output:
    """A locked output folder."""

    path: Path
    staging: Staging
    earlier: Version | None
    """The finished version that it holds, unless it is damaged or to be overwritten."""


@contextmanager
def open_output(out: Path, key: BuildKey, if_exists: IfExists) -> Iterator[Output]:
    """Lock ``out`` and see that a dataset version may go there.

    Shards that a failed build has finished stay in the staging folder. Raises UsageError when
    ``out`` holds other things, or a version that the new one may not succeed.
    """
    with _locked(out):
        _refuse_strangers(out)
        staging = Staging(out)
        if if_exists == "fail":
            _refuse_all(out, staging)
        earlier = None
        if if_exists == "resume":
            _refuse_other_staging(out, staging, key)
            earlier = _read_earlier(out, key) if has_index(out) else None
        staging.begin(key)
        try:
            yield Output(path=out, staging=staging, earlier=earlier)
        finally:
            staging.remove_if_empty()


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the output folder's lock; UsageError when another build holds it."""
    lock = FileLock(out / LOCK, timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise UsageError(
            f"{out}: another build is writing there; wait for it or choose another --out"
        ) from error
    except OSError as error:
        raise UsageError(f"{out}: cannot be written to: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _refuse_strangers(out: Path) -> None:
    """Refuse a folder that holds anything but a dataset version."""
    for path in sorted(out.iterdir()):
        if path.name.startswith(TEMPORARY_PREFIX) or is_ours(path.name):
            continue
        raise UsageError(
            f"{out}: holds {path.name!r}, which is no part of a dataset; choose an empty --out"
        )


def is_ours(name: str) -> bool:
    """Say whether a dataset version can hold a file of this name."""
    return name in (*SIDE_FILES, DATASET_FILE, LOCK) or SHARD_NAME.fullmatch(name) is not None


def _refuse_all(out: Path, staging: Staging) -> None:
    if has_index(out) or staging.read_key() is not None:
        state = "a finished dataset" if has_index(out) else "an unfinished build"
        raise UsageError(
            f"{out}: holds {state} and --if-exists is fail; nothing was done: choose another "
            "--out, or --if-exists resume or overwrite"
        )


def _refuse_other_staging(out: Path, staging: Staging, key: BuildKey) -> None:
    """Refuse to throw unfinished work away unasked."""
    found = staging.read_key()
    if found is not None and not has_index(out):
        _refuse_differing(out, "an unfinished build", found, key.to_json())


def _read_earlier(out: Path, key: BuildKey) -> Version | None:
    """Read the finished version; UsageError when the new one is none that can succeed it."""
    index = read_index(out)
    found = {
        **index.recipe.to_json(),
        "container": index.container,
        "samples_per_shard": index.samples_per_shard,
    }
    wanted = {name: value for name, value in key.to_json().items() if name in found}
    del found["splits"]
    _refuse_differing(out, "a finished dataset", found, wanted)
    try:
        earlier = Version.read(out)
    except ShardError:  # damaged: nothing of it can be taken over
        return None
    ids = earlier.sources.keys()
    left_out = sorted(ids & key.plan.left_out)
    if left_out:
        raise UsageError(
            f"{out}: holds {len(ids):,} pictures, {len(left_out):,} of which --splits or --limit "
            f"leave out, e.g. {left_out[0]}; choose another --out, or --if-exists overwrite"
        )
    return earlier


def _refuse_differing(out: Path, state: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = differing_fields(found, wanted)
    if differing:
        raise UsageError(
            f"{out}: holds {state} of another recipe or layout, there and asked for: "
            f"{'; '.join(differing)}; choose another --out, or --if-exists overwrite"
        )


def assemble(key: BuildKey, shards: Sequence[FinishedShard], stage_times: StageTimes) -> Version:
    """Put together what the index and the files beside it say of finished shards."""
    plan = key.plan
    samples = sorted((item for shard in shards for item in shard.samples), key=lambda s: s.id)
    quarantined = sorted(
        (item for shard in shards for item in shard.quarantined), key=lambda q: q.id
    )
    identities = Identities.of(samples, quarantined)
    index = DatasetIndex(
        recipe_id=plan.recipe.recipe_id,
        source_id=identities.source_id,
        content_id=identities.content_id,
        targets_id=identities.targets_id,
        container=plan.layout.format,
        samples_per_shard=plan.layout.samples_per_shard,
        recipe=plan.recipe,
        numerics_class=key.numerics_class,
        weights=plan.weights_label,
        shards=tuple(shard.entry for shard in shards if shard.entry is not None),
        files=(),
        quarantined=len(quarantined),
        statistics=dataset_statistics(shards, plan.schema.void),
        versions=versions(),
    )
    files = {SAMPLES_FILE: jsonl_bytes(samples), LABELS_FILE: json_bytes(plan.schema.to_json())}
    if quarantined:
        files[QUARANTINE_FILE] = jsonl_bytes(quarantined)
    files[CARD_FILE] = dataset_card(index, plan).encode()
    files[CROISSANT_FILE] = croissant(index, files[SAMPLES_FILE], plan)
    entries = tuple(describe_file(name, data) for name, data in files.items())
    # How long it took is the one thing in a version that no two builds share.
    statistics = {**index.statistics, "seconds": stage_times.seconds()}
    index = index.model_copy(update={"files": entries, "statistics": statistics})
    return Version(index=index.sealed(), samples=samples, quarantined=quarantined, files=files)


def publish(output: Output, version: Version) -> None:
    """Give a version's files their final names, dataset.json last."""
    out, staged = output.path, output.staging.path
    names = {shard.name for shard in version.index.shards}
    (out / DATASET_FILE).unlink(missing_ok=True)
    for path in out.iterdir():
        is_unfinished = path.name.startswith(TEMPORARY_PREFIX) and path.is_file()
        is_old = SHARD_NAME.fullmatch(path.name) and path.name not in names
        if is_unfinished or is_old or path.name in SIDE_FILES:
            path.unlink()
    for name in sorted(names):
        (staged / name).replace(out / name)
    for name, data in version.files.items():
        write_atomic(out / name, data)
    write_index(out, version.index)
    output.staging.remove()
