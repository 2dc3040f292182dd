"""What of a build is done already: by an interrupted run, or by the version that it succeeds.

A shard is taken over only when it was made of the same pictures as planned, their files have the
same digests now as then, and its own bytes agree with their digest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vocprep.building.finish import FinishedShard, describe_shard
from vocprep.building.plan import BuildPlan, ShardPlan
from vocprep.building.staging import BuildKey, Staging, versions
from vocprep.data_dir.layout import SampleRef
from vocprep.errors import DataError
from vocprep.features.image import read_image_file
from vocprep.files import sha256_hex
from vocprep.labels.decode import read_label_file
from vocprep.parallel import map_ordered
from vocprep.shards.containers import container_of_file
from vocprep.shards.index import DatasetIndex
from vocprep.shards.samples import PairDigests, QuarantinedSample, pair_digests
from vocprep.shards.version import Version, is_unchanged


@dataclass(frozen=True, kw_only=True)
class Done:
    """What need not be built."""

    shards: dict[str, FinishedShard]
    """By the name that is planned; their bytes are in the staging folder."""
    current: Version | None = None
    """The version that the output folder holds, when nothing would change."""

    @property
    def quarantined(self) -> list[QuarantinedSample]:
        """The bad samples among it."""
        if self.current is not None:
            return list(self.current.quarantined)
        return [bad for shard in self.shards.values() for bad in shard.quarantined]


def find_done(
    key: BuildKey, out: Path, staging: Staging, earlier: Version | None, workers: int
) -> Done:
    """Find what an interrupted run, or the version that is succeeded, has of a build.

    Reads every source file of what may be taken over.
    """
    plan = key.plan
    candidates = list(staged_candidates(plan, staging, out))
    if earlier is not None and made_alike(earlier.index, key):
        candidates += earlier_candidates(plan, earlier, out)
    if earlier is not None and earlier.index.recipe_id == plan.recipe.recipe_id:
        now = digest_sources(plan.samples, workers)
        if is_current(earlier, now, out):
            return Done(shards={}, current=earlier)
    else:
        chosen = {candidate.shard.name: candidate.shard for candidate in candidates}
        samples = [sample for shard in chosen.values() for sample in shard.samples]
        now = digest_sources(samples, workers)
    return Done(shards=take_over(candidates, now, staging))


def made_alike(index: DatasetIndex, key: BuildKey) -> bool:
    """Say whether a version was made by what would make the new one, so that bytes can be mixed."""
    return index.numerics_class == key.numerics_class and index.versions == versions()


def is_current(version: Version, now: Mapping[str, PairDigests], folder: Path) -> bool:
    """Say whether the source files are those of a version, and its shards are whole."""
    return version.sources == now and all(
        is_unchanged(folder / entry.name, entry) for entry in version.index.shards
    )


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A shard that may be what is planned."""

    shard: ShardPlan
    finished: FinishedShard
    paths: tuple[Path, ...]
    """Where its bytes may be."""

    def is_of(self, now: Mapping[str, PairDigests]) -> bool:
        """Say whether it was made of the files that are there now, all of them readable."""
        return all(
            None not in then and now[image_id] == then
            for image_id, then in pair_digests(self.finished.members).items()
        )


def staged_candidates(plan: BuildPlan, staging: Staging, out: Path) -> Iterator[Candidate]:
    """Yield the shards of an interrupted run that hold the pictures of a planned one.

    A run that was interrupted while it gave its shards their names has some in ``out`` already.
    """
    staged = {
        (finished.split, frozenset(pair_digests(finished.members))): (name, finished)
        for name, finished in staging.shards()
    }
    for shard in plan.shards:
        if found := staged.get((shard.split, shard.image_ids)):
            name, finished = found
            paths = (staging.path / name, out / name)
            yield Candidate(shard=shard, finished=finished, paths=paths)


def earlier_candidates(plan: BuildPlan, earlier: Version, out: Path) -> Iterator[Candidate]:
    """Yield the shards of a finished version that hold the pictures of a planned one."""
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
            yield Candidate(shard=shard, finished=finished, paths=(out / entry.name,))


def digest_sources(samples: Iterable[SampleRef], workers: int) -> dict[str, PairDigests]:
    """Return the digests of the samples' files as they are now."""
    chosen = list(samples)
    found = map_ordered(_digest_pair, chosen, workers)
    return {sample.image_id: pair for sample, pair in zip(chosen, found, strict=True)}


def _digest_pair(sample: SampleRef) -> PairDigests:
    found: list[str | None] = []
    for read, path in (
        (read_image_file, sample.image_path),
        (read_label_file, sample.label_path),
    ):
        try:
            found.append(sha256_hex(read(path)))
        except DataError:
            found.append(None)
    return found[0], found[1]


def take_over(
    candidates: Iterable[Candidate], now: Mapping[str, PairDigests], staging: Staging
) -> dict[str, FinishedShard]:
    """Bring the right ones among candidates into the staging folder; return them by name."""
    taken: dict[str, FinishedShard] = {}
    for candidate in candidates:
        name = candidate.shard.name
        if name not in taken and candidate.is_of(now):
            finished = _take(candidate, staging)
            if finished is not None:
                taken[name] = finished
    return taken


def _take(candidate: Candidate, staging: Staging) -> FinishedShard | None:
    finished, name = candidate.finished, candidate.shard.name
    if finished.entry is not None:
        entry = finished.entry
        source = next((path for path in candidate.paths if is_unchanged(path, entry)), None)
        if source is None:
            return None
        target = staging.path / name
        if source != target:
            _link(source, target)
        if not finished.statistics:
            finished = _describe(target, candidate)
    finished = finished.named(name)
    staging.describe(name, finished)
    return finished


def _describe(path: Path, candidate: Candidate) -> FinishedShard:
    """Count again what dataset.json does not keep a shard."""
    container = container_of_file(path)
    with container.open_shard(path) as reader:
        records = list(reader)
    return describe_shard(
        candidate.shard, records, candidate.finished.quarantined, path.read_bytes()
    )


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; where the disk cannot, copy it."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
