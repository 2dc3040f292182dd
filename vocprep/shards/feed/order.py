"""The order of an epoch, its batches, and which records of them a rank draws.

The order is a permutation of the shards, and one of the records of each shard, from seed and epoch.
It is cut into ``lanes`` consecutive lanes, whose lengths differ by one at most, the longer ones
first. An epoch draws from the lanes in turn: its position p is record p div lanes of lane p mod
lanes. Each ``batch_size`` positions are a batch. Nothing of this depends on the number of ranks:
they only share out the lanes among themselves, or where they are more than lanes, the records of
each lane.

Shape legend: S shards, N records of an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from math import ceil
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vocprep.options import LoaderOptions

Ints = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Which places of an epoch's order each batch takes, and which of these this rank draws.

    The same for every epoch of a split.
    """

    records: int
    lanes: int
    batch_size: int
    rank: int
    world_size: int

    @classmethod
    def of(cls, shard_sizes: Sequence[int], options: LoaderOptions) -> Self:
        """Return the plan of a split; it has at most as many lanes as shards."""
        return cls(
            records=sum(shard_sizes),
            lanes=min(options.lanes, len(shard_sizes)),
            batch_size=options.batch_size,
            rank=options.rank,
            world_size=options.world_size,
        )

    @property
    def batches(self) -> int:
        """Batches of an epoch, the same number for every rank."""
        return ceil(self.records / self.batch_size)

    def batch_sizes(self) -> list[int]:
        """Return the records of each batch, those of all ranks together."""
        starts = range(0, self.records, self.batch_size)
        return [min(self.batch_size, self.records - start) for start in starts]

    def first_place(self, lane: int) -> int:
        """Return where in the order a lane begins; that of lane ``lanes`` is the order's end."""
        return lane * (self.records // self.lanes) + min(lane, self.records % self.lanes)

    @property
    def own_lanes(self) -> range:
        """Lanes that this rank reads.

        Lanes l with l mod world_size = rank. With more ranks than lanes, one lane, which it shares
        with the ranks beside it, so that those of one machine read few of them.
        """
        if self.world_size <= self.lanes:
            return range(self.rank, self.lanes, self.world_size)
        lane = self.rank * self.lanes // self.world_size
        return range(lane, lane + 1)

    def drawn(self, first: int, last: int) -> Ints:
        """Return which of the epoch's positions ``first`` to ``last`` − 1 this rank draws."""
        positions: Ints = np.arange(first, last)
        if self.world_size == 1:
            return positions
        lanes = positions % self.lanes
        if self.world_size <= self.lanes:
            own: Ints = positions[lanes % self.world_size == self.rank]
            return own
        (lane,) = self.own_lanes
        # The ranks of a lane take turns, beginning anew with each batch.
        sharers = [-(-each * self.world_size // self.lanes) for each in (lane, lane + 1)]
        turns = positions % self.batch_size // self.lanes % (sharers[1] - sharers[0])
        shared: Ints = positions[(lanes == lane) & (turns == self.rank - sharers[0])]
        return shared

    def places(self, positions: Ints) -> Ints:
        """Return where in the order the records of some positions of the epoch are."""
        if self.lanes == 1:
            return positions
        length, longer = divmod(self.records, self.lanes)
        lanes = positions % self.lanes
        return lanes * length + np.minimum(lanes, longer) + positions // self.lanes


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What a lane holds of one shard."""

    lane: int
    turn: int
    """Which of the order's shards it is, from 0."""
    shard: int
    """Number of the shard within its split."""
    first: int
    """Place in the order of the first record."""
    last: int
    """Place after that of the last record."""


class EpochOrder:
    """The order of one epoch; its records are permuted when they are needed."""

    def __init__(self, shard_sizes: Sequence[int], options: LoaderOptions, epoch: int) -> None:
        self._sizes, self._options, self._epoch = shard_sizes, options, epoch
        self._shards = self._permutation(len(shard_sizes), stream=0)
        sizes = np.asarray(shard_sizes, dtype=np.intp)[self._shards]
        self._starts: Ints = np.concatenate([np.zeros(1, np.intp), sizes.cumsum()])

    def _permutation(self, count: int, stream: int) -> Ints:
        """Return numbers as stored, or in an order from (seed, epoch, stream)."""
        if not self._options.shuffle:
            return np.arange(count)
        generator = np.random.default_rng([self._options.seed, self._epoch, stream])
        return generator.permutation(count)

    def rows(self, piece: Piece) -> Ints:
        """Return the records of a piece within their shard, in the order in which they come."""
        start = int(self._starts[piece.turn])
        return self._shard_rows(piece.shard)[piece.first - start : piece.last - start]

    def _shard_rows(self, shard: int) -> Ints:
        return self._permutation(self._sizes[shard], stream=1 + shard)

    def all_rows(self) -> Ints:
        """Return the whole order [N], of records numbered as stored, shard after shard."""
        stored = np.cumsum([0, *self._sizes])
        return np.concatenate([stored[n] + self._shard_rows(n) for n in self._shards.tolist()])

    def turns(self, places: Ints) -> Ints:
        """Return which of the order's shards the records at some places are in."""
        return np.searchsorted(self._starts, places, side="right") - 1

    def pieces(self, plan: BatchPlan, position: int = 0) -> Iterator[Piece]:
        """Yield what this rank reads from a position of the epoch on, in the order of need."""
        lanes = [self._lane_pieces(plan, lane, position) for lane in plan.own_lanes]
        yield from merge(
            *lanes,
            key=lambda piece: (piece.first - plan.first_place(piece.lane), piece.lane),
        )

    def _lane_pieces(self, plan: BatchPlan, lane: int, position: int) -> Iterator[Piece]:
        before = len(range(lane, position, plan.lanes))
        first, end = plan.first_place(lane) + before, plan.first_place(lane + 1)
        turn = int(self.turns(np.array(first)))
        while first < end:
            last = min(end, int(self._starts[turn + 1]))
            if first < last:
                shard = int(self._shards[turn])
                yield Piece(lane=lane, turn=turn, shard=shard, first=first, last=last)
            first, turn = last, turn + 1


def epoch_order(shard_sizes: Sequence[int], options: LoaderOptions, epoch: int) -> Ints:
    """Return what this rank draws in an epoch, its records numbered as stored, shard after shard.

    >>> epoch_order([3, 2, 3], LoaderOptions(lanes=2), epoch=0).tolist()
    [0, 4, 1, 5, 2, 6, 3, 7]
    >>> epoch_order([3, 2, 3], LoaderOptions(lanes=2, rank=1, world_size=2), epoch=0).tolist()
    [4, 5, 6, 7]
    """
    plan = BatchPlan.of(shard_sizes, options)
    places = plan.places(plan.drawn(0, plan.records))
    return EpochOrder(shard_sizes, options, epoch).all_rows()[places]


def batch_bounds(shard_sizes: Sequence[int], options: LoaderOptions) -> list[int]:
    """Return where an epoch's batches begin and end in what this rank draws.

    Every rank has the same number of batches, of which some may be empty.

    >>> batch_bounds([9], LoaderOptions(batch_size=4))
    [0, 4, 8, 9]
    >>> batch_bounds([9], LoaderOptions(batch_size=4, rank=1, world_size=2))
    [0, 2, 4, 4]
    """
    plan = BatchPlan.of(shard_sizes, options)
    ends = np.minimum(np.arange(plan.batches + 1) * plan.batch_size, plan.records)
    bounds: list[int] = np.searchsorted(plan.drawn(0, plan.records), ends).tolist()
    return bounds
