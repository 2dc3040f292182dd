"""Feeding: a split's batches on the device that trains, resident there or streamed to it.

Either way the batches are those of ``vocprep.shards.loading.Loader``, in its order; each rank takes
its part of every batch. The resident split stays as stored, float16 and bit planes, and a batch is
one gather on the device, which neither loops over images nor waits for a GPU.

Shape legend: D embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vocprep.heads.runs.options import TrainOptions, require_split
from vocprep.heads.training.distributed import Processes
from vocprep.options import LoaderOptions
from vocprep.shards.batches import Batch
from vocprep.shards.loading import Loader, ResidentDataset, batch_bounds, epoch_order
from vocprep.shards.reader import ShardDataset

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


def require_splits(dataset: ShardDataset, options: TrainOptions) -> None:
    """Raise UsageError when the dataset lacks the train split or the validation split."""
    require_split(dataset.splits, options.train_split, "train_split")
    if options.val_split:
        require_split(dataset.splits, options.val_split, "val_split")


def open_splits(
    dataset: ShardDataset, options: TrainOptions, processes: Processes
) -> tuple[Feed, Iterable[Batch] | None]:
    """Open the train split (shuffled) and this rank's part of the validation split, if any."""
    train_options = LoaderOptions(
        batch_size=options.batch_size,
        mode=options.mode,
        shuffle=True,
        seed=options.seed,
        all_views=options.flip,
    )
    feed = make_feed(dataset, options.train_split, train_options, processes)
    if not options.val_split:
        return feed, None
    ranks = min(processes.world_size, dataset.count(options.val_split))
    if processes.rank >= ranks:  # more ranks than images
        return feed, ()
    val_options = LoaderOptions(
        batch_size=options.batch_size,
        mode=options.mode,
        label_maps=True,
        rank=processes.rank,
        world_size=ranks,
    )
    return feed, dataset.loader(options.val_split, val_options)


def make_feed(
    dataset: ShardDataset, split: str, options: LoaderOptions, processes: Processes
) -> Feed:
    """Return the feed of a split, resident or streaming as the options say."""
    if options.mode == "resident":
        return ResidentFeed(dataset, split, options, processes)
    return StreamingFeed(dataset, split, options, processes)


class ResidentFeed:
    """The split on the device, as stored."""

    def __init__(
        self, dataset: ShardDataset, split: str, options: LoaderOptions, processes: Processes
    ) -> None:
        resident = ResidentDataset(dataset, split, options)
        self._options, self._processes = options, processes
        self._shard_sizes = resident.shard_sizes
        self._table = resident.table.to(processes.device)
        self._bounds = batch_bounds(len(resident), options)
        self.batch_sizes = [stop - start for start, stop in pairwise(self._bounds)]

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield this rank's part of every batch of an epoch, on its device."""
        order = epoch_order(self._shard_sizes, self._options, epoch)
        placed = torch.from_numpy(order).to(self._processes.device)
        for start, stop in pairwise(self._bounds):
            rows = order[start:stop][self._processes.share]
            if len(rows):
                yield self._table.gather(rows, placed[start:stop][self._processes.share])
            else:  # a rank without an image takes the step all the same
                yield self._table.gather(order[:1], placed[:1]).blank()

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation float32 [D] of every embedding component, over all patches."""
        ends = np.cumsum(self._table.lengths)[np.cumsum(self._shard_sizes) - 1].tolist()
        embeddings = self._table.fields["embeddings"]
        return _statistics(embeddings[start:stop] for start, stop in pairwise([0, *ends]))


class StreamingFeed:
    """The split read again each epoch, by every rank; each keeps its part."""

    def __init__(
        self, dataset: ShardDataset, split: str, options: LoaderOptions, processes: Processes
    ) -> None:
        self._dataset, self._split, self._processes = dataset, split, processes
        self._loader = Loader(dataset, split, options)
        bounds = batch_bounds(self._loader.samples, options)
        self.batch_sizes = [stop - start for start, stop in pairwise(bounds)]

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield this rank's part of every batch of an epoch, on its device."""
        self._loader.set_epoch(epoch)
        share, device = self._processes.share, self._processes.device
        for batch in self._loader:
            if batch.image_ids[share]:
                yield batch.part(share).to(device)
            else:  # a rank without an image takes the step all the same
                yield batch.part(slice(1)).blank().to(device)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation float32 [D] of every embedding component, over all patches."""
        views = self._loader.options.all_views
        return _statistics(
            torch.from_numpy(
                np.concatenate(
                    [r.embeddings for r in self._dataset.read_shard(name, all_views=views)]
                )
            )
            for name in self._dataset.shard_names(self._split)
        )


def _statistics(shards: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and deviation [D] over the embeddings [·, D] of all shards, summed in float64."""
    count, shift, sums = 0, torch.zeros(1), torch.zeros(1)
    for shard in shards:
        for start in range(0, len(shard), _STATISTICS_ROWS):
            rows = shard[start : start + _STATISTICS_ROWS]
            # Sums of what is off the first patch: a component that never varies comes to exactly 0.
            shift = shift if count else rows[0].double()
            off = rows.double() - shift
            sums = sums.to(off) + torch.stack([off.sum(dim=0), off.square().sum(dim=0)])
            count += len(rows)
    mean, squares = (sums / count).unbind(0)
    deviation = (squares - mean.square()).clamp(min=0).sqrt()
    return (mean + shift).float(), deviation.float()
