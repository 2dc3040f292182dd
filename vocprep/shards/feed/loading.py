"""The loader of a split's batches, and its state, from which another one goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from vocprep.errors import UsageError
from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.options import LoaderOptions
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.recipe import differing_fields, joined_differences
from vocprep.shards.feed.batches import Batch, collate
from vocprep.shards.feed.datasets import (
    LAST_EPOCH,
    ResidentDataset,
    ShardSource,
    StreamingDataset,
    described,
)
from vocprep.shards.feed.gathering import BatchPart, gather_columns
from vocprep.shards.feed.order import BatchPlan, Ints, batch_bounds
from vocprep.validation import NotNegative, Positive, checked, explain, from_json, to_json
from vocprep.views import ViewChoice


@checked
class _LoaderState:
    """Where a loader is in an epoch, and what decides its batches."""

    content_id: str
    split: str
    all_views: ViewChoice
    shards_sha256: str
    """Of the number of records of each of the split's shards."""
    shuffle: bool
    seed: NotNegative
    batch_size: Positive
    lanes: Positive
    epoch: Annotated[int, Field(ge=0, le=LAST_EPOCH)] = 0
    batches: NotNegative = 0
    """Batches of the epoch that were drawn."""


class Loader:
    """Iterates over the batches of a split: over each one's records that this rank draws.

    All ranks draw the same number of batches. One of which a rank draws no record is blank there:
    it has no image ids, and its tensors hold one record of padding only. ``set_epoch`` chooses the
    order of the next pass.
    """

    def __init__(
        self,
        dataset: ShardSource,
        split: str,
        options: LoaderOptions | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        """``progress`` is told of the shards that are read into memory at once."""
        self.options = options = options or LoaderOptions()
        sizes = dataset.shard_sizes(split, all_views=options.all_views)
        self._split, self._plan = split, BatchPlan.of(sizes, options)
        self._begun = _LoaderState(
            content_id=dataset.content_id,
            split=split,
            all_views=options.all_views,
            shards_sha256=sha256_hex(canonical_json(sizes)),
            shuffle=options.shuffle,
            seed=options.seed,
            batch_size=options.batch_size,
            lanes=self._plan.lanes,
        )
        self._next = self._drawn = 0  # batches before the next pass, and those that were drawn
        self._blank: Batch | None = None
        self._source: ResidentDataset | StreamingDataset
        if options.mode == "resident":
            self._source = ResidentDataset(dataset, split, options, progress)
            self._bounds = batch_bounds(sizes, options)
        else:
            self._source = StreamingDataset(dataset, split, options)

    @property
    def samples(self) -> int:
        """Records per epoch, those of all ranks together."""
        return self._plan.records

    def __len__(self) -> int:
        """Return the number of batches per epoch, which is the same for every rank."""
        return self._plan.batches

    def __repr__(self) -> str:
        return described(self, self._split, self.options, f"{len(self)} batches, ")

    @property
    def epoch(self) -> int:
        """The epoch whose order is drawn, from 0."""
        return self._source.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass.

        It begins with the first batch, unless ``load_state_dict`` has set another one of the same
        epoch.
        """
        if epoch != self.epoch:
            self._source.set_epoch(epoch)
            self._next = self._drawn = 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is, after the last batch that it gave: plain JSON values.

        It is the same on every rank.
        """
        return to_json(replace(self._begun, epoch=self.epoch, batches=self._drawn))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let the next pass go on where the loader was that ``state_dict`` is of.

        It draws the rest of that epoch, whatever mode, workers, rank and world size were, and reads
        nothing of what comes before. Raises UsageError when the state is of another split, or of
        options that draw other batches.
        """
        try:
            is_mapping = isinstance(state_dict, Mapping)
            state = from_json(_LoaderState, dict(state_dict) if is_mapping else state_dict)
        except (TypeError, ValueError, UsageError) as error:
            raise UsageError(
                f"state of a loader: {explain(error)}; expected what a loader's state_dict returned"
            ) from error
        begun = replace(self._begun, epoch=state.epoch, batches=state.batches)
        if differences := differing_fields(to_json(state), to_json(begun)):
            raise UsageError(
                "state of a loader of other batches, there and here: "
                f"{joined_differences(differences)}; load it into a loader of the same version, "
                "split and options, or begin the epoch anew"
            )
        if state.batches > len(self):
            raise UsageError(
                f"state of a loader: batches {state.batches}: expected at most the {len(self)} of "
                "an epoch"
            )
        self._source.set_epoch(state.epoch)
        self._next = self._drawn = state.batches

    def __iter__(self) -> Iterator[Batch]:
        first, self._next = self._next, 0
        self._drawn = first
        return self._counted(self._batches(first), first)

    def _counted(self, batches: Iterator[Batch], first: int) -> Iterator[Batch]:
        for number, batch in enumerate(batches, start=first + 1):
            self._drawn = number
            yield batch

    def _batches(self, first: int) -> Iterator[Batch]:
        if isinstance(self._source, ResidentDataset):
            return self._gathered(self._source, self._source.order, first)
        return self._streamed(self._source.batches(first))

    def _gathered(self, source: ResidentDataset, order: Ints, first: int) -> Iterator[Batch]:
        for start, stop in pairwise(self._bounds[first:]):
            if start < stop:
                yield source.gather(order[start:stop], label_maps=self.options.label_maps)
            else:
                yield self._blank_batch()

    def _streamed(self, batches: Iterator[list[BatchPart]]) -> Iterator[Batch]:
        for parts in batches:
            if parts:
                batch = gather_columns(parts, label_maps=self.options.label_maps)
            else:
                batch = self._blank_batch()
            parts.clear()  # which hold their shards, in memory for as long
            yield batch

    def _blank_batch(self) -> Batch:
        """Return a batch without records, made once of any record that there is."""
        if self._blank is None:
            source, label_maps = self._source, self.options.label_maps
            if isinstance(source, ResidentDataset):
                self._blank = source.gather(np.zeros(1, np.intp), label_maps=label_maps).blank()
            else:
                self._blank = collate([source.example()], label_maps=label_maps).blank()
        return self._blank
