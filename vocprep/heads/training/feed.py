"""Feeding: a split's batches on the device that trains, resident there or streamed to it.

Either way the batches are those of ``vocprep.shards.feed.loading.Loader``, in its order; each rank
draws its part of every batch. The resident split stays as stored, float16 and bit planes, and a
batch is one gather on the device, which neither loops over images nor waits for a GPU.

Shape legend: D embedding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vocprep.heads.runs.class_shares import pixels_by_class
from vocprep.heads.runs.options import TrainOptions, require_split
from vocprep.heads.training.distributed import Processes
from vocprep.labels.targets import NO_LABEL
from vocprep.options import LoaderOptions
from vocprep.progress import NO_PROGRESS, Progress, advancing, task
from vocprep.shards.feed.batches import Batch
from vocprep.shards.feed.datasets import ResidentDataset, announced
from vocprep.shards.feed.loading import Loader
from vocprep.shards.feed.order import BatchPlan, batch_bounds, epoch_order
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record

_STATISTICS_ROWS = 4096
"""Patches whose squares are summed at once, in float64."""


class Feed(Protocol):
    """A source of batches for training."""

    batch_sizes: list[int]
    """Images per batch of an epoch, those of all ranks together."""

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield this rank's part of every batch of an epoch, on its device."""

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation float32 [D] of every embedding component, over all patches."""

    def class_pixels(self) -> dict[int, int]:
        """Return the pixels of each class in the slots of all patches, views and ranks together."""


def require_splits(dataset: ShardDataset, options: TrainOptions) -> None:
    """Raise UsageError when the dataset lacks the train split or the validation split."""
    require_split(dataset.splits, options.train_split, "train_split")
    if options.val_split:
        require_split(dataset.splits, options.val_split, "val_split")


def open_feed(
    dataset: ShardDataset,
    options: TrainOptions,
    processes: Processes,
    progress: Progress = NO_PROGRESS,
) -> Feed:
    """Open this rank's part of the train split, shuffled."""
    train_options = LoaderOptions(
        batch_size=options.batch_size,
        mode=options.mode,
        shuffle=True,
        seed=options.seed,
        lanes=options.lanes or 1,  # decided by ``decide_lanes``
        all_views=options.drawn_views,
    )
    return make_feed(dataset, options.train_split, train_options, processes, progress)


def make_feed(
    dataset: ShardDataset,
    split: str,
    options: LoaderOptions,
    processes: Processes,
    progress: Progress = NO_PROGRESS,
) -> Feed:
    """Return the feed of a split, resident or streaming as the options say."""
    options = replace(options, rank=processes.rank, world_size=processes.world_size)
    if options.mode == "resident":
        return ResidentFeed(dataset, split, options, processes, progress)
    return StreamingFeed(dataset, split, options, processes, progress)


class ResidentFeed:
    """The split on the device, as stored."""

    def __init__(
        self,
        dataset: ShardDataset,
        split: str,
        options: LoaderOptions,
        processes: Processes,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        resident = ResidentDataset(dataset, split, options, progress)
        self._options, self._device = options, processes.device
        self._shard_sizes = resident.shard_sizes
        fields = resident.table.fields
        slot_labels = fields["slot_labels"].numpy()
        self._class_pixels = pixels_by_class(slot_labels, fields["slot_pixels"].numpy())
        # Known here, so that no step waits for the device to count them.
        holds_two = np.concatenate([[0], (slot_labels[:-1, 1] != NO_LABEL).cumsum()])
        ends = np.concatenate([[0], resident.table.lengths.cumsum()])
        self._mixed = np.diff(holds_two[ends])
        self._table = resident.table.to(processes.device)
        self._bounds = batch_bounds(self._shard_sizes, options)
        self.batch_sizes = BatchPlan.of(self._shard_sizes, options).batch_sizes()

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield this rank's part of every batch of an epoch, on its device."""
        order = epoch_order(self._shard_sizes, self._options, epoch)
        placed = torch.from_numpy(order).to(self._device)
        for start, stop in pairwise(self._bounds):
            if start < stop:
                rows = order[start:stop]
                batch = self._table.gather(rows, placed[start:stop])
                yield batch.with_mixed(int(self._mixed[rows].sum()))
            else:  # a rank without an image takes the step all the same
                yield self._table.gather(np.zeros(1, np.intp)).blank().with_mixed(0)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation float32 [D] of every embedding component, over all patches."""
        return self._statistics

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        ends = np.cumsum(self._table.lengths)[np.cumsum(self._shard_sizes) - 1].tolist()
        embeddings = self._table.fields["embeddings"]
        shift = embeddings[0].double()
        return _moments(
            (_sums(embeddings[start:stop], shift) for start, stop in pairwise([0, *ends])), shift
        )

    def class_pixels(self) -> dict[int, int]:
        """Return the pixels of each class in the slots of all patches, views and ranks together."""
        return self._class_pixels


class StreamingFeed:
    """The split read again each epoch; each rank reads the shards of its lanes."""

    def __init__(
        self,
        dataset: ShardDataset,
        split: str,
        options: LoaderOptions,
        processes: Processes,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        self._dataset, self._split, self._processes = dataset, split, processes
        self._progress = progress
        self._views = options.all_views
        self._loader = Loader(dataset, split, options)
        sizes = dataset.shard_sizes(split, all_views=options.all_views)
        self.batch_sizes = BatchPlan.of(sizes, options).batch_sizes()

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield this rank's part of every batch of an epoch, on its device."""
        self._loader.set_epoch(epoch)
        return (batch.with_mixed().to(self._processes.device) for batch in self._loader)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation float32 [D] of every embedding component, over all patches."""
        mean, deviation, _ = self._totals
        return mean, deviation

    def class_pixels(self) -> dict[int, int]:
        """Return the pixels of each class in the slots of all patches, views and ranks together."""
        return self._totals[2]

    @cached_property
    def _totals(self) -> tuple[Tensor, Tensor, dict[int, int]]:
        """What ``statistics`` and ``class_pixels`` return.

        Each rank reads every ``world_size``-th shard; all add up the sums of all shards in order.
        """
        names, processes = self._dataset.shard_names(self._split), self._processes
        first = processes.on_leader(lambda: next(self._read(names[0])).embeddings[0])
        shift = torch.from_numpy(first).double()
        own = names[processes.rank :: processes.world_size]
        found = (self._shard_sums(name, shift) for name in announced(own, self._dataset, str, 1))
        rounds = range(0, len(names), processes.world_size)
        pixels: Counter[int] = Counter()

        def sums() -> Iterator[_Sums]:
            for _ in advancing(rounds, self._progress):
                for each in processes.gather(next(found, None)):
                    if each is not None:
                        pixels.update(each[1])
                        yield each[0]

        with task(self._progress, "means of the embeddings", len(rounds)):
            moments = _moments(sums(), shift)
        return *moments, dict(sorted(pixels.items()))

    def _shard_sums(self, name: str, shift: Tensor) -> tuple[_Sums, dict[int, int]]:
        records = list(self._read(name))
        embeddings, labels, pixels = (
            np.concatenate([getattr(record, field) for record in records])
            for field in ("embeddings", "slot_labels", "slot_pixels")
        )
        return _sums(torch.from_numpy(embeddings), shift), pixels_by_class(labels, pixels)

    def _read(self, name: str) -> Iterator[Record]:
        return self._dataset.read_shard(name, all_views=self._views)


@dataclass(frozen=True)
class _Sums:
    """The sums of a shard's patches and of their squares."""

    patches: int
    parts: list[Tensor]
    """float64 [2, D], each over ``_STATISTICS_ROWS`` patches at most."""


def _sums(embeddings: Tensor, shift: Tensor) -> _Sums:
    """Return the sums over embeddings [·, D] of what is off ``shift`` [D], one of all patches.

    So a component that never varies comes to exactly 0.
    """
    parts = []
    for start in range(0, len(embeddings), _STATISTICS_ROWS):
        off = embeddings[start : start + _STATISTICS_ROWS].double() - shift
        parts.append(torch.stack([off.sum(dim=0), off.square().sum(dim=0)]))
    return _Sums(len(embeddings), parts)


def _moments(shards: Iterable[_Sums], shift: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation float32 [D] from the sums of all shards, added in their order."""
    patches, sums = 0, torch.zeros(2, len(shift), dtype=torch.float64, device=shift.device)
    for shard in shards:
        patches += shard.patches
        for part in shard.parts:
            sums += part
    mean, squares = (sums / patches).unbind(0)
    deviation = (squares - mean.square()).clamp(min=0).sqrt()
    return (mean + shift).float(), deviation.float()
