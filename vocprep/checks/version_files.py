"""Check the files of a dataset version by themselves: their digests, and the parts of its index.

``vocprep.checks.version_content`` checks every record in them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vocprep.checks.report import Difference, Report, changed
from vocprep.errors import ShardError
from vocprep.files.ids import image_id_of, record_order
from vocprep.files.locking import LOCK
from vocprep.files.names import TEMPORARY_PREFIX, WEIGHTS_HINT, is_clutter
from vocprep.files.reading import MAX_JSON_BYTES
from vocprep.files.writing import json_bytes
from vocprep.parallel import map_ordered
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.recipe import SplitIds
from vocprep.shards.identity import IdentityTrees
from vocprep.shards.index import DATASET_FILE, DatasetIndex, FileEntry, ShardEntry, read_index
from vocprep.shards.listed import stored_problem
from vocprep.shards.samples import SAMPLES_FILE, Sample, SampleEntry
from vocprep.shards.spans import ShardSpan
from vocprep.shards.version import Version
from vocprep.storage.places import Place
from vocprep.storage.reading import read_bytes


def verify_version_files(path: Place, workers: int, progress: Progress = NO_PROGRESS) -> Report:
    """Compare every file with its digest, and the parts of the index with each other.

    Finds any changed bit of any file, and any file that is missing or that does not belong there.
    """
    try:
        index = read_index(path)
    except ShardError as error:
        is_there = DATASET_FILE in _names_in(path)
        difference = Difference(
            path=DATASET_FILE, state="changed" if is_there else "missing", detail=str(error)
        )
        return Report.of("files", matching=0, differences=[difference])
    entries: list[FileEntry] = [*index.shards, *index.files]
    found = [*_check_index_file(path, index), *_compare(path, entries, workers, progress)]
    matching = len(entries) + 1 - len(found)
    found += _extra(path, {entry.name for entry in entries})
    # The samples can be compared with the index only when the files that list them are whole.
    if {difference.path for difference in found} <= {shard.name for shard in index.shards}:
        try:
            found += _check_consistency(Version.of(index, path))
        except ShardError as error:
            found.append(changed(DATASET_FILE, str(error)))
    return Report.of("files", matching=matching, differences=found)


def _compare(
    path: Place, entries: Sequence[FileEntry], workers: int, progress: Progress
) -> Iterator[Difference]:
    """Yield how files differ from their entries in the index."""
    progress.begin("files", sum(entry.bytes for entry in entries), 0)
    try:
        checks = map_ordered(lambda entry: _check_file(path, entry), entries, workers)
        for entry, difference in zip(entries, checks, strict=True):
            progress.advance(entry.bytes)
            if difference is not None:
                yield difference
    finally:
        progress.end()


def _check_index_file(path: Place, index: DatasetIndex) -> list[Difference]:
    """Compare dataset.json with the bytes that its content is written as."""
    if read_bytes(path / DATASET_FILE, MAX_JSON_BYTES) == json_bytes(index.model_dump(mode="json")):
        return []
    return [changed(DATASET_FILE, "expected the bytes that vocprep writes, found others")]


def _check_file(path: Place, entry: FileEntry) -> Difference | None:
    problem = stored_problem(path / entry.name, entry)
    if problem is None:
        return None
    if problem.state == "unreadable":
        detail = f"cannot be read: {problem.found}; {problem.advice}"
    else:
        detail = f"expected {entry.bytes:,} bytes of sha256 {entry.sha256}, found {problem.found}"
    return Difference(path=entry.name, state=problem.state, detail=detail)


def _extra(path: Place, known: set[str]) -> Iterator[Difference]:
    for name in sorted(_names_in(path) - {*known, DATASET_FILE, LOCK, WEIGHTS_HINT}):
        if not (name.startswith(TEMPORARY_PREFIX) or is_clutter(name)):
            detail = "expected nothing of this name, found what dataset.json does not list"
            yield Difference(path=name, state="extra", detail=detail)


def _names_in(path: Place) -> set[str]:
    """Return all names in a folder, clutter too."""
    if isinstance(path, Path):
        return {item.name for item in path.iterdir()}
    return set(path.names())


def _check_consistency(version: Version) -> Iterator[Difference]:
    """Compare identities, splits, shards and samples with each other, in one pass over the lists.

    In memory are the samples of one unfinished shard per split.
    """
    index, images, identities = version.index, _ImageIds(), IdentityTrees()

    def listed() -> Iterator[SampleEntry]:
        for sample in version.stream_all():
            identities.add(sample)
            images.add(sample)
            if isinstance(sample, SampleEntry):
                yield sample

    for shard, samples in version.stream_shards(listed()):
        yield from _check_listed_shard(shard, samples)
    for name, expected in identities.roots().items():
        found = getattr(index, name)
        if expected != found:
            yield changed(
                DATASET_FILE, f"{name}: expected {expected} of the samples, found {found}"
            )
    if not index.recipe.is_complete:
        yield changed(DATASET_FILE, "recipe: names no matrix of its principal components")
    if index.recipe.reduction is not None:
        yield from _check_components(version)
    for split, expected_ids in index.recipe.splits.items():
        if images.of(split) != expected_ids:
            yield changed(SAMPLES_FILE, f"its {split} ids are not those of the recipe")


def _check_components(version: Version) -> Iterator[Difference]:
    """Compare the principal components of a version, where it has any, with its recipe."""
    # Imported where it is used: most versions have none, and are checked without torch.
    from vocprep.building.output.components import components_of
    from vocprep.features.components import COMPONENTS_FILE

    try:
        components_of(version.path, version.index)
    except ShardError as error:
        yield changed(COMPONENTS_FILE, str(error))


def _check_listed_shard(shard: ShardEntry, samples: Sequence[SampleEntry]) -> Iterator[Difference]:
    """Compare a shard's entry with the lines of its records, which are in row order."""
    if any(sample.split != shard.split for sample in samples):
        yield changed(SAMPLES_FILE, f"not all records of {shard.name} are of {shard.split}")
    if shard.span is None:
        return
    ids = [sample.id for sample in samples]
    if ShardSpan.of(ids) != shard.span:
        yield changed(DATASET_FILE, f"the span of {shard.name} is not that of its records")
    if ids != sorted(ids, key=record_order):
        yield changed(SAMPLES_FILE, f"the rows of {shard.name} are not in the order of their ids")


class _ImageIds:
    """Counts and digests of the image ids of each split, added in id order."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._digests: dict[str, Any] = {}
        self._last: dict[str, str] = {}

    def add(self, sample: Sample) -> None:
        """Add the image of a record or quarantined sample; its views follow one another."""
        image_id, split = image_id_of(sample.id), sample.split
        if self._last.get(split) == image_id:
            return
        self._last[split] = image_id
        self._counts[split] += 1
        digest = self._digests.setdefault(split, hashlib.sha256())
        digest.update(f"{image_id}\n".encode())

    def of(self, split: str) -> SplitIds:
        """Return count and digest of a split, as a recipe has them."""
        digest = self._digests.get(split, hashlib.sha256())
        return SplitIds(count=self._counts[split], ids_sha256=digest.hexdigest())
