"""Drawing a split: the order of an epoch, PyTorch datasets over it, and the loader of its batches.

The order is a function of seed and epoch: a permutation of the shards, and one of the records of
each shard. With several ranks (``LoaderOptions.world_size``) each draws one of as many consecutive
parts of it, whose sizes differ by one record at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from math import ceil
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from vocprep.errors import UsageError
from vocprep.options import LoaderOptions, usable_cores
from vocprep.parallel import map_ordered
from vocprep.shards.batches import Batch, PatchTable, collate, with_label_maps
from vocprep.shards.record import Record

_MOST_READERS = 4
"""Threads that read a split into memory."""


class ShardSource(Protocol):
    """The shards that records are drawn from: ``vocprep.shards.reader.ShardDataset`` is one."""

    def shard_names(self, split: str) -> list[str]:
        """Return the names of a split's shards, in order."""
        ...

    def shard_sizes(self, split: str, *, all_views: bool = False) -> list[int]:
        """Return the number of records that ``read_shard`` yields of each of them."""
        ...

    def read_shard(self, name: str, *, all_views: bool = False) -> Iterator[Record]:
        """Yield a shard's records in row order."""
        ...


@dataclass(frozen=True)
class ShardPart:
    """What one rank draws of one shard in an epoch."""

    shard: int
    """Number of the shard within its split."""
    rows: NDArray[np.intp]
    """Records within the shard, in the order in which they are drawn."""


def epoch_parts(shard_sizes: Sequence[int], options: LoaderOptions, epoch: int) -> list[ShardPart]:
    """Return what this rank draws in an epoch, shard after shard.

    >>> options = LoaderOptions(rank=1, world_size=2)
    >>> [(part.shard, part.rows.tolist()) for part in epoch_parts([3, 2, 3], options, epoch=0)]
    [(1, [1]), (2, [0, 1, 2])]
    """
    first, last = _rank_bounds(sum(shard_sizes), options)
    parts, start = [], 0
    for shard in _permutation(len(shard_sizes), options, epoch, stream=0).tolist():
        size = shard_sizes[shard]
        if start < last and first < start + size:
            rows = _permutation(size, options, epoch, stream=1 + shard)
            parts.append(ShardPart(shard, rows[max(0, first - start) : last - start]))
        start += size
    return parts


def epoch_order(shard_sizes: Sequence[int], options: LoaderOptions, epoch: int) -> NDArray[np.intp]:
    """Return what this rank draws in an epoch, its records numbered as stored, shard after shard.

    >>> epoch_order([3, 2, 3], LoaderOptions(rank=1, world_size=2), epoch=0).tolist()
    [4, 5, 6, 7]
    """
    starts = np.cumsum([0, *shard_sizes])
    return np.concatenate(
        [starts[part.shard] + part.rows for part in epoch_parts(shard_sizes, options, epoch)]
    )


def batch_bounds(records: int, options: LoaderOptions) -> list[int]:
    """Return where an epoch's batches begin and end in what this rank draws of so many records.

    Every rank draws the same number of batches and none of them is empty. For that, a rank that has
    one record less may have a batch less full by one before its last; with ``batch_size`` 1, the
    last batch of the others has two records.

    >>> batch_bounds(9, LoaderOptions(batch_size=4))
    [0, 4, 8, 9]
    >>> [batch_bounds(17, LoaderOptions(batch_size=4, rank=r, world_size=2)) for r in (0, 1)]
    [[0, 4, 7, 8], [0, 4, 8, 9]]
    """
    first, last = _rank_bounds(records, options)
    own = last - first
    fewest, most = records // options.world_size, ceil(records / options.world_size)
    if not fewest:
        raise UsageError(
            f"world_size {options.world_size}: more ranks than the {records} records to draw from; "
            "use at most one rank per record"
        )
    batches = min(ceil(most / options.batch_size), fewest)
    # Each batch leaves a record for each of those behind it.
    inner = [min(n * options.batch_size, own - (batches - n)) for n in range(1, batches)]
    return [0, *inner, own]


def _rank_bounds(records: int, options: LoaderOptions) -> tuple[int, int]:
    """Return where a rank's part of an epoch's order begins and ends."""
    rank, world_size = options.rank, options.world_size
    return records * rank // world_size, records * (rank + 1) // world_size


def _permutation(count: int, options: LoaderOptions, epoch: int, stream: int) -> NDArray[np.intp]:
    """Return the order of an epoch: as stored, or a permutation from (seed, epoch, stream)."""
    if not options.shuffle:
        return np.arange(count)
    generator = np.random.default_rng([options.seed, epoch, stream])
    return generator.permutation(count)


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
        self._epoch.fill_(epoch)


class ResidentDataset(_Epoch, Dataset[Record]):
    """A split held in memory: item i is the i-th record that this rank draws in the epoch.

    A DataLoader over it needs ``collate_fn=collate`` and no ``shuffle``: the options have it.
    """

    def __init__(
        self, dataset: ShardSource, split: str, options: LoaderOptions | None = None
    ) -> None:
        super().__init__()
        self._split, self._options = split, options or LoaderOptions()

        def read(name: str) -> list[Record]:
            return list(dataset.read_shard(name, all_views=self._options.all_views))

        readers = min(_MOST_READERS, usable_cores())
        # Threads, since comparing a shard's digest takes longer than all else of reading it.
        shards = list(map_ordered(read, dataset.shard_names(split), readers, ahead=1))
        self.shard_sizes = [len(shard) for shard in shards]
        """Records of each shard."""
        records = [record for shard in shards for record in shard]
        self.table = PatchTable.of(records)
        """The patches of all records, in the order in which they are stored."""
        self._records = _moved_into(self.table, records)
        self._drawn: tuple[int, NDArray[np.intp]] = (-1, np.arange(0))

    @property
    def order(self) -> NDArray[np.intp]:
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
        return _described(self, self._split, self._options)

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

    In a DataLoader with worker processes each of them takes its own shards. It needs
    ``collate_fn=collate``.
    """

    def __init__(
        self, dataset: ShardSource, split: str, options: LoaderOptions | None = None
    ) -> None:
        super().__init__()
        self._dataset, self._split, self._options = dataset, split, options or LoaderOptions()
        self._names = dataset.shard_names(split)
        self._sizes = dataset.shard_sizes(split, all_views=self._options.all_views)

    def __repr__(self) -> str:
        return _described(self, self._split, self._options)

    def __iter__(self) -> Iterator[Record]:
        process = get_worker_info()
        first, step = (process.id, process.num_workers) if process else (0, 1)
        parts = epoch_parts(self._sizes, self._options, self.epoch)[first::step]
        workers = self._options.workers
        read = (
            map_ordered(self._read, parts, workers, ahead=1) if workers else map(self._read, parts)
        )
        return (record for records in read for record in records)

    def _read(self, part: ShardPart) -> list[Record]:
        name = self._names[part.shard]
        records = list(self._dataset.read_shard(name, all_views=self._options.all_views))
        return [records[row] for row in part.rows]


class Loader:
    """Iterates over the batches that this rank draws of a split.

    ``set_epoch`` chooses the order of the next pass.
    """

    def __init__(
        self, dataset: ShardSource, split: str, options: LoaderOptions | None = None
    ) -> None:
        self.options = options = options or LoaderOptions()
        sizes = dataset.shard_sizes(split, all_views=options.all_views)
        self._split, self._bounds = split, batch_bounds(sum(sizes), options)
        self._source: ResidentDataset | StreamingDataset
        if options.mode == "resident":
            self._source = ResidentDataset(dataset, split, options)
        else:
            self._source = StreamingDataset(dataset, split, options)

    @property
    def samples(self) -> int:
        """Records that this rank draws per epoch."""
        return self._bounds[-1]

    def __len__(self) -> int:
        """Return the number of batches per epoch, which is the same for every rank."""
        return len(self._bounds) - 1

    def __repr__(self) -> str:
        return _described(self, self._split, self.options, f"{len(self)} batches, ")

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self._source.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:
        label_maps, places = self.options.label_maps, pairwise(self._bounds)
        if isinstance(self._source, ResidentDataset):
            gather, order = self._source.gather, self._source.order
            return (gather(order[start:stop], label_maps=label_maps) for start, stop in places)
        records = iter(self._source)
        return (
            collate(list(islice(records, stop - start)), label_maps=label_maps)
            for start, stop in places
        )


def _described(value: object, split: str, options: LoaderOptions, size: str = "") -> str:
    """Return what a loader or dataset draws, for people."""
    order = f"shuffled with seed {options.seed}" if options.shuffle else "in stored order"
    rank = f", rank {options.rank} of {options.world_size}" if options.world_size > 1 else ""
    views = ", mirrored views too" if options.all_views else ""
    return f"{type(value).__name__}({split!r}, {size}{options.mode}, {order}{views}{rank})"
