"""What of a build exists already: from an interrupted run, or in the version that it succeeds.

A shard is reused only when it was made of the same images as planned, their files have the same
digests now as then, and its own bytes agree with their digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocprep.building.finish import FinishedShard, describe_shard, finish_shard
from vocprep.building.plan import BuildKey, BuildPlan, ShardPlan, versions
from vocprep.building.publish import Output
from vocprep.building.staging import Staging
from vocprep.data_dir.layout import SampleRef
from vocprep.errors import DataError
from vocprep.features.image import read_image_file
from vocprep.files.writing import link_or_copy, sha256_hex
from vocprep.formats.jpeg import UPRIGHT, orientation
from vocprep.labels.decode import read_label_file
from vocprep.options import Layout
from vocprep.parallel import map_ordered
from vocprep.shards.containers import CONTAINERS, read_entry
from vocprep.shards.index import DatasetIndex, FileProblem, ShardEntry, shard_versions
from vocprep.shards.record import Record
from vocprep.shards.samples import PairDigests, QuarantinedSample, pair_digests
from vocprep.shards.version import Version, is_unchanged


@dataclass(frozen=True, kw_only=True)
class Existing:
    """What a build need not make."""

    shards: dict[str, FinishedShard]
    """By the name that is planned; their bytes are in the staging folder."""
    version: Version | None = None
    """The version in the output folder, when the build would make the same."""

    @property
    def quarantined(self) -> list[QuarantinedSample]:
        """The quarantined samples of it."""
        if self.version is not None:
            return list(self.version.quarantined)
        return [bad for shard in self.shards.values() for bad in shard.quarantined]


def find_existing(key: BuildKey, output: Output, workers: int, turned: set[str]) -> Existing:
    """Find what an interrupted run, or the version that is succeeded, has of a build.

    Reads every source file of what may be reused, and adds to ``turned`` the ids of images whose
    metadata state an orientation other than upright.
    """
    plan, earlier = key.plan, output.earlier
    candidates = list(staged_shards(plan, output))
    if earlier is not None and has_same_tools(earlier.index, key):
        candidates += published_shards(plan, output.path, earlier)
    if earlier is not None and earlier.index.recipe_id == plan.recipe.recipe_id:
        sources = digest_sources(plan.samples, workers, turned)
        if is_current(earlier, sources, output.path):
            return Existing(shards={}, version=earlier)
    else:
        planned = {candidate.shard.name: candidate.shard for candidate in candidates}
        samples = [sample for shard in planned.values() for sample in shard.samples]
        sources = digest_sources(samples, workers, turned)
    return Existing(shards=stage_reusable(candidates, sources, output.staging, plan.layout))


def has_same_tools(index: DatasetIndex, key: BuildKey) -> bool:
    """Return whether a version was made with the same tools, so that shards can be mixed."""
    return index.numerics_class == key.numerics_class and index.versions == versions()


def is_current(version: Version, sources: Mapping[str, PairDigests], folder: Path) -> bool:
    """Return whether a version was made of these source files, and its shards are whole."""
    return version.sources == sources and all(
        is_unchanged(folder / entry.name, entry) for entry in version.index.shards
    )


@dataclass(frozen=True, kw_only=True)
class ReusableShard:
    """A shard of the same images as a planned one."""

    shard: ShardPlan
    finished: FinishedShard
    paths: tuple[Path, ...]
    """Where its bytes may be."""

    def has_sources(self, sources: Mapping[str, PairDigests]) -> bool:
        """Return whether it was made of these source files, all of them readable."""
        return all(
            None not in digests and sources[image_id] == digests
            for image_id, digests in pair_digests(self.finished.members).items()
        )


def staged_shards(plan: BuildPlan, output: Output) -> Iterator[ReusableShard]:
    """Yield the shards of an interrupted run that hold the images of a planned one.

    A run that was interrupted while it gave its shards their names has some in the output folder
    already.
    """
    staged = {
        (finished.split, frozenset(pair_digests(finished.members))): (name, finished)
        for name, finished in output.staging.shards()
    }
    for shard in plan.shards:
        if found := staged.get((shard.split, shard.image_ids)):
            name, finished = found
            paths = (output.staging.path / name, output.path / name)
            yield ReusableShard(shard=shard, finished=finished, paths=paths)


def published_shards(plan: BuildPlan, out: Path, earlier: Version) -> Iterator[ReusableShard]:
    """Yield the shards of a finished version that hold the images of a planned one."""
    by_shard = earlier.by_shard
    stored = {
        (entry.split, frozenset(pair_digests(by_shard[entry.name]))): entry
        for entry in earlier.index.shards
    }
    bad = {item.id: item for item in earlier.quarantined}
    for shard in plan.shards:
        quarantined = tuple(bad[i] for i in sorted(shard.image_ids & bad.keys()))
        entry = stored.get((shard.split, shard.image_ids.difference(bad)))
        if entry is not None:
            finished = FinishedShard(
                split=shard.split,
                entry=entry,
                samples=tuple(by_shard[entry.name]),
                quarantined=quarantined,
            )
            yield ReusableShard(shard=shard, finished=finished, paths=(out / entry.name,))


def digest_sources(
    samples: Iterable[SampleRef], workers: int, turned: set[str]
) -> dict[str, PairDigests]:
    """Return the digests of the samples' files as they are now; see ``find_existing``."""
    chosen = list(samples)
    digests: dict[str, PairDigests] = {}
    for sample, (pair, is_turned) in zip(
        chosen, map_ordered(_digest_pair, chosen, workers), strict=True
    ):
        digests[sample.image_id] = pair
        if is_turned:
            turned.add(sample.image_id)
    return digests


def _digest_pair(sample: SampleRef) -> tuple[PairDigests, bool]:
    """Return the digests of a sample's files, and whether its image states an orientation."""
    image = _read(read_image_file, sample.image_path)
    label = _read(read_label_file, sample.label_path)
    image_sha256, label_sha256 = (
        None if data is None else sha256_hex(data) for data in (image, label)
    )
    return (image_sha256, label_sha256), orientation(image or b"") != UPRIGHT


def _read(read: Callable[[Path], bytes], path: Path) -> bytes | None:
    try:
        return read(path)
    except DataError:
        return None


def stage_reusable(
    candidates: Iterable[ReusableShard],
    sources: Mapping[str, PairDigests],
    staging: Staging,
    layout: Layout,
) -> dict[str, FinishedShard]:
    """Put the shards that were made of these source files into the staging folder, by name."""
    staged: dict[str, FinishedShard] = {}
    for candidate in candidates:
        name = candidate.shard.name
        if name not in staged and candidate.has_sources(sources):
            finished = _stage(candidate, staging, layout)
            if finished is not None:
                staged[name] = finished
    return staged


def _stage(candidate: ReusableShard, staging: Staging, layout: Layout) -> FinishedShard | None:
    """Put a shard into the staging folder; None when its bytes are gone or damaged."""
    finished, name = candidate.finished, candidate.shard.name
    if finished.entry is not None:
        found = _find_bytes(candidate.paths, finished.entry)
        if found is None:
            return None
        source, data = found
        try:
            shard = CONTAINERS[layout.format].parse(data, str(source))
            if shard.format_version != shard_versions(layout.format)[-1]:
                return _stage_in_current_format(candidate, list(shard), staging, layout)
            if not finished.statistics:  # which dataset.json keeps only summed up
                finished = describe_shard(
                    candidate.shard, list(shard), finished.quarantined, data.tobytes()
                )
        except DataError:  # the digest is right: its writer did not follow docs/format.md
            return None
        target = staging.path / name
        if source != target:
            target.unlink(missing_ok=True)
            link_or_copy(source, target)
    finished = finished.named(name)
    staging.describe(name, finished)
    return finished


def _find_bytes(paths: Sequence[Path], entry: ShardEntry) -> tuple[Path, NDArray[np.uint8]] | None:
    """Return the file that has the size and digest of an entry, and its bytes [N]; None if none."""
    for path in paths:
        read = read_entry(path, entry)
        if not isinstance(read, FileProblem):
            return path, read.data
    return None


def _stage_in_current_format(
    candidate: ReusableShard, records: Sequence[Record], staging: Staging, layout: Layout
) -> FinishedShard:
    """Write a shard's records into the staging folder as a new build would."""
    data, finished = finish_shard(candidate.shard, records, candidate.finished.quarantined, layout)
    staging.add(candidate.shard.name, data, finished)
    return finished
