"""Reading shards for training: PyTorch datasets and loaders, resident or streaming.

Shape legend: B batch, P patches (the longest of the batch; shorter pictures are padded), D
embedding, K = 4 slots.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from vocprep.errors import ShardError, UsageError
from vocprep.labels.schema import Schema, load_schema
from vocprep.labels.targets import NO_LABEL, PIXELS, STATE_VOID, pack_states
from vocprep.shards.index import (
    DatasetIndex,
    SampleEntry,
    container_of,
    read_index,
    read_samples,
)
from vocprep.shards.record import FLIP_SUFFIX, Record

LoaderMode = Literal["resident", "streaming"]

_VOID_PLANES = pack_states(np.full(PIXELS, STATE_VOID, dtype=np.uint8))
_PADDING: dict[str, Any] = {
    "embeddings": 0,
    "slot_labels": NO_LABEL,
    "slot_pixels": 0,
    "slot_planes": _VOID_PLANES,
}
"""What a field holds where a picture has no patch."""
_BATCH_DTYPES = {
    "embeddings": torch.float32,
    "slot_labels": torch.int64,
    "slot_pixels": torch.int64,
}


@dataclass(frozen=True, eq=False)
class Batch:
    """Several pictures' patches, padded to one length."""

    image_ids: tuple[str, ...]
    grids: Tensor
    """int64 [B, 2]: (ny, nx)."""
    padding: Tensor
    """bool [B, P], True where there is no patch: a key-padding mask."""
    embeddings: Tensor
    """float32 [B, P, D], 0 where padded."""
    slot_labels: Tensor
    """int64 [B, P, 4], −1 where absent or padded."""
    slot_pixels: Tensor
    """int64 [B, P, 4]"""
    slot_planes: Tensor
    """uint8 [B, P, 3, 128]; padded patches are all void."""
    label_maps: tuple[NDArray[np.uint16], ...] | None = None
    """Each [32·ny, 32·nx] under the schema; only when asked for."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on a device."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How batches are drawn."""

    batch_size: int = 64
    mode: LoaderMode = "resident"
    """``resident`` holds the split in memory; ``streaming`` holds a shard at a time."""
    shuffle: bool = False
    """A new order each epoch, decided by ``seed`` and the epoch. Streaming shuffles the shards and
    the records of each shard."""
    seed: int = 0
    workers: int = 0
    """Processes that read ahead, streaming only."""
    label_maps: bool = False
    """Whether batches carry the full label maps."""
    all_views: bool = False
    """Whether mirrored views are drawn too."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.batch_size < 1:
            raise UsageError(f"batch_size {self.batch_size}: expected 1 or more")
        if self.mode not in get_args(LoaderMode):
            raise UsageError(f"mode {self.mode!r}: expected one of {get_args(LoaderMode)}")
        if self.workers and self.mode == "resident":
            raise UsageError("workers read ahead in mode 'streaming' only: leave them out")


class ShardDataset:
    """A finished dataset version, opened by its index."""

    def __init__(self, path: Path, index: DatasetIndex, samples: Sequence[SampleEntry]) -> None:
        self.path = path
        self.index = index
        self.samples = samples

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder that ``vocprep build-shards`` wrote; ShardError when it is none."""
        return cls(path, read_index(path), read_samples(path))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(sorted(self.index.recipe.splits))

    @cached_property
    def schema(self) -> Schema:
        """The label space; ShardError when the shipped one of that name has changed since."""
        identity = self.index.recipe.schema
        schema = load_schema(identity.name, void_unknown=identity.void_unknown)
        if schema.sha256 != identity.sha256:
            raise ShardError(
                f"{self.path}: schema {identity.name} has digest {schema.sha256[:12]}… now and had "
                f"{identity.sha256[:12]}… when the shards were built; build them again"
            )
        return schema

    def shard_names(self, split: str) -> list[str]:
        """Return a split's shards in order; UsageError when there is no such split."""
        names = [shard.name for shard in self.index.shards if shard.split == split]
        if not names:
            raise UsageError(
                f"{self.path}: no split {split!r}: expected one of {', '.join(self.splits)}"
            )
        return names

    def read_shard(self, name: str, *, all_views: bool = False) -> Iterator[Record]:
        """Yield a shard's records in row order; ShardError when they are not those of the index."""
        expected = [sample.id for sample in self._by_shard[name]]
        with container_of(self.index.container).open_shard(self.path / name) as shard:
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
        by_shard: dict[str, list[SampleEntry]] = {shard.name: [] for shard in self.index.shards}
        for sample in sorted(self.samples, key=lambda sample: sample.row):
            if sample.shard not in by_shard:
                raise ShardError(
                    f"{self.path}: samples.jsonl puts {sample.id} into {sample.shard}, which "
                    "dataset.json does not list; build the shards again"
                )
            by_shard[sample.shard].append(sample)
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
    """A split held in memory: item i is a Record, ``batch`` gathers many at once."""

    def __init__(self, dataset: ShardDataset, split: str, *, all_views: bool = False) -> None:
        records = [
            record
            for name in dataset.shard_names(split)
            for record in dataset.read_shard(name, all_views=all_views)
        ]
        columns = {
            name: np.concatenate([getattr(record, name) for record in records]) for name in _PADDING
        }
        self._grids = torch.tensor([record.grid for record in records])
        self._lengths = [len(record.embeddings) for record in records]
        self._starts = np.cumsum([0, *self._lengths])[:-1]
        self._columns = {name: torch.from_numpy(column) for name, column in columns.items()}
        # The records become views of the columns, so that the split is in memory once.
        self._records = [
            _with_columns(record, columns, slice(start, start + length))
            for record, start, length in zip(records, self._starts, self._lengths, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        return self._records[index]

    def batch(self, indices: Sequence[int], *, label_maps: bool = False) -> Batch:
        """Gather records into a batch without touching them one by one in Python."""
        lengths = torch.tensor([self._lengths[index] for index in indices])
        starts = torch.tensor([int(self._starts[index]) for index in indices])
        steps = torch.arange(int(lengths.max()))
        padding = steps >= lengths[:, None]
        rows = torch.where(padding, 0, starts[:, None] + steps)
        columns = {name: _widen(name, column[rows]) for name, column in self._columns.items()}
        if bool(padding.any()):
            for name, value in _PADDING.items():
                columns[name][padding] = torch.as_tensor(value, dtype=columns[name].dtype)
        records = [self._records[index] for index in indices]
        return Batch(
            image_ids=tuple(record.image_id for record in records),
            grids=self._grids[torch.as_tensor(indices)],
            padding=padding,
            label_maps=_label_maps(records) if label_maps else None,
            **columns,
        )


def _with_columns(record: Record, columns: dict[str, NDArray[Any]], patches: slice) -> Record:
    views: dict[str, Any] = {name: column[patches] for name, column in columns.items()}
    return replace(record, **views)


class StreamingDataset(IterableDataset[Record]):
    """A split read shard by shard; with DataLoader workers each takes its own shards."""

    def __init__(self, dataset: ShardDataset, split: str, options: LoaderOptions) -> None:
        self._dataset = dataset
        self._names = dataset.shard_names(split)
        self._options = options
        self.epoch = 0

    def __iter__(self) -> Iterator[Record]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        options = self._options
        order = _order(len(self._names), options, self.epoch, stream=0)
        for number in order[first::step]:
            records = list(
                self._dataset.read_shard(self._names[number], all_views=options.all_views)
            )
            for row in _order(len(records), options, self.epoch, stream=1 + int(number)):
                yield records[row]


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
        """Return the batches an epoch; streaming workers may cut a few more."""
        return math.ceil(self.samples / self.options.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        if isinstance(self._source, ResidentDataset):
            return self._resident(self._source)
        self._source.epoch = self._epoch
        return iter(
            DataLoader(
                self._source,
                batch_size=self.options.batch_size,
                num_workers=self.options.workers,
                collate_fn=_Collate(self.options.label_maps),
            )
        )

    def _resident(self, source: ResidentDataset) -> Iterator[Batch]:
        order = _order(len(source), self.options, self._epoch, stream=0)
        for start in range(0, len(order), self.options.batch_size):
            chosen = order[start : start + self.options.batch_size].tolist()
            yield source.batch(chosen, label_maps=self.options.label_maps)


@dataclass(frozen=True)
class _Collate:
    """``collate`` with its option, in a form that worker processes can receive."""

    label_maps: bool

    def __call__(self, records: list[Record]) -> Batch:
        return collate(records, label_maps=self.label_maps)


def collate(records: Sequence[Record], *, label_maps: bool = False) -> Batch:
    """Pad records to one length and stack them: a DataLoader's collate function."""
    longest = max(len(record.embeddings) for record in records)
    padding = np.ones((len(records), longest), dtype=bool)
    columns: dict[str, NDArray[Any]] = {}
    for name, value in _PADDING.items():
        first = getattr(records[0], name)
        columns[name] = np.empty((len(records), longest, *first.shape[1:]), dtype=first.dtype)
        columns[name][:] = value
    for row, record in enumerate(records):
        padding[row, : len(record.embeddings)] = False
        for name, column in columns.items():
            column[row, : len(record.embeddings)] = getattr(record, name)
    tensors = {name: _widen(name, torch.from_numpy(column)) for name, column in columns.items()}
    return Batch(
        image_ids=tuple(record.image_id for record in records),
        grids=torch.tensor([record.grid for record in records]),
        padding=torch.from_numpy(padding),
        label_maps=_label_maps(records) if label_maps else None,
        **tensors,
    )


def _widen(name: str, column: Tensor) -> Tensor:
    """Give a field the dtype that a batch has it in; torch computes little with uint16."""
    return column.to(_BATCH_DTYPES.get(name, column.dtype))


def _label_maps(records: Sequence[Record]) -> tuple[NDArray[np.uint16], ...]:
    """Decode label maps without keeping them: a split's maps are larger than all else of it."""
    return tuple(record.decode_label_map() for record in records)


def _order(count: int, options: LoaderOptions, epoch: int, stream: int) -> NDArray[np.intp]:
    """Return the order of one pass: as stored, or a permutation of (seed, epoch, stream)."""
    if not options.shuffle:
        return np.arange(count)
    generator = np.random.default_rng([options.seed, epoch, stream])
    return generator.permutation(count)
