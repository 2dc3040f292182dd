"""What of a build exists already: from an interrupted run, or in the version that it succeeds.

A shard is reused only when it was made of the same images as planned, their files have the same
digests now as then, and its own bytes agree with their digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocprep.building.finish import FinishedShard, describe_shard, finish_shard
from vocprep.building.output.publish import Output, useless_note
from vocprep.building.output.sources import PublishedShards, StagedShards, digest_sources
from vocprep.building.output.staging import FinishedShards
from vocprep.building.output.store_output import AnyOutput, StoreOutput
from vocprep.building.plan import BuildKey, BuildPlan, ShardPlan, versions
from vocprep.errors import DataError, ShardError
from vocprep.files.writing import link_or_copy
from vocprep.options import Layout
from vocprep.shards.containers import CONTAINERS, ShardReader, read_entry
from vocprep.shards.index import DatasetIndex, ShardEntry, shard_versions
from vocprep.shards.listed import FileProblem, is_unchanged
from vocprep.shards.reader import ShardDataset
from vocprep.shards.samples import QuarantinedSample
from vocprep.shards.version import Version
from vocprep.storage.places import Place
from vocprep.storage.store import StorePath


@dataclass(frozen=True, kw_only=True)
class Existing:
    """What a build need not make."""

    shards: dict[str, FinishedShard]
    """By the name that is planned; their bytes are in the staging folder."""
    quarantined: tuple[QuarantinedSample, ...]
    """The quarantined samples of it."""
    version: Version | None = None
    """The version in the output folder, when the build would make the same."""
    kept: int = 0
    """How many of the shards are those of the version in the output folder; an interrupted run
    has left the others."""
    notes: tuple[str, ...] = ()
    """Why nothing of a damaged version is reused."""


def find_existing(key: BuildKey, output: AnyOutput, workers: int, turned: set[str]) -> Existing:
    """Find what an interrupted run, or the version that is succeeded, has of a build.

    Reads every source file of what may be reused, and adds to ``turned`` the ids of images whose
    metadata state an orientation other than upright.
    """
    plan, earlier = key.plan, output.earlier
    may_be_same = earlier is not None and earlier.index.recipe_id == plan.recipe.recipe_id
    mixable = earlier is not None and has_same_tools(earlier.index, key)
    staged = StagedShards(plan, output.staging)
    published = PublishedShards(plan, earlier, mixable=mixable)
    chosen = [
        shard
        for shard in plan.shards
        if may_be_same or shard.name in staged or shard.name in published
    ]
    for shard, image_id, sources in digest_sources(chosen, workers, turned):
        staged.compare(shard, image_id, sources)
        published.compare(shard, image_id, sources)
    is_same = may_be_same and published.are_same()
    if may_be_same and output.is_part:  # the version has the samples of other parts too
        is_same = is_same or all(published.find(shard.name) for shard in plan.shards)
    if isinstance(output, StoreOutput):
        output.refuse_succession(is_same=is_same)
    is_same = is_same and earlier is not None and has_colours(earlier, output.path, plan)
    if earlier is not None and is_same and are_whole(earlier, output.path):
        return Existing(shards={}, quarantined=tuple(earlier.quarantined), version=earlier)
    if isinstance(output, StoreOutput):
        take_over = output.staging.take_over
        staged_now = {each.name: take_over(each.name, staged.find(each.name)) for each in chosen}
        kept = 0
    else:
        reusable = Reusable(staged=staged, published=published, output=output, layout=plan.layout)
        staged_now = {shard.name: reusable.stage(shard) for shard in chosen}
        kept = reusable.kept
    shards = {name: finished for name, finished in staged_now.items() if finished is not None}
    return Existing(
        shards=shards,
        quarantined=tuple(read_quarantined(output.staging, shards)),
        kept=kept,
        notes=(useless_note(published.problem),) if published.problem else (),
    )


def has_same_tools(index: DatasetIndex, key: BuildKey) -> bool:
    """Return whether a version was made with the same tools, so that shards can be mixed."""
    return index.numerics_class == key.numerics_class and index.versions == versions()


def are_whole(version: Version, folder: Place) -> bool:
    """Return whether the shards of a version are the files that its index lists.

    In an object store they have been compared by the digests that the store has of them.
    """
    if isinstance(folder, StorePath):
        return True
    return all(is_unchanged(folder / entry.name, entry) for entry in version.index.shards)


def has_colours(version: Version, folder: Place, plan: BuildPlan) -> bool:
    """Return whether a version has the colours of classes that a build would store.

    No identity counts them. A version in an object store is not changed, and keeps its own.
    """
    if isinstance(folder, StorePath):
        return True
    try:
        stored = ShardDataset(folder, version).label_space
    except ShardError:  # a damaged labels.json, which verify finds
        return True
    return stored.colours == plan.label_space.colours


def read_quarantined(
    staging: FinishedShards, shards: Mapping[str, FinishedShard]
) -> Iterator[QuarantinedSample]:
    """Yield the quarantined samples of staged shards."""
    for name, shard in shards.items():
        if shard.quarantined:
            yield from staging.samples(name, shard).read_quarantined()


@dataclass(kw_only=True)
class Reusable:
    """Shards that were made of the present source files."""

    staged: StagedShards
    published: PublishedShards
    output: Output
    layout: Layout
    kept: int = 0
    """Shards that were taken over from the version."""

    def stage(self, shard: ShardPlan) -> FinishedShard | None:
        """Put a planned shard into the staging folder; None when there is none to be reused."""
        for stage in (self._stage_unfinished, self._stage_published):
            try:
                finished = stage(shard)
            except DataError:  # damaged; or its writer did not follow docs/format.md
                continue
            if finished is not None:
                self.kept += stage == self._stage_published
                return finished
        return None

    def _stage_unfinished(self, shard: ShardPlan) -> FinishedShard | None:
        """Take over a shard of an interrupted run.

        One that was interrupted while it gave its shards their names has some in the output folder
        already.
        """
        staging, found = self.output.staging, self.staged.find(shard.name)
        if found is None:
            return None
        name, finished = found
        samples = staging.samples(name, finished)
        if finished.entry is not None:
            stored = self._read((staging.path / name, self.output.path / name), finished.entry)
            if stored is None:
                return None
            if not stored.is_current:
                return self._write_anew(shard, stored, samples.read_quarantined())
            self._link(stored.path, shard.name)
        if name == shard.name:
            staging.recognise(name, finished)
            return finished
        finished = finished.named(shard.name)
        staging.describe(shard.name, finished, samples.named(shard.name))
        return finished

    def _stage_published(self, shard: ShardPlan) -> FinishedShard | None:
        """Take over a shard of the version that is succeeded."""
        found = self.published.find(shard.name)
        if found is None:
            return None
        entry, quarantined = found
        stored = self._read((self.output.path / entry.name,), entry)
        if stored is None:
            return None
        if not stored.is_current:
            return self._write_anew(shard, stored, quarantined)
        described = describe_shard(shard, list(stored.reader), quarantined, stored.data.tobytes())
        self._link(stored.path, shard.name)
        self.output.staging.describe(shard.name, described.finished, described.samples)
        return described.finished

    def _read(self, paths: Sequence[Path], entry: ShardEntry) -> StoredShard | None:
        """Read the file that has the size and digest of an entry; None where there is none."""
        for path in paths:
            read = read_entry(path, entry)
            if not isinstance(read, FileProblem):
                reader = CONTAINERS[self.layout.format].parse(read.data, str(path))
                is_current = reader.format_version == shard_versions(self.layout.format)[-1]
                return StoredShard(path, read.data, reader, is_current=is_current)
        return None

    def _link(self, source: Path, name: str) -> None:
        """Give a file its name in the staging folder."""
        target = self.output.staging.path / name
        if source != target:
            link_or_copy(source, target)

    def _write_anew(
        self, shard: ShardPlan, stored: StoredShard, quarantined: Sequence[QuarantinedSample]
    ) -> FinishedShard:
        """Write a shard's records into the staging folder as a new build would."""
        encoded = finish_shard(shard, list(stored.reader), quarantined, self.layout)
        self.output.staging.add(shard.name, encoded)
        return encoded.finished


@dataclass(frozen=True, eq=False)
class StoredShard:
    """A shard in memory, whose bytes have their digest."""

    path: Path
    data: NDArray[np.uint8]
    """[N]"""
    reader: ShardReader
    is_current: bool
    """Whether it has the version of the format that is written."""
