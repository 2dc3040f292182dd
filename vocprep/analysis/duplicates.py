"""Pictures that a version holds more than once: the same image, or nearly the same, by embeddings.

Two pictures are compared patch by patch: the similarity is the cosine between all of their
standardised embeddings, so that it needs the same content in the same places. Different photographs
reach 0.5 in embeddings of a ResNet-32, one beside itself without 1 % at each side 0.74 and more.

Shape legend: N pictures of one grid, P patches, D embedding, S numbers of a sketch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from heapq import nlargest
from itertools import combinations, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.analysis.finite import finite
from vocprep.files.ids import image_id_of, is_plain
from vocprep.geometry import Grid
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record
from vocprep.shards.samples import SampleEntry
from vocprep.views import ViewChoice, is_chosen

MOST_PAIRS = 500
"""Similar pairs that are kept, the most similar ones."""
_MOST_CANDIDATES = 2 * MOST_PAIRS
_LEAST_THRESHOLD, _MOST_THRESHOLD = 0.6, 0.95
_DEVIATIONS = 6.0
"""How far a near duplicate is from what is usual among a few of the nearest of each picture."""
_USUAL_RANK = 10
"""Which of the nearest of a picture is a usual one: a few before it may all be duplicates."""
_SKETCH = 1024
_SKETCH_ERROR = 0.1
"""More than three standard deviations of the product of two sketches."""
_MOMENT_RECORDS = 256
"""Records of each split that the moments of embeddings are taken from."""
_BLOCK = 512
_SEED = 15
_COMPARED: ViewChoice = ("flip",)
"""Views that are compared beside the plain one."""


@dataclass(frozen=True, kw_only=True)
class SamePictures:
    """Records of the same picture, under several ids."""

    ids: tuple[str, ...]
    splits: tuple[str, ...]
    """Of each of them."""
    same_file: bool
    """Whether the image files have the same bytes; else only the embeddings are the same."""
    same_labels: bool
    """Whether the label maps are the same too."""


@dataclass(frozen=True, kw_only=True)
class SimilarPair:
    """Two records of nearly the same picture; the second may be a mirrored view."""

    ids: tuple[str, str]
    splits: tuple[str, str]
    similarity: float
    """Cosine between the standardised embeddings of all patches."""


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """The pictures that a version holds more than once."""

    same: tuple[SamePictures, ...]
    """By their first ids."""
    similar: tuple[SimilarPair, ...]
    """Pairs that are not among ``same``, most similar first."""
    is_cut: bool
    """Whether there may be more than the ``MOST_PAIRS`` in ``similar``."""
    threshold: float | None
    """Least similarity of a similar pair; None where they were not looked for."""

    @property
    def leaks(self) -> tuple[SamePictures | SimilarPair, ...]:
        """What is in more than one split: scores on one of them are too good."""
        found: tuple[SamePictures | SimilarPair, ...] = (*self.same, *self.similar)
        return tuple(each for each in found if len(set(each.splits)) > 1)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def find_same(dataset: ShardDataset) -> Duplicates:
    """Return the pictures whose files or embeddings are the same, by the lists of samples alone."""
    samples = dataset.version.stream_samples()
    same = _same_pictures(entry for entry in samples if is_plain(entry.id))
    return Duplicates(same=same, similar=(), is_cut=False, threshold=None)


def find_duplicates(
    dataset: ShardDataset, threshold: float | None = None, progress: Progress = NO_PROGRESS
) -> Duplicates:
    """Return the pictures that a version holds more than once, within splits and across them.

    Pictures with the same grid are compared, each with each; views that are mirrored are compared
    with those that are not, crops with none. ``threshold`` is the least similarity of a near
    duplicate; when None it is well above what is usual among the most similar pairs of this
    version, and from 0.6 to 0.95.
    """
    entries = [each for each in dataset.version.stream_samples() if is_chosen(each.id, _COMPARED)]
    same = _same_pictures(entry for entry in entries if is_plain(entry.id))
    known = {pair for group in same for pair in combinations(sorted(group.ids), 2)}
    standardise = _Standardise.of(dataset)
    progress.begin("similar pictures", 2 * len(entries), 0)
    try:
        sketches = _sketch_all(dataset, standardise, progress)
        least = _usual_threshold(sketches) if threshold is None else threshold
        found = _candidates(sketches, least - _SKETCH_ERROR)
        candidates = [pair for pair in found if tuple(sorted(map(_plain, pair))) not in known]
        pairs = _measure(dataset, entries, candidates, standardise)
    finally:
        progress.end()
    similar = [pair for pair in pairs if pair.similarity >= least]
    return Duplicates(
        same=same,
        similar=tuple(similar[:MOST_PAIRS]),
        is_cut=len(similar) > MOST_PAIRS or len(found) == _MOST_CANDIDATES,
        threshold=round(least, 4),
    )


def _same_pictures(entries: Iterable[SampleEntry]) -> tuple[SamePictures, ...]:
    """Return the groups of samples with the same image file or the same embeddings."""
    by_file: dict[str, list[SampleEntry]] = defaultdict(list)
    by_embeddings: dict[str, list[SampleEntry]] = defaultdict(list)
    for entry in entries:
        by_file[entry.image_sha256].append(entry)
        by_embeddings[entry.embeddings_sha256].append(entry)
    groups = [group for group in by_file.values() if len(group) > 1]
    groups += [
        group for group in by_embeddings.values() if len({each.image_sha256 for each in group}) > 1
    ]
    found = [
        SamePictures(
            ids=tuple(each.id for each in group),
            splits=tuple(each.split for each in group),
            same_file=len({each.image_sha256 for each in group}) == 1,
            same_labels=len({each.targets_sha256 for each in group}) == 1,
        )
        for group in groups
    ]
    return tuple(sorted(found, key=lambda group: group.ids))


class _Sketches:
    """Short vectors [N, S] of the pictures of one grid, with nearly the products of the long ones.

    Each of the S numbers is the sum of a few components of [P·D] with random signs, each component
    in one of them.
    """

    def __init__(self, size: int) -> None:
        random = np.random.default_rng([_SEED, size])
        padded = size if size <= _SKETCH else -(-size // _SKETCH) * _SKETCH
        self._signs = random.choice(np.array([-1, 1], dtype=np.float32), padded)
        self._order = random.permutation(padded)
        self._rows: list[NDArray[np.float32]] = []
        self.ids: list[str] = []
        self.nearest = np.zeros(0, dtype=np.float32)
        """The largest product of each picture with another one; −1 where there is none."""
        self.usual = np.zeros(0, dtype=np.float32)
        """That with its ``_USUAL_RANK``-th nearest, in few pictures with that of a quarter."""

    def add(self, record_id: str, vector: NDArray[np.float32]) -> None:
        """Add a picture's vector of length 1."""
        padded = np.zeros(len(self._order), dtype=np.float32)
        padded[: len(vector)] = vector
        mixed = (padded * self._signs)[self._order]
        sketch = mixed.reshape(min(len(mixed), _SKETCH), -1).sum(axis=1)
        self.ids.append(record_id)
        self._rows.append(sketch / max(float(np.linalg.norm(sketch)), 1e-12))

    def find_nearest(self, progress: Progress) -> None:
        """Set ``nearest`` and ``usual``."""
        ranks = len(self.ids) - np.array([min(_USUAL_RANK, -(-len(self.ids) // 4)), 1])
        found = []
        for _, products in self._products(np.arange(len(self.ids))):
            found.append(np.partition(products, ranks, axis=1)[:, ranks])
            progress.advance(len(products))
        self.usual, self.nearest = np.concatenate(found).T

    def pairs(self, least: float) -> Iterator[tuple[float, str, str]]:
        """Yield the pairs with such a product, each pair once."""
        for rows, products in self._products(np.flatnonzero(self.nearest >= least)):
            for row, column in np.argwhere(products >= least):
                one, other = self.ids[rows[row]], self.ids[column]
                if _plain(one) < _plain(other):
                    yield float(products[row, column]), one, other

    def _products(
        self, rows: NDArray[np.intp]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Yield rows and their products [·, N]; −1 with themselves, and of a mirrored view."""
        table = np.stack(self._rows)
        plain = np.array([_plain(record_id) for record_id in self.ids])
        mirrored = np.array([not is_plain(record_id) for record_id in self.ids])
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            products = table[block] @ table.T
            products[mirrored[block]] = -1
            products[plain[block, None] == plain] = -1
            yield block, products


def _sketch_all(
    dataset: ShardDataset, standardise: _Standardise, progress: Progress
) -> list[_Sketches]:
    """Return the sketches of all records but crops, those of each grid together."""
    sketches: dict[Grid, _Sketches] = {}
    for shard in dataset.index.shards:
        for record in dataset.read_shard(shard.name, all_views=_COMPARED):
            vector = standardise.vector(record.embeddings)
            if record.grid not in sketches:
                sketches[record.grid] = _Sketches(len(vector))
            sketches[record.grid].add(record.image_id, vector)
            progress.advance(1)
    for sketch in sketches.values():
        sketch.find_nearest(progress)
    return list(sketches.values())


@dataclass(frozen=True)
class _Standardise:
    """Mean and deviation [D] of embeddings."""

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def of(cls, dataset: ShardDataset) -> _Standardise:
        """Return the moments of the first records of each split, however shards are cut."""
        patches = [
            finite(record.embeddings).astype(np.float64)
            for split in sorted({shard.split for shard in dataset.index.shards})
            for record in islice(_read_split(dataset, split), _MOMENT_RECORDS)
        ]
        stacked = np.concatenate(patches)
        deviation = stacked.std(axis=0)
        deviation[deviation == 0] = 1
        return cls(stacked.mean(axis=0).astype(np.float32), deviation.astype(np.float32))

    def vector(self, embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the standardised embeddings of all patches [P·D] as one vector of length 1."""
        standardised = (finite(embeddings) - self.mean) / self.deviation
        vector: NDArray[np.float32] = standardised.ravel()
        return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _read_split(dataset: ShardDataset, split: str) -> Iterator[Record]:
    for name in dataset.shard_names(split):
        yield from dataset.read_shard(name)


def _usual_threshold(sketches: Sequence[_Sketches]) -> float:
    """Return the similarity far above that of most pictures to the similar ones of each."""
    usual = np.concatenate([sketch.usual for sketch in sketches])
    usual = usual[usual > -1]
    if not len(usual):
        return _MOST_THRESHOLD
    median = float(np.median(usual))
    deviation = 1.4826 * float(np.median(np.abs(usual - median)))
    return min(max(median + _DEVIATIONS * deviation, _LEAST_THRESHOLD), _MOST_THRESHOLD)


def _candidates(sketches: Sequence[_Sketches], least: float) -> list[tuple[str, str]]:
    """Return the pairs of record ids that may have this similarity, the likeliest first."""
    found = nlargest(
        _MOST_CANDIDATES, (pair for sketch in sketches for pair in sketch.pairs(least))
    )
    return [(one, other) for _, one, other in found]


def _measure(
    dataset: ShardDataset,
    entries: Sequence[SampleEntry],
    candidates: Sequence[tuple[str, str]],
    standardise: _Standardise,
) -> list[SimilarPair]:
    """Return candidates with their similarities, most similar first."""
    wanted = {record_id for pair in candidates for record_id in pair}
    samples = {entry.id: entry for entry in entries if entry.id in wanted}
    by_shard = sorted(samples.values(), key=lambda entry: (entry.shard, entry.row))
    embeddings = {
        sample.id: record.embeddings.copy()
        for sample, record in dataset.version.records(dataset.path, by_shard)
    }
    pairs = []
    for one, other in candidates:
        product = standardise.vector(embeddings[one]) @ standardise.vector(embeddings[other])
        splits = samples[one].split, samples[other].split
        similarity = round(float(product), 4)
        pairs.append(SimilarPair(ids=(one, other), splits=splits, similarity=similarity))
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.ids))


def _plain(record_id: str) -> str:
    return image_id_of(record_id)
