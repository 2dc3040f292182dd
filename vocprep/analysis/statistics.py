"""Counts over the records of a split: pixels by class, labels by patch, void, what slots leave out.

Mirrored views are not counted: they hold the pixels of their pictures again.

Shape legend: P patches, C classes.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vocprep.labels.statistics import label_areas
from vocprep.labels.targets import PIXELS, SLOTS, STATE_OTHER, unpack_states
from vocprep.placement import split_patches
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record

_WORST = 50
"""Pictures of the most void that are kept by id."""


@dataclass
class SplitStatistics:
    """Counts of one split, added up record by record; memory grows by 4 bytes per picture."""

    split: str
    void: int
    """Id of void in the label space."""
    pictures: int = 0
    patches: int = 0
    pixels: int = 0
    void_pixels: int = 0
    pixels_of: Counter[int] = field(default_factory=Counter)
    """Class id → pixels."""
    pictures_of: Counter[int] = field(default_factory=Counter)
    """Class id → pictures that hold it."""
    left_out_of: Counter[int] = field(default_factory=Counter)
    """Class id → pixels that are not among the four largest classes of their patch."""
    patches_by_labels: Counter[int] = field(default_factory=Counter)
    """Number of classes → patches that hold so many; 255 stands for 255 and more."""
    void_shares: array[float] = field(default_factory=lambda: array("f"))
    """Share of each picture's pixels that is void, in the order of the records."""
    _most_void: list[tuple[float, str]] = field(default_factory=list)
    """A heap of the pictures with the most void."""

    def __repr__(self) -> str:
        return (
            f"SplitStatistics({self.split}: {self.pictures:,} pictures, {self.patches:,} patches, "
            f"{len(self.pixels_of)} classes)"
        )

    def add(self, record: Record) -> None:
        """Count one record."""
        label_map = record.decode_label_map()
        areas = label_areas(label_map)
        void_pixels = areas.pop(self.void, 0)
        self.pictures += 1
        self.patches += len(record.label_count)
        self.pixels += label_map.size
        self.void_pixels += void_pixels
        self.pixels_of.update(areas)
        self.pictures_of.update(areas.keys())
        self.patches_by_labels.update(record.label_count.tolist())
        self.left_out_of.update(_left_out(record, label_map))
        share = void_pixels / label_map.size
        self.void_shares.append(share)
        keep = heapq.heappush if len(self._most_void) < _WORST else heapq.heappushpop
        keep(self._most_void, (share, _Reversed(record.image_id)))

    @property
    def labelled_pixels(self) -> int:
        """Pixels that are not void."""
        return self.pixels - self.void_pixels

    @property
    def left_out(self) -> int:
        """Pixels of classes that are not among the four largest of their patch."""
        return self.left_out_of.total()

    @property
    def crowded_patches(self) -> int:
        """Patches of more classes than there are slots."""
        return sum(count for labels, count in self.patches_by_labels.items() if labels > SLOTS)

    @property
    def most_void(self) -> list[tuple[str, float]]:
        """Ids of the pictures with the most void and its shares, the largest first."""
        return [(str(key), share) for share, key in sorted(self._most_void, reverse=True) if share]


class _Reversed(str):
    """An id whose order is reversed, so that of equal shares the first ids stay in a heap."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)


def count_split(
    dataset: ShardDataset, split: str, progress: Progress = NO_PROGRESS
) -> SplitStatistics:
    """Return the counts of a split, whose records are read one at a time."""
    statistics = SplitStatistics(split=split, void=dataset.label_space.void)
    progress.begin(split, dataset.count(split), 0)
    try:
        for record in records_of(dataset, split):
            statistics.add(record)
            progress.advance(1)
    finally:
        progress.end()
    return statistics


def records_of(dataset: ShardDataset, split: str) -> Iterator[Record]:
    """Yield the records of a split one at a time, mirrored views left out."""
    names = dataset.shard_names(split)
    for number, name in enumerate(names):
        dataset.prefetch(names[number + 1 : number + 2])
        yield from dataset.read_shard(name)


def _left_out(record: Record, label_map: NDArray[np.uint16]) -> dict[int, int]:
    """Return the pixels, by class id, that are in no slot of their patch."""
    crowded = record.label_count > SLOTS
    if not crowded.any():
        return {}
    pixels = split_patches(label_map).reshape(-1, PIXELS)[crowded]
    return label_areas(pixels[unpack_states(record.slot_planes[crowded]) == STATE_OTHER])
