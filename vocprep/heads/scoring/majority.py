"""The constant prediction that scores stand beside: the most frequent classes of a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vocprep.heads.runs.run import Run
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.targets import SLOTS
from vocprep.progress import NO_PROGRESS, Progress, task
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record


@dataclass(frozen=True, kw_only=True)
class MajorityBaseline:
    """The constant prediction: one class everywhere, four classes per patch for the recall."""

    split: str
    classes: tuple[int, ...]
    """Ids of the split's up to four most frequent classes by pixels, the most frequent first."""


def majority_baseline(
    run: Run, dataset: ShardDataset, split: str, progress: Progress = NO_PROGRESS
) -> MajorityBaseline:
    """Return the most frequent classes of the split that a run was trained on.

    They are those of ``split`` where the dataset version does not have the other.
    """
    trained_on = run.config.options.train_split
    source = trained_on if trained_on in dataset.splits else split

    def records() -> Iterator[Record]:
        names = dataset.shard_names(source)
        for number, name in enumerate(names):
            dataset.prefetch(names[number + 1 : number + 2])
            for record in dataset.read_shard(name):
                yield record
                progress.advance(1)

    with task(progress, f"classes of {source}", dataset.count(source)):
        classes = most_frequent_classes(records(), run.config.labels)
    return MajorityBaseline(split=source, classes=tuple(classes))


def most_frequent_classes(records: Iterable[Record], space: LabelSpace) -> list[int]:
    """Return up to four class ids by descending pixels, ties to the smaller id; never none.

    Pixels are counted in the slots, and in the label map where a patch has more classes than
    slots.
    """
    pixels = np.zeros(1 << 16, dtype=np.int64)
    for record in records:
        if record.label_count.max(initial=0) > SLOTS:
            found = np.bincount(record.decode_label_map().ravel())
        else:
            present = record.slot_labels >= 0
            weights = record.slot_pixels[present]
            found = np.bincount(record.slot_labels[present], weights).astype(np.int64)
        pixels[: len(found)] += found
    pixels[space.void] = 0
    order = np.argsort(-pixels, kind="stable")[:SLOTS]
    return [int(class_id) for class_id in order if pixels[class_id]] or [min(space.names)]
