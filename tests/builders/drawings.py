"""What each rank draws in an epoch, by plain lists: the definition in other words."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from vocprep.options import LoaderOptions

Place = tuple[int, int]
"""Shard and row of a record."""


@dataclass(frozen=True)
class Drawing:
    """A split by the sizes of its shards, and how it is drawn."""

    sizes: list[int]
    lanes: int
    batch_size: int
    world_size: int
    shuffle: bool
    seed: int
    epoch: int

    def options(self, rank: int = 0, **changes: object) -> LoaderOptions:
        options = {
            "lanes": self.lanes,
            "batch_size": self.batch_size,
            "world_size": self.world_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "rank": rank,
        }
        return LoaderOptions(**{**options, **changes})  # type: ignore[arg-type]

    def stored(self) -> list[Place]:
        return [(shard, row) for shard, size in enumerate(self.sizes) for row in range(size)]

    def order(self) -> list[Place]:
        """Shards permuted, and the records of each."""
        order = []
        for shard in self._permuted(len(self.sizes), 0):
            order += [(shard, row) for row in self._permuted(self.sizes[shard], 1 + shard)]
        return order

    def _permuted(self, count: int, stream: int) -> list[int]:
        if not self.shuffle:
            return list(range(count))
        rng = np.random.default_rng([self.seed, self.epoch, stream])
        return rng.permutation(count).tolist()

    def lane_lists(self) -> list[list[Place]]:
        """Consecutive lanes, as long as the hands of that many players are when cards are dealt."""
        order, count = self.order(), min(self.lanes, len(self.sizes))
        lanes = []
        for lane in range(count):
            length = len(range(lane, sum(self.sizes), count))
            lanes.append(order[:length])
            order = order[length:]
        return lanes

    def epoch_with_lanes(self) -> list[tuple[Place, int]]:
        """Every record with its lane: one of each lane in turn, while it has any."""
        lanes, epoch = self.lane_lists(), []
        while any(lanes):
            for number, lane in enumerate(lanes):
                if lane:
                    epoch.append((lane.pop(0), number))
        return epoch

    def batches(self) -> list[list[Place]]:
        return [[place for place, _ in batch] for batch in self._batches_with_lanes()]

    def _batches_with_lanes(self) -> list[list[tuple[Place, int]]]:
        epoch, size = self.epoch_with_lanes(), self.batch_size
        return [epoch[start : start + size] for start in range(0, len(epoch), size)]

    def ranks_of(self, lane: int) -> list[int]:
        """One rank for each lane, or as many as there are where ranks outnumber lanes."""
        lanes = len(self.lane_lists())
        if self.world_size <= lanes:
            return [lane % self.world_size]
        shares = [Fraction(rank * lanes, self.world_size) for rank in range(self.world_size)]
        return [rank for rank, share in enumerate(shares) if lane <= share < lane + 1]

    def rank_batches(self) -> list[list[list[Place]]]:
        """Each rank's part of every batch; the ranks of one lane take its records in turn."""
        found: list[list[list[Place]]] = [[] for _ in range(self.world_size)]
        for batch in self._batches_with_lanes():
            parts: list[list[Place]] = [[] for _ in range(self.world_size)]
            queues = {lane: list(self.ranks_of(lane)) for _, lane in batch}
            for place, lane in batch:
                rank = queues[lane].pop(0)
                queues[lane].append(rank)
                parts[rank].append(place)
            for rank, part in enumerate(parts):
                found[rank].append(part)
        return found

    def reads(self, rank: int, first: int = 0) -> list[int]:
        """Shards of a rank's lanes in the order of need, from a batch on; each once per lane."""
        batches = self._batches_with_lanes()[first:]
        pairs = [(lane, shard) for batch in batches for (shard, _), lane in batch]
        return [shard for lane, shard in dict.fromkeys(pairs) if rank in self.ranks_of(lane)]


def drawings() -> st.SearchStrategy[Drawing]:
    return st.builds(
        Drawing,
        sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6),
        lanes=st.integers(1, 6),
        batch_size=st.integers(1, 9),
        world_size=st.integers(1, 5),
        shuffle=st.booleans(),
        seed=st.integers(0, 3),
        epoch=st.integers(0, 3),
    )
