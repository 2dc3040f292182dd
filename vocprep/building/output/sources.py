"""Source files digested in the order of their ids, and compared with what they were.

What they were is read on the way, from the lists of finished shards and of versions, which are in
that order too: memory does not grow with the number of samples.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice

from vocprep.building.finish import FinishedShard
from vocprep.building.output.staging import FinishedShards
from vocprep.building.plan import BuildPlan, ShardPlan
from vocprep.data_dir.layout import SampleRef
from vocprep.errors import DataError, ShardError
from vocprep.features.image import read_image_file
from vocprep.files.ids import is_plain
from vocprep.files.writing import sha256_hex
from vocprep.formats.orientations import UPRIGHT, orientation
from vocprep.labels.decode import read_label_file
from vocprep.parallel import map_ordered
from vocprep.shards.index import ShardEntry
from vocprep.shards.record import record_ids_of
from vocprep.shards.samples import PairDigests, QuarantinedSample, Sample, pair_digests
from vocprep.shards.spans import ids_sha256
from vocprep.shards.version import Version
from vocprep.storage.places import Place

_TOGETHER = 32
"""Samples that a thread digests before it takes others."""


def digest_sources(
    shards: Sequence[ShardPlan], workers: int, turned: set[str]
) -> Iterator[tuple[ShardPlan, str, PairDigests]]:
    """Yield the digests of the files of each sample as they are now, in the order of image ids.

    Adds to ``turned`` the ids of images whose metadata state an orientation other than upright.
    """
    for digested in map_ordered(_digest_pairs, _batches(_in_id_order(shards)), workers):
        for shard, image_id, pair, is_turned in digested:
            if is_turned:
                turned.add(image_id)
            yield shard, image_id, pair


def _in_id_order(shards: Sequence[ShardPlan]) -> Iterator[tuple[ShardPlan, SampleRef]]:
    """Yield the samples of planned shards in the order of image ids; within a split, they are."""

    def samples(members: list[ShardPlan]) -> Iterator[tuple[ShardPlan, SampleRef]]:
        return ((shard, sample) for shard in members for sample in shard.samples)

    splits = [list(group) for _, group in groupby(shards, key=lambda shard: shard.split)]
    return heapq.merge(*map(samples, splits), key=lambda item: item[1].image_id)


def _batches(
    samples: Iterator[tuple[ShardPlan, SampleRef]],
) -> Iterator[list[tuple[ShardPlan, SampleRef]]]:
    while batch := list(islice(samples, _TOGETHER)):
        yield batch


def _digest_pairs(
    samples: Sequence[tuple[ShardPlan, SampleRef]],
) -> list[tuple[ShardPlan, str, PairDigests, bool]]:
    return [(shard, sample.image_id, *_digest_pair(sample)) for shard, sample in samples]


def _digest_pair(sample: SampleRef) -> tuple[PairDigests, bool]:
    """Return the digests of a sample's files, and whether its image states an orientation."""
    image = _read(read_image_file, sample.image_path)
    label = _read(read_label_file, sample.label_path)
    image_sha256, label_sha256 = (
        None if data is None else sha256_hex(data) for data in (image, label)
    )
    return (image_sha256, label_sha256), orientation(image or b"") != UPRIGHT


def _read(read: Callable[[Place], bytes], path: Place) -> bytes | None:
    try:
        return read(path)
    except DataError:
        return None


class StagedShards:
    """Shards of an interrupted run that hold the images of planned ones."""

    def __init__(self, plan: BuildPlan, staging: FinishedShards) -> None:
        staged = {
            (shard.split, shard.ids_sha256): (name, shard) for name, shard in staging.shards()
        }
        planned = plan.shards if staged else ()
        keys = {shard.name: (shard.split, ids_sha256(shard.image_ids())) for shard in planned}
        self._found = {name: staged[key] for name, key in keys.items() if key in staged}
        self._changed: set[str] = set()
        """Planned shards whose source files are others now."""
        self._open: dict[str, tuple[str, dict[str, PairDigests]]] = {}
        """By split: the planned shard of the last sample, and what it was made of by image id."""
        self._staging = staging

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def compare(self, shard: ShardPlan, image_id: str, sources: PairDigests) -> None:
        """Compare the files of a planned sample with those that were; in the order of ids."""
        if shard.name not in self._found or shard.name in self._changed:
            return
        name, stored = self._open.get(shard.split, ("", {}))
        if name != shard.name:
            stored = self._made_of(shard.name)
            self._open[shard.split] = (shard.name, stored)
        if None in sources or stored.get(image_id) != sources:
            self._changed.add(shard.name)

    def find(self, name: str) -> tuple[str, FinishedShard] | None:
        """Return the shard that was made of the files of a planned one, and its name there."""
        return None if name in self._changed else self._found.get(name)

    def _made_of(self, name: str) -> dict[str, PairDigests]:
        """Return the digests of a shard's source files by image id; none of a damaged one."""
        staged_name, shard = self._found[name]
        try:
            lines = self._staging.samples(staged_name, shard).lines()
            return pair_digests(sample for sample, _ in lines)
        except ShardError:
            return {}


class PublishedShards:
    """Shards of a finished version that hold the images of planned ones.

    Without ``mixable``, none of its shards may be part of another version.
    """

    def __init__(self, plan: BuildPlan, version: Version | None, *, mixable: bool) -> None:
        self.problem: ShardError | None = None
        """Why the version's list of samples is of no use."""
        self._samples = _InOrder(() if version is None else image_samples(version))
        self._is_same = version is not None
        self._found: dict[str, tuple[ShardEntry, tuple[QuarantinedSample, ...]]] = {}
        """By planned shard: the stored one, and the quarantined samples of the planned one."""
        self._changed: set[str] = set()
        if version is None or not mixable:
            return
        try:
            spans = version.spans
            bad = {sample.id: sample for sample in version.quarantined}
        except ShardError as error:
            self._give_up(error)
            return
        shards = version.index.shards
        stored = {(shard.split, spans[shard.name].ids_sha256): shard for shard in shards}
        for shard in plan.shards:
            made = (image_id for image_id in shard.image_ids() if image_id not in bad)
            record_ids = record_ids_of(made, plan.recipe.record_views)
            entry = stored.get((shard.split, ids_sha256(record_ids)))
            if entry is not None:
                own = [bad[image_id] for image_id in shard.image_ids() if image_id in bad]
                self._found[shard.name] = (entry, tuple(own))

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def compare(self, shard: ShardPlan, image_id: str, sources: PairDigests) -> None:
        """Compare the files of a planned sample with those that were; in the order of ids."""
        if self.problem:
            return
        try:
            sample = self._samples.find(image_id)
        except ShardError as error:
            self._give_up(error)
            return
        is_same = sample is not None and (sample.image_sha256, sample.label_sha256) == sources
        self._is_same = self._is_same and is_same
        if None in sources or not is_same:
            self._changed.add(shard.name)

    def find(self, name: str) -> tuple[ShardEntry, tuple[QuarantinedSample, ...]] | None:
        """Return the shard that was made of the files of a planned one, and what is quarantined."""
        return None if name in self._changed else self._found.get(name)

    def are_same(self) -> bool:
        """Return whether the version was made of the files that were compared, and of no others."""
        try:
            return self._is_same and self._samples.are_all_found()
        except ShardError as error:
            self._give_up(error)
            return False

    def _give_up(self, error: ShardError) -> None:
        """Reuse nothing of a version whose lists have their digests and cannot be read."""
        self.problem = error
        self._found, self._is_same = {}, False


class _InOrder:
    """Finds samples in an iterator in the order of ids."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = iter(samples)
        self._next: Sample | None = None
        self._passed_over = False

    def find(self, image_id: str) -> Sample | None:
        """Return the sample of an id, which follows those of the calls before."""
        if self._next is None:
            self._next = next(self._samples, None)
        while self._next is not None and self._next.id < image_id:
            self._passed_over = True
            self._next = next(self._samples, None)
        if self._next is None or self._next.id != image_id:
            return None
        found, self._next = self._next, None
        return found

    def are_all_found(self) -> bool:
        """Return whether there was no sample that was not looked for."""
        is_at_end = self._next is None and next(self._samples, None) is None
        return is_at_end and not self._passed_over


def image_samples(version: Version) -> Iterator[Sample]:
    """Yield one sample per image of a version, in id order."""
    return (sample for sample in version.stream_all() if is_plain(sample.id))
