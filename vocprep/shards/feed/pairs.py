"""Batches of records beside their mirrored views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vocprep.errors import ShardError
from vocprep.files.ids import FLIP_SUFFIX, is_plain
from vocprep.shards.feed.batches import Batch, collate
from vocprep.shards.feed.datasets import ShardSource, announced
from vocprep.shards.record import Record

_READ_AHEAD = 2
"""Shards that are named to the source before they are read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewPair:
    """A batch of records, and one of the same records mirrored, in the same order."""

    plain: Batch
    """With label maps."""
    mirrored: Batch


class PairLoader:
    """Iterates over a split in stored order: its records, each with its mirrored view."""

    def __init__(self, dataset: ShardSource, split: str, batch_size: int) -> None:
        """``dataset`` holds a mirrored view of each of the split's records."""
        self._dataset, self._batch_size = dataset, batch_size
        self._names = dataset.shard_names(split)
        self.samples = sum(dataset.shard_sizes(split))
        """Records per pass, those that are not mirrored."""

    def __iter__(self) -> Iterator[ViewPair]:
        """Yield ``batch_size`` records at once, fewer in the end.

        Raises ShardError when a record has no mirrored view.
        """
        held: list[tuple[Record, Record]] = []
        for name in announced(self._names, self._dataset, str, _READ_AHEAD):
            for pair in self._pairs(name):
                held.append(pair)
                if len(held) == self._batch_size:
                    yield _collated(held)
                    held = []
        if held:
            yield _collated(held)

    def _pairs(self, name: str) -> Iterator[tuple[Record, Record]]:
        records = {
            record.image_id: record
            for record in self._dataset.read_shard(name, all_views=("flip",))
        }
        for record_id, plain in records.items():
            if not is_plain(record_id):
                continue
            mirrored = records.get(f"{record_id}{FLIP_SUFFIX}")
            if mirrored is None:
                raise ShardError(
                    f"{name}: holds no mirrored view of {record_id}: expected one of each image; "
                    "build the shards again"
                )
            yield plain, mirrored


def _collated(pairs: Sequence[tuple[Record, Record]]) -> ViewPair:
    plain, mirrored = zip(*pairs, strict=True)
    return ViewPair(plain=collate(plain, label_maps=True), mirrored=collate(mirrored))
