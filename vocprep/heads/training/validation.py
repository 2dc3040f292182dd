"""Validation between epochs: scores of the validation split, and of train images beside them.

The train images are scored as the validation split is: plain views, with the weights that the run
keeps, without dropout. So what lies between both is what the heads have learnt by heart. The loss
of the training steps is none of this: it is a mean over weights that were still changing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import RunError
from vocprep.heads.runs.log import EpochMetrics
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.state import CHECKPOINT_FILE
from vocprep.heads.scoring.split_pass import SplitCounts, score_split_of_each
from vocprep.heads.training.distributed import Processes
from vocprep.heads.training.steps import Training
from vocprep.labels.label_space import LabelSpace
from vocprep.options import LoaderOptions
from vocprep.progress import NO_PROGRESS, Progress, advancing
from vocprep.shards.columns import Columns
from vocprep.shards.reader import Loader, ShardDataset
from vocprep.shards.record import Record
from vocprep.views import ViewChoice

SCORED_SHARE = 0.02
"""Train images that a validation scores at most, as a share of the views trained on since the last
one. Scoring an image takes no longer than training on one or two."""


@dataclass(frozen=True, kw_only=True)
class ScoredImages:
    """What is scored after an epoch, this rank's part of it."""

    val: Loader
    train: Loader | None
    """Some of the split that is trained on; None where that is the validation split."""

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.val) + (0 if self.train is None else len(self.train))


def open_scored_images(
    dataset: ShardDataset,
    options: TrainOptions,
    processes: Processes,
    progress: Progress = NO_PROGRESS,
) -> ScoredImages | None:
    """Open what is scored after an epoch; None without a validation split."""
    if not options.val_split:
        return None
    loader_options = LoaderOptions(
        batch_size=options.batch_size * processes.world_size,
        mode=options.mode,
        lanes=processes.world_size,  # sums over the split depend on no order
        label_maps=True,
        rank=processes.rank,
        world_size=processes.world_size,
    )
    val, train = dataset.loader(options.val_split, loader_options, progress), None
    if options.train_split != options.val_split:
        images = scored_train_images(dataset, options)
        sample = SampledSplit(dataset, options.train_split, images)
        train = Loader(sample, options.train_split, loader_options, progress)
    return ScoredImages(val=val, train=train)


def scored_train_images(dataset: ShardDataset, options: TrainOptions) -> int:
    """Return how many train images are scored: as many as val has, unless that takes too long."""
    views = dataset.count(options.train_split, all_views=options.drawn_views)
    between = min(options.validate_every, options.epochs) * views
    sizes = [dataset.count(split) for split in (options.train_split, options.val_split)]
    return min(*sizes, ceil(SCORED_SHARE * between))


def validate(
    trainings: Sequence[Training],
    images: ScoredImages,
    labels: LabelSpace,
    progress: Progress = NO_PROGRESS,
) -> list[dict[str, Any]]:
    """Return the fields of EpochMetrics on scored images, of each of some heads on one pass.

    Every rank scores its part of the images. No rank waits for another's validation: a collective
    that waits longer than the process group's timeout would end the training.
    """
    models = [training.kept_model.eval() for training in trainings]
    total = trainings[0].processes.total
    vals = score_split_of_each(models, advancing(images.val, progress), labels, total)
    fields = [_fields("val", val) for val in vals]
    if images.train is None:
        return fields
    trains = score_split_of_each(models, advancing(images.train, progress), labels, total)
    for each, val, train in zip(fields, vals, trains, strict=True):
        each.update(_fields("train", train))
        if train.images < val.images:  # of fewer images other classes are present
            each["train_miou"] = None
    return fields


def _fields(split: str, counts: SplitCounts) -> dict[str, float | None]:
    return {
        f"{split}_loss": counts.class_loss + counts.mask_loss,
        f"{split}_class_loss": counts.class_loss,
        f"{split}_mask_loss": counts.mask_loss,
        f"{split}_miou": counts.model.miou_present(),
        f"{split}_pixel_accuracy": counts.model.pixel_accuracy(),
    }


class SampledSplit:
    """Some of a split's plain views, always the same ones, as shards that a loader draws from.

    They lie evenly spaced in as few shards as hold them, so that a pass reads little else.
    """

    def __init__(self, dataset: ShardDataset, split: str, images: int) -> None:
        self._dataset = dataset
        rows = sampled_rows(dataset.shard_sizes(split), images)
        names = dataset.shard_names(split)
        self._rows = {names[shard]: chosen for shard, chosen in rows.items()}

    @property
    def content_id(self) -> str:
        """Digest of all records of the version."""
        return self._dataset.content_id

    def shard_names(self, _split: str) -> list[str]:
        """Return the names of the shards that hold the images, in order."""
        return list(self._rows)

    def shard_sizes(self, _split: str, *, all_views: ViewChoice = False) -> list[int]:
        """Return how many images each of them holds; ``all_views`` adds none."""
        del all_views
        return [len(rows) for rows in self._rows.values()]

    def read_shard(self, name: str, *, all_views: ViewChoice = False) -> Iterator[Record]:
        """Yield the images of a shard in row order."""
        del all_views
        wanted = set(self._rows[name].tolist())
        return (row for place, row in enumerate(self._dataset.read_shard(name)) if place in wanted)

    def read_columns(self, name: str, *, all_views: ViewChoice = False) -> Columns:
        """Return the images of a shard as columns."""
        del all_views
        return self._dataset.read_columns(name).part(self._rows[name])

    def prefetch(self, names: Sequence[str]) -> None:
        """Begin to fetch shards that are read next."""
        self._dataset.prefetch(names)


def sampled_rows(sizes: Sequence[int], images: int) -> dict[int, NDArray[np.intp]]:
    """Return so many images of shards of these sizes: the rows of each shard, by its number.

    >>> {shard: rows.tolist() for shard, rows in sampled_rows([4, 4, 4, 4, 4], 3).items()}
    {2: [0, 2, 3]}
    >>> {shard: rows.tolist() for shard, rows in sampled_rows([4, 4, 4, 4, 4], 6).items()}
    {1: [0, 2, 3], 3: [0, 2, 3]}
    """
    number = max(1, ceil(images / max(sizes)))
    while sum(sizes[shard] for shard in _spaced(len(sizes), number)) < images:
        number += 1
    shards = _spaced(len(sizes), number)
    ends = np.cumsum([sizes[shard] for shard in shards])
    places = np.array(_spaced(int(ends[-1]), images))
    turns = np.searchsorted(ends, places, side="right")
    rows = places - (ends - [sizes[shard] for shard in shards])[turns]
    return {shards[turn]: rows[turns == turn] for turn in np.unique(turns).tolist()}


def _spaced(things: int, number: int) -> list[int]:
    """Return a number of things, counted from 0, that are evenly spaced."""
    return [(2 * each + 1) * things // (2 * number) for each in range(number)]


def check_finite(metrics: EpochMetrics, run_dir: Path, *, resumed: bool) -> None:
    """Raise RunError where a loss of an epoch is not finite.

    ``resumed``: the epoch is the first after a checkpoint, whose weights had a finite loss.
    """
    advice = "train again with a smaller --lr"
    if resumed:
        advice = f"{CHECKPOINT_FILE} may be damaged, train again with --overwrite"
    expected = f"{run_dir}: expected a finite loss in epoch {metrics.epoch}"
    for loss in (metrics.loss, metrics.val_loss or 0.0, metrics.train_loss or 0.0):
        if not isfinite(loss):
            raise RunError(f"{expected}, found {loss}; {advice}")
