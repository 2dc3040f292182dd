"""Feeding: a split's batches on the device that trains, resident there or streamed to it.

Either way the batches are those of ``vocprep.shards.reader.Loader``, in its order. The resident
split stays as stored, float16 and bit planes, and a batch is one gather on the device: nothing is
done in Python for each picture, and nothing waits for a GPU.

Shape legend: B batch, P patches (the longest of the batch), D embedding, K = 4 slots.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vocprep.heads.training.processes import Processes
from vocprep.labels.targets import NO_LABEL
from vocprep.options import LoaderOptions
from vocprep.shards.batches import PADDING
from vocprep.shards.reader import Batch, Loader, ResidentDataset, ShardDataset, epoch_order

_STATISTICS_ROWS = 4096
"""Patches whose squares are summed at once, in float64."""


@dataclass(frozen=True, eq=False)
class StepBatch:
    """One process's part of a batch, on its device."""

    images: int
    """Pictures of the whole batch, those of other processes too."""
    grids: Tensor
    """int64 [B, 2]: (ny, nx)."""
    padding: Tensor | None
    """bool [B, P], True where there is no patch; None where that is nowhere."""
    embeddings: Tensor
    """float32 [B, P, D]"""
    slot_labels: Tensor
    """int64 [B, P, 4], −1 where absent or padded."""
    slot_pixels: Tensor
    """Integers [B, P, 4]."""
    slot_planes: Tensor
    """uint8 [B, P, 3, 128]; padded patches are all void."""


class Feed(Protocol):
    """A source of batches for training."""

    samples: int
    """Records an epoch."""
    steps: int
    """Batches an epoch."""

    def batches(self, epoch: int) -> Iterator[StepBatch]:
        """Yield this process's part of every batch of an epoch."""

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation float32 [D] of every embedding component, over all patches."""


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
        self.samples = len(resident)
        self.steps = math.ceil(self.samples / options.batch_size)
        # Known to the host too, which would wait for the device to learn a batch's longest.
        self._host_lengths = resident.table.lengths
        device = processes.device
        self._grids = resident.table.grids.to(device)
        self._lengths = self._grids.prod(dim=1)
        self._starts = self._lengths.cumsum(dim=0) - self._lengths
        self._columns = {name: field.to(device) for name, field in resident.table.fields.items()}

    def batches(self, epoch: int) -> Iterator[StepBatch]:
        """Yield this process's part of every batch of an epoch."""
        order = epoch_order(self._shard_sizes, self._options, epoch)
        lengths, placed = self._host_lengths[order], torch.from_numpy(order).to(self._grids.device)
        size = self._options.batch_size
        for start in range(0, self.samples, size):
            batch = slice(start, start + size)
            own = lengths[batch][self._processes.share]
            images = len(lengths[batch])
            if len(own):
                chosen = placed[batch][self._processes.share]
                yield self._gather(chosen, images, int(own.max()), bool(own.min() < own.max()))
            else:
                yield _without_patches(self._gather(placed[:1], images, 1, uneven=True))

    def _gather(self, chosen: Tensor, images: int, longest: int, uneven: bool) -> StepBatch:
        steps = torch.arange(longest, device=chosen.device)
        rows = self._starts[chosen].unsqueeze(1) + steps
        padding = None
        if uneven:
            padding = steps >= self._lengths[chosen].unsqueeze(1)
            rows = rows.masked_fill(padding, len(self._columns["embeddings"]) - 1)
        fields = {name: column[rows] for name, column in self._columns.items()}
        return StepBatch(
            images=images,
            grids=self._grids[chosen],
            padding=padding,
            embeddings=fields["embeddings"].float(),
            slot_labels=fields["slot_labels"].long(),
            slot_pixels=fields["slot_pixels"],
            slot_planes=fields["slot_planes"],
        )

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation float32 [D] of every embedding component, over all patches."""
        ends = np.cumsum(self._host_lengths)[np.cumsum(self._shard_sizes) - 1].tolist()
        embeddings = self._columns["embeddings"]
        return _statistics(
            embeddings[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)
        )


class StreamingFeed:
    """The split read again each epoch, by every process; each keeps its part."""

    def __init__(
        self, dataset: ShardDataset, split: str, options: LoaderOptions, processes: Processes
    ) -> None:
        self._dataset, self._split, self._processes = dataset, split, processes
        self._loader = Loader(dataset, split, options)
        self.samples, self.steps = self._loader.samples, len(self._loader)

    def batches(self, epoch: int) -> Iterator[StepBatch]:
        """Yield this process's part of every batch of an epoch."""
        self._loader.set_epoch(epoch)
        for batch in self._loader:
            images, share = len(batch.image_ids), self._processes.share
            if range(images)[share]:
                yield _part(batch, images, share, self._processes.device)
            else:
                yield _without_patches(_part(batch, images, slice(1), self._processes.device))

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


def _part(batch: Batch, images: int, share: slice, device: torch.device) -> StepBatch:
    """Return some pictures of a loader's batch, no wider than the longest of them."""
    lengths = batch.grids[share].prod(dim=1)
    part = (share, slice(int(lengths.max())))
    padding = batch.padding[part]
    return StepBatch(
        images=images,
        grids=batch.grids[share].to(device),
        padding=padding.to(device) if bool(padding.any()) else None,
        embeddings=batch.embeddings[part].to(device),
        slot_labels=batch.slot_labels[part].to(device),
        slot_pixels=batch.slot_pixels[part].to(device),
        slot_planes=batch.slot_planes[part].to(device),
    )


def _without_patches(batch: StepBatch) -> StepBatch:
    """Return a batch with padding in the place of everything.

    A process whose part is empty must take the step all the same, and teach nothing by it.
    """
    planes = torch.from_numpy(PADDING["slot_planes"]).to(batch.slot_planes.device)
    return replace(
        batch,
        padding=torch.ones_like(batch.slot_labels[..., 0], dtype=torch.bool),
        embeddings=torch.zeros_like(batch.embeddings),
        slot_labels=torch.full_like(batch.slot_labels, NO_LABEL),
        slot_pixels=torch.zeros_like(batch.slot_pixels),
        slot_planes=planes.expand_as(batch.slot_planes),
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
