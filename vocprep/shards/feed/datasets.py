"""PyTorch datasets over a split: held in memory, or read shard by shard.

Either draws in the order of ``vocprep.shards.feed.order``, a function of seed, epoch and lanes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from numbers import Integral
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from vocprep.errors import UsageError
from vocprep.options import LoaderOptions, usable_cores
from vocprep.parallel import map_ordered
from vocprep.progress import NO_PROGRESS, Progress, advancing, task
from vocprep.shards.columns import Columns
from vocprep.shards.feed.batches import Batch, PatchTable, with_label_maps
from vocprep.shards.feed.gathering import BatchPart, listed
from vocprep.shards.feed.order import BatchPlan, EpochOrder, Ints, Piece, epoch_order
from vocprep.shards.record import Record
from vocprep.validation import LARGEST, printable
from vocprep.views import ViewChoice

Item = TypeVar("Item")

LAST_EPOCH = LARGEST
_MOST_READERS = 4
"""Threads that read a split into memory."""


class ShardSource(Protocol):
    """The shards that records are drawn from: ``vocprep.shards.reader.ShardDataset`` is one."""

    @property
    def content_id(self) -> str:
        """Digest of all records."""
        ...

    def shard_names(self, split: str) -> list[str]:
        """Return the names of a split's shards, in order."""
        ...

    def shard_sizes(self, split: str, *, all_views: ViewChoice = False) -> list[int]:
        """Return the number of records that ``read_shard`` yields of each of them."""
        ...

    def read_shard(self, name: str, *, all_views: ViewChoice = False) -> Iterator[Record]:
        """Yield a shard's records in row order."""
        ...

    def read_columns(self, name: str, *, all_views: ViewChoice = False) -> Columns:
        """Return the records that ``read_shard`` yields as columns."""
        ...

    def prefetch(self, names: Sequence[str]) -> None:
        """Begin to fetch shards that are read next, in this order, and return at once.

        It only makes ``read_shard`` return sooner; for files there is nothing to do.
        """
        ...


def announced(
    items: Iterable[Item], source: ShardSource, name_of: Callable[[Item], str], ahead: int
) -> Iterator[Item]:
    """Yield items, whose shards are named to the source so many items before they are yielded."""
    remaining = iter(items)
    coming = deque(islice(remaining, ahead))
    source.prefetch([name_of(item) for item in coming])
    while coming:
        for item in islice(remaining, 1):
            source.prefetch([name_of(item)])
            coming.append(item)
        yield coming.popleft()


class _Epoch:
    """The epoch of a dataset, in memory shared with the worker processes of a DataLoader.

    Workers that persist have a copy of the dataset from before the first epoch.
    """

    def __init__(self) -> None:
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    @property
    def epoch(self) -> int:
        """The epoch whose order is drawn."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass, in worker processes too."""
        if not isinstance(epoch, Integral) or not 0 <= int(epoch) <= LAST_EPOCH:
            shown = printable(repr(epoch), 60)
            raise UsageError(f"epoch {shown}: expected a whole number from 0 to {LAST_EPOCH}")
        self._epoch.fill_(epoch)


class ResidentDataset(_Epoch, Dataset[Record]):
    """A split held in memory: item i is the i-th record that this rank draws in the epoch.

    A DataLoader over it needs ``collate_fn=collate`` and no ``shuffle``: the options have it.
    """

    def __init__(
        self,
        dataset: ShardSource,
        split: str,
        options: LoaderOptions | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        super().__init__()
        self._split, self._options = split, options or LoaderOptions()

        def read(name: str) -> list[Record]:
            return list(dataset.read_shard(name, all_views=self._options.all_views))

        readers = min(_MOST_READERS, usable_cores())
        names = dataset.shard_names(split)
        coming = announced(names, dataset, str, ahead=2 * readers)
        with task(progress, f"reading {split}", len(names)):
            # Threads, since comparing a shard's digest takes longer than all else of reading it.
            shards = list(advancing(map_ordered(read, coming, readers, ahead=1), progress))
        self.shard_sizes = [len(shard) for shard in shards]
        """Records of each shard."""
        records = [record for shard in shards for record in shard]
        self.table = PatchTable.of(records)
        """The patches of all records, in the order in which they are stored."""
        self._records = _moved_into(self.table, records)
        self._drawn: tuple[int, Ints] = (-1, np.arange(0))

    @property
    def order(self) -> Ints:
        """What this rank draws in the epoch, in order: row numbers of the table."""
        epoch = self.epoch
        if self._drawn[0] != epoch:
            self._drawn = epoch, epoch_order(self.shard_sizes, self._options, epoch)
        return self._drawn[1]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> Record:
        return self._records[int(self.order[index])]

    def __repr__(self) -> str:
        return described(self, self._split, self._options)

    def batch(self, indices: Sequence[int], *, label_maps: bool = False) -> Batch:
        """Return the batch of some items: what ``collate`` would return, sooner."""
        return self.gather(self.order[indices], label_maps=label_maps)

    def gather(self, rows: NDArray[np.intp], *, label_maps: bool = False) -> Batch:
        """Return the batch of some rows of the table; each field is copied in one piece."""
        batch = self.table.gather(rows)
        return with_label_maps(batch, [self._records[row] for row in rows]) if label_maps else batch


def _moved_into(table: PatchTable, records: Sequence[Record]) -> list[Record]:
    """Return the records as views of the table, so that their patches are in memory once."""
    ends = np.cumsum(table.lengths).tolist()
    moved = []
    for record, patches in zip(records, map(slice, [0, *ends], ends), strict=True):
        # A small array that may be a view of the whole shard's bytes, and would keep them.
        fields: dict[str, Any] = {"label_count": record.label_count.copy()}
        for name, field in table.fields.items():
            fields[name] = field[patches].numpy().view(getattr(record, name).dtype)
        moved.append(replace(record, **fields))
    return moved


class StreamingDataset(_Epoch, IterableDataset[Record]):
    """A split read shard by shard, ``workers`` threads ahead, in the epoch's order.

    In memory are one shard of each lane that this rank reads, and what is read ahead. In a
    DataLoader with worker processes each of them takes its own shards. It needs
    ``collate_fn=collate``.
    """

    def __init__(
        self, dataset: ShardSource, split: str, options: LoaderOptions | None = None
    ) -> None:
        super().__init__()
        self._dataset, self._split, self._options = dataset, split, options or LoaderOptions()
        self._names = dataset.shard_names(split)
        self._sizes = dataset.shard_sizes(split, all_views=self._options.all_views)
        self._plan = BatchPlan.of(self._sizes, self._options)

    def __repr__(self) -> str:
        return described(self, self._split, self._options)

    def __iter__(self) -> Iterator[Record]:
        for parts in self.batches():
            yield from listed(parts, lambda part, row: part.columns.read(row))

    def batches(self, first: int = 0) -> Iterator[list[BatchPart]]:
        """Return this rank's records, none of them perhaps, of each batch of the epoch.

        Nothing is read for the batches before the ``first``.
        """
        return self._draw(EpochOrder(self._sizes, self._options, self.epoch), first)

    def _draw(self, order: EpochOrder, first: int) -> Iterator[list[BatchPart]]:
        plan, size = self._plan, self._plan.batch_size
        process = get_worker_info()
        worker, workers = (process.id, process.num_workers) if process else (0, 1)
        pieces = order.pieces(plan, first * size)
        own = (piece for piece in pieces if piece.turn % workers == worker)
        read = self._read_ahead(order, own)
        held: dict[int, _HeldPiece] = {}
        for start in range(first * size, plan.records, size):
            positions = plan.drawn(start, min(start + size, plan.records))
            places = plan.places(positions)
            if workers > 1:
                is_own = order.turns(places) % workers == worker
                positions, places = positions[is_own], places[is_own]
            yield _take(positions % plan.lanes, places, held, read)

    def _read_ahead(self, order: EpochOrder, pieces: Iterable[Piece]) -> Iterator[_HeldPiece]:
        """Yield the records of pieces, which ``workers`` threads read ahead."""
        views = self._options.all_views

        def read(piece: Piece) -> _HeldPiece:
            columns = self._dataset.read_columns(self._names[piece.shard], all_views=views)
            return _HeldPiece(piece, columns, order.rows(piece))

        workers = self._options.workers
        ahead = len(self._plan.own_lanes) + workers + 1
        coming = announced(pieces, self._dataset, lambda piece: self._names[piece.shard], ahead)
        return map_ordered(read, coming, workers, ahead=1) if workers else map(read, coming)

    def example(self) -> Record:
        """Return a record of a shard that this rank reads."""
        order = EpochOrder(self._sizes, self._options, self.epoch)
        name = self._names[next(order.pieces(self._plan)).shard]
        return next(self._dataset.read_shard(name, all_views=self._options.all_views))


@dataclass(frozen=True)
class _HeldPiece:
    """A piece in memory."""

    piece: Piece
    columns: Columns
    """Of its whole shard."""
    rows: Ints
    """Which of the shard's records it holds, in its order."""


def _take(
    lanes: Ints, places: Ints, held: dict[int, _HeldPiece], read: Iterator[_HeldPiece]
) -> list[BatchPart]:
    """Return the records of a batch at some places of the order, each in its lane.

    ``held`` has the piece of each lane that was read last, ``read`` those that come next.
    """
    parts, wanted = [], np.arange(len(places))
    while len(wanted):
        lane, place = int(lanes[wanted[0]]), places[wanted[0]]
        # The pieces come in the order in which they are needed.
        while lane not in held or place >= held[lane].piece.last:
            held.pop(lane, None)  # before another is read
            taken = next(read)
            held[taken.piece.lane] = taken
        piece = held[lane].piece
        is_here = (lanes[wanted] == lane) & (places[wanted] < piece.last)
        here, wanted = wanted[is_here], wanted[~is_here]
        rows = held[lane].rows[places[here] - piece.first]
        parts.append(BatchPart(held[lane].columns, rows, here))
    return parts


def described(value: object, split: str, options: LoaderOptions, size: str = "") -> str:
    """Return what a loader or dataset draws, for people."""
    order = f"shuffled with seed {options.seed}" if options.shuffle else "in stored order"
    lanes = f", {options.lanes} lanes" if options.lanes > 1 else ""
    rank = f", rank {options.rank} of {options.world_size}" if options.world_size > 1 else ""
    chosen = ("all views",) if options.all_views is True else options.all_views or ()
    views = f", {' and '.join(chosen)} too" if chosen else ""
    return f"{type(value).__name__}({split!r}, {size}{options.mode}, {order}{views}{lanes}{rank})"
