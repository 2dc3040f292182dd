"""Embeddings of earlier dataset versions, reused where image and recipe agree."""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from vocprep.building.output.store_output import AnyOutput
from vocprep.building.plan import BuildKey
from vocprep.building.stages import Embeddings
from vocprep.data_dir.image_ids import Column
from vocprep.errors import ShardError, UsageError
from vocprep.files.ids import record_order
from vocprep.recipe import Recipe, differing_choices, joined_differences, precision_advice
from vocprep.shards.containers import ProvedShards, ShardReader
from vocprep.shards.version import Version
from vocprep.storage.places import Place
from vocprep.views import draw_alike, is_crop

_TOGETHER = 4096
"""Samples that are read at a time."""
MOST_OPEN = 2
"""Shards of a version that are in memory: records are read in about their stored order."""


class Reuse:
    """Finds embeddings in ``--reuse`` and in the version that a build succeeds.

    ``find`` may be called by several threads.
    """

    def __init__(self, versions: Sequence[StoredEmbeddings]) -> None:
        self.found = 0
        """Records whose embeddings were found."""
        self._versions = versions
        self._lock = threading.Lock()

    @classmethod
    def open(cls, key: BuildKey, output: AnyOutput, reuse: Place | None) -> Self:
        """Open the versions that can hold what a build needs."""
        versions = []
        if reuse is not None:
            versions.append(
                StoredEmbeddings.open_fitting(reuse, key.plan.recipe, key.numerics_class)
            )
        earlier = output.earlier
        if earlier is not None and earlier.index.numerics_class == key.numerics_class:
            with suppress(ShardError):  # its lists are of no use: ``find_existing`` notes it
                versions.append(StoredEmbeddings(output.path, earlier))
        return cls(versions)

    def find(self, record_id: str, image_sha256: str) -> Embeddings | None:
        """Return the embeddings [P, D] of a record of the same image, or None."""
        for number, version in enumerate(self._versions):
            embeddings = version.find(record_id, image_sha256)
            if embeddings is not None:
                with self._lock:
                    self.found += 1
                for other in self._versions[:number]:
                    other.lost.pop(record_id, None)
                return embeddings
        return None

    def notes(self) -> Iterator[str]:
        """Yield a note per version with damaged shards, whose embeddings had to be made again."""
        for version in self._versions:
            if version.lost:
                yield version.note()


class StoredEmbeddings:
    """Finds a record's embeddings in a finished dataset version.

    What it returns agrees with its digest. ``find`` may be called by several threads.
    """

    def __init__(self, path: Place, version: Version, *, crops_are_same: bool = True) -> None:
        """``crops_are_same`` says that crops of its images would be drawn as it has them."""
        self.lost: dict[str, str] = {}
        """Names of shards by the ids of the records that could not be read from them."""
        self._path = path
        self._shards = ProvedShards(path, version.index)
        self._crops_are_same = crops_are_same
        self._places = StoredPlaces.of(version)
        self._readers: OrderedDict[str, ShardReader] = OrderedDict()
        self._damaged: set[str] = set()
        self._lock = threading.Lock()

    @classmethod
    def open_fitting(cls, path: Place, recipe: Recipe, numerics_class: Mapping[str, str]) -> Self:
        """Open a dataset version for ``--reuse``.

        UsageError when its embeddings are not those that the recipe and this machine would make.
        """
        version = Version.read(path)
        index = version.index
        differing = differing_choices(
            {**index.recipe.embedding_choices, "numerics_class": index.numerics_class},
            {**recipe.embedding_choices, "numerics_class": dict(numerics_class)},
        )
        if differing:
            advice = precision_advice(differing, index.recipe.precision)
            raise UsageError(
                f"{path}: its embeddings cannot be reused, they are others than would be made: "
                f"there and here {joined_differences(differing)}; {advice}leave --reuse out"
            )
        is_same = draw_alike(index.recipe.crops, recipe.crops)
        return cls(path, version, crops_are_same=is_same)

    def find(self, record_id: str, image_sha256: str) -> Embeddings | None:
        """Return embeddings [P, D] of a record made of an image with this digest, or None."""
        if not self._crops_are_same and is_crop(record_id):
            return None
        place = self._places.find(record_id, image_sha256)
        if place is None:
            return None
        with self._lock:
            try:
                embeddings = self._read(place, record_id, image_sha256)
            except ShardError:  # damaged: they are computed again
                embeddings = None
            if embeddings is None:
                self.lost[record_id] = place.shard
            return embeddings

    def note(self) -> str:
        """Return in words what was lost, naming the first of the shards."""
        shards = sorted(set(self.lost.values()))
        more = f" and {len(shards) - 1:,} more of its shards" if len(shards) > 1 else ""
        return (
            f"{self._path / shards[0]}{more}: damaged or unreadable: embeddings of "
            f"{len(self.lost):,} records could not be reused and were made again; "
            f"vocprep verify {self._path} shows what is wrong"
        )

    def _read(self, place: StoredPlace, record_id: str, image_sha256: str) -> Embeddings | None:
        shard = self._reader(place.shard)
        if place.row >= len(shard) or shard.image_ids[place.row] != record_id:
            return None
        record = shard.read(place.row)
        found = (record.image_sha256, _prefix(record.embeddings_sha256))
        return record.embeddings if found == (image_sha256, place.embeddings) else None

    def _reader(self, name: str) -> ShardReader:
        if name not in self._readers:
            if name in self._damaged:
                raise ShardError(f"{self._path / name}: damaged")
            self._damaged.add(name)  # until it is open, so that a damaged one is tried once
            self._readers[name] = self._shards.open(name)
            self._damaged.remove(name)
            if len(self._readers) > MOST_OPEN:
                self._readers.popitem(last=False)
        self._readers.move_to_end(name)
        return self._readers[name]


class StoredPlace(NamedTuple):
    """Where a record is."""

    shard: str
    row: int
    embeddings: int
    """The first bytes of the digest of its embeddings."""


class StoredPlaces:
    """Where the records of a version are: 40 bytes each, with ids of VOC's.

    Of each digest the first eight bytes are kept, which tell records from each other; that shards
    are whole, the sha256 of their files tells.
    """

    def __init__(
        self, shards: Sequence[str], record_ids: Column, numbers: NDArray[np.uint64]
    ) -> None:
        self._shards = shards
        self._ids = record_ids
        """[N]: sorted, as UTF-8."""
        self._numbers = numbers
        """[N, 4]: number of the shard, row, first bytes of the digests of image and embeddings."""

    @classmethod
    def of(cls, version: Version) -> Self:
        """Read the places of all records of a version."""
        shards = [shard.name for shard in version.index.shards]
        number_of = {name: number for number, name in enumerate(shards)}
        ids, numbers = [np.array([], dtype="S1")], array("Q")
        samples = version.stream_samples()
        while block := list(islice(samples, _TOGETHER)):
            ids.append(
                np.array([record_order(sample.id).encode() for sample in block], dtype=np.bytes_)
            )
            for sample in block:
                numbers.append(number_of[sample.shard])
                numbers.append(sample.row)
                numbers.append(_prefix(sample.image_sha256))
                numbers.append(_prefix(sample.embeddings_sha256))
        columns = np.array(numbers, dtype=np.uint64).reshape(-1, 4)
        return cls(shards, np.concatenate(ids), columns)

    def find(self, record_id: str, image_sha256: str) -> StoredPlace | None:
        """Return the place of a record that seems to be made of an image with this digest."""
        wanted = record_order(record_id).encode()
        if len(wanted) > self._ids.itemsize:
            return None
        place = int(np.searchsorted(self._ids, np.bytes_(wanted)))
        if place == len(self._ids) or bytes(self._ids[place]) != wanted:
            return None
        shard, row, image, embeddings = map(int, self._numbers[place])
        if image != _prefix(image_sha256):
            return None
        return StoredPlace(self._shards[shard], row, embeddings)


def _prefix(sha256: str) -> int:
    """Return the first eight bytes of a digest as a number; 0 for what is no digest."""
    try:
        return int(sha256[:16], 16)
    except ValueError:  # records of one's own may state anything
        return 0
