"""Reading shards for training: PyTorch datasets and loaders, resident or streaming."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from vocprep.errors import ManifestError, ShardError, UsageError
from vocprep.labels.label_space import LabelSpace
from vocprep.options import LoaderOptions
from vocprep.parallel import map_ordered
from vocprep.shards.batches import PADDING, Batch, collate, make_batch, padding_patches
from vocprep.shards.containers import CONTAINERS
from vocprep.shards.index import DatasetIndex, check_files
from vocprep.shards.record import FLIP_SUFFIX, Record
from vocprep.shards.samples import LABELS_FILE, QuarantinedSample, SampleEntry
from vocprep.shards.version import Version

__all__ = [
    "Batch",
    "Loader",
    "ResidentDataset",
    "ShardDataset",
    "StreamingDataset",
    "collate",
]


class ShardDataset:
    """A finished dataset version, opened by its index."""

    def __init__(self, path: Path, version: Version) -> None:
        self.path = path
        self._version = version
        self.index: DatasetIndex = version.index
        self.samples: Sequence[SampleEntry] = version.samples
        self.quarantined: Sequence[QuarantinedSample] = version.quarantined
        """Pictures that no record could be made of, and why: they are missing from the shards."""

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open the folder that ``vocprep build-shards`` wrote.

        ShardError when it is none, or when a shard is missing or of another size.
        """
        path = Path(path)
        version = Version.read(path)
        check_files(path, version.index)
        return cls(path, version)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(sorted(self.index.recipe.splits))

    @cached_property
    def schema(self) -> LabelSpace:
        """The label space, as labels.json holds it; ShardError when that is not the recipe's."""
        path, identity = self.path / LABELS_FILE, self.index.recipe.schema
        try:
            schema = LabelSpace.from_json(json.loads(path.read_bytes()))
        except (OSError, ValueError, ManifestError) as error:
            raise ShardError(f"{path}: cannot be read: {error}; copy it again") from error
        if schema.sha256 != identity.sha256:
            raise ShardError(
                f"{path}: has digest {schema.sha256[:12]}…: expected {identity.sha256[:12]}… of "
                f"schema {identity.name}; copy it again, or build the shards again"
            )
        return schema

    def shard_names(self, split: str) -> list[str]:
        """Return a split's shards in order; UsageError when there is no such split."""
        names = [shard.name for shard in self.index.shards if shard.split == split]
        if names:
            return names
        if split in self.splits:
            raise UsageError(
                f"{self.path}: split {split!r} holds no record: all of its pictures are in "
                "quarantine.jsonl; mend them and build again, or name another split"
            )
        raise UsageError(
            f"{self.path}: no split {split!r}: expected one of {', '.join(self.splits)}"
        )

    def read_shard(self, name: str, *, all_views: bool = False) -> Iterator[Record]:
        """Yield a shard's records in row order; ShardError when they are not those of the index."""
        expected = [sample.id for sample in self._by_shard[name]]
        with CONTAINERS[self.index.container].open_shard(self.path / name) as shard:
            if shard.image_ids != expected:
                raise ShardError(
                    f"{self.path / name}: its {len(shard.image_ids)} records are not the "
                    f"{len(expected)} that the index lists; build the shards again"
                )
            for record in shard:
                if all_views or not record.image_id.endswith(FLIP_SUFFIX):
                    yield record

    @cached_property
    def _by_shard(self) -> dict[str, list[SampleEntry]]:
        by_shard = self._version.by_shard
        for name in by_shard.keys() - {shard.name for shard in self.index.shards}:
            raise ShardError(
                f"{self.path}: samples.jsonl puts {by_shard[name][0].id} into {name}, which "
                "dataset.json does not list; build the shards again"
            )
        return by_shard

    def count(self, split: str, *, all_views: bool = False) -> int:
        """Return how many records of a split a loader draws an epoch."""
        names = set(self.shard_names(split))
        return sum(
            sample.shard in names and (all_views or not sample.id.endswith(FLIP_SUFFIX))
            for sample in self.samples
        )

    def loader(self, split: str, options: LoaderOptions) -> Loader:
        """Return a loader of a split's batches."""
        return Loader(self, split, options)


class ResidentDataset(Dataset[Record]):
    """A split held in memory: item i is a Record, ``batch`` gathers many at once.

    ``columns`` holds each patch field of all records behind one another, as stored, and at its end
    one patch of padding; ``grids`` is int64 [N, 2]; ``shard_sizes`` counts the records by shard.
    """

    def __init__(self, dataset: ShardDataset, split: str, *, all_views: bool = False) -> None:
        shards = [
            list(dataset.read_shard(name, all_views=all_views))
            for name in dataset.shard_names(split)
        ]
        self.shard_sizes = [len(shard) for shard in shards]
        records = [record for shard in shards for record in shard]
        columns = {
            name: _column([getattr(record, name) for record in records], name) for name in PADDING
        }
        self.columns = {name: torch.from_numpy(column) for name, column in columns.items()}
        self.grids = torch.tensor([record.grid for record in records])
        self._lengths = self.grids.prod(dim=1)
        ends = self._lengths.cumsum(dim=0)
        self._starts = ends - self._lengths
        self._is_even = bool((self._lengths == self._lengths[0]).all())
        # The records become views of the columns, so that the split is in memory once.
        places = zip(self._starts.tolist(), ends.tolist(), strict=True)
        self._records = [
            _with_columns(record, columns, slice(*place))
            for record, place in zip(records, places, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        return self._records[index]

    def batch(self, indices: Sequence[int], *, label_maps: bool = False) -> Batch:
        """Gather records into a batch, each field in one piece: what ``collate`` would give."""
        chosen = torch.as_tensor(indices)
        return make_batch(
            [self._records[index] for index in indices],
            self.grids[chosen],
            self._gather(chosen),
            label_maps=label_maps,
        )

    def _gather(self, chosen: Tensor) -> dict[str, Tensor]:
        """Return each field [B·P, …] of B chosen records, padded."""
        columns = self.columns.items()
        lengths = self._lengths[chosen]
        if self._is_even:  # whole records at once, which are longer pieces to copy
            size = int(lengths[0])
            return {
                name: column[:-1]
                .view(-1, size, *column.shape[1:])
                .index_select(0, chosen)
                .flatten(0, 1)
                for name, column in columns
            }
        steps = torch.arange(int(lengths.max()))
        rows = self._starts[chosen][:, None] + steps
        rows[steps >= lengths[:, None]] = len(self.columns["embeddings"]) - 1
        return {name: column.index_select(0, rows.flatten()) for name, column in columns}


def _column(arrays: list[NDArray[Any]], name: str) -> NDArray[Any]:
    """Return a field of all records behind one another, and at its end one patch of padding."""
    return np.concatenate([*arrays, padding_patches(name, arrays[0], 1)])


def _with_columns(record: Record, columns: dict[str, NDArray[Any]], patches: slice) -> Record:
    views: dict[str, Any] = {name: column[patches] for name, column in columns.items()}
    return replace(record, **views)


class StreamingDataset(IterableDataset[Record]):
    """A split read shard by shard, ``workers`` threads ahead.

    In a DataLoader with worker processes each takes its own shards.
    """

    def __init__(self, dataset: ShardDataset, split: str, options: LoaderOptions) -> None:
        self._dataset = dataset
        self._names = dataset.shard_names(split)
        self._options = options
        self.epoch = 0

    def __iter__(self) -> Iterator[Record]:
        process = get_worker_info()
        first, step = (process.id, process.num_workers) if process else (0, 1)
        numbers = _order(len(self._names), self._options, self.epoch, stream=0)[first::step]
        read = partial(self._read_shuffled, epoch=self.epoch)
        workers = self._options.workers
        shards = map_ordered(read, numbers, workers, ahead=1) if workers else map(read, numbers)
        for records in shards:
            yield from records

    def _read_shuffled(self, number: int, epoch: int) -> list[Record]:
        name = self._names[number]
        records = list(self._dataset.read_shard(name, all_views=self._options.all_views))
        order = _order(len(records), self._options, epoch, stream=1 + int(number))
        return [records[row] for row in order]


class Loader:
    """Iterates over a split's batches; ``set_epoch`` chooses the shuffled order."""

    def __init__(self, dataset: ShardDataset, split: str, options: LoaderOptions) -> None:
        self.options = options
        self.samples = dataset.count(split, all_views=options.all_views)
        self._source: ResidentDataset | StreamingDataset
        if options.mode == "resident":
            self._source = ResidentDataset(dataset, split, all_views=options.all_views)
        else:
            self._source = StreamingDataset(dataset, split, options)
        self._epoch = 0

    def __len__(self) -> int:
        """Return the batches an epoch."""
        return math.ceil(self.samples / self.options.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        if isinstance(self._source, ResidentDataset):
            return self._resident(self._source)
        self._source.epoch = self._epoch
        return self._streaming(self._source)

    def _streaming(self, source: StreamingDataset) -> Iterator[Batch]:
        records = iter(source)
        while chosen := list(islice(records, self.options.batch_size)):
            yield collate(chosen, label_maps=self.options.label_maps)

    def _resident(self, source: ResidentDataset) -> Iterator[Batch]:
        order = epoch_order(source.shard_sizes, self.options, self._epoch)
        for start in range(0, len(order), self.options.batch_size):
            chosen = order[start : start + self.options.batch_size].tolist()
            yield source.batch(chosen, label_maps=self.options.label_maps)


def epoch_order(shard_sizes: Sequence[int], options: LoaderOptions, epoch: int) -> NDArray[np.intp]:
    """Return the records of one pass in the order in which every loader draws them.

    Records are numbered as stored, shard after shard.
    """
    starts = np.cumsum([0, *shard_sizes])
    pieces = [
        starts[number] + _order(shard_sizes[number], options, epoch, stream=1 + int(number))
        for number in _order(len(shard_sizes), options, epoch, stream=0)
    ]
    return np.concatenate(pieces)


def _order(count: int, options: LoaderOptions, epoch: int, stream: int) -> NDArray[np.intp]:
    """Return the order of one pass: as stored, or a permutation of (seed, epoch, stream)."""
    if not options.shuffle:
        return np.arange(count)
    generator = np.random.default_rng([options.seed, epoch, stream])
    return generator.permutation(count)
