"""The pixels of each class in each picture of a version, read from its label maps in one pass.

Shape legend: N pictures of the catalogue, E entries: a class in a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vocprep.labels.statistics import label_areas
from vocprep.pages.viewer.shown.background import Task
from vocprep.pages.viewer.shown.catalogue import Catalogue
from vocprep.shards.reader import ShardDataset


class _Entries(NamedTuple):
    """The entries of one shard."""

    places: NDArray[np.int32]
    ids: NDArray[np.uint16]
    pixels: NDArray[np.int64]


class ClassAreas:
    """Sparse columns that fill while shards are read; void is among the classes."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._shards: list[_Entries] = []
        self._shard = np.full(len(catalogue), -1, dtype=np.int32)
        self._first = np.zeros(len(catalogue), dtype=np.int32)
        self._count = np.zeros(len(catalogue), dtype=np.int32)

    def read(self, dataset: ShardDataset, task: Task[ClassAreas]) -> ClassAreas:
        """Read every shard; ShardError where one is damaged."""
        names = [shard.name for shard in dataset.index.shards]
        for number, name in enumerate(names):
            dataset.prefetch(names[number + 1 : number + 2])
            self._add(name, dataset, task)
        return self

    def _add(self, name: str, dataset: ShardDataset, task: Task[ClassAreas]) -> None:
        places, ids, pixels = [], [], []
        for record in dataset.read_shard(name):
            place = self._catalogue.place(record.image_id)
            areas = label_areas(record.decode_label_map())
            ordered = sorted(areas.items(), key=lambda item: (-item[1], item[0]))
            places += [place] * len(ordered)
            ids += [class_id for class_id, _ in ordered]
            pixels += [count for _, count in ordered]
            task.advance(1)
        entries = _Entries(
            np.array(places, dtype=np.int32),
            np.array(ids, dtype=np.uint16),
            np.array(pixels, dtype=np.int64),
        )
        starts = np.flatnonzero(np.diff(entries.places, prepend=-1))
        own = entries.places[starts]
        self._first[own] = starts
        self._count[own] = np.diff(starts, append=len(places))
        self._shards.append(entries)
        self._shard[own] = len(self._shards) - 1  # last: other threads read meanwhile

    def of(self, place: int) -> list[tuple[int, int]]:
        """Return (class id, pixels) of a picture, the largest first; none while it is not read."""
        shard = int(self._shard[place])
        if shard < 0:
            return []
        entries, first = self._shards[shard], int(self._first[place])
        span = slice(first, first + int(self._count[place]))
        return list(zip(entries.ids[span].tolist(), entries.pixels[span].tolist(), strict=True))

    def pixels_of(self, class_id: int) -> NDArray[np.int64]:
        """Return the pixels of a class in each picture [N]."""
        pixels = np.zeros(len(self._catalogue), dtype=np.int64)
        for entries in self._shards:
            chosen = entries.ids == class_id
            pixels[entries.places[chosen]] = entries.pixels[chosen]
        return pixels

    def totals(self, chosen: NDArray[np.bool_]) -> Iterator[tuple[int, int, int]]:
        """Yield (class id, pixels, pictures) over the chosen pictures [N], by id."""
        ids, pixels = [], []
        for entries in self._shards:
            own = chosen[entries.places]
            ids.append(entries.ids[own])
            pixels.append(entries.pixels[own])
        if not ids:
            return
        all_ids = np.concatenate(ids)
        sums = np.bincount(all_ids, weights=np.concatenate(pixels))  # exact below 2**53
        counts = np.bincount(all_ids)
        for class_id in np.flatnonzero(counts).tolist():
            yield class_id, int(sums[class_id]), int(counts[class_id])
