"""Which records a shard spans: what an index has to tell of them, so that no list of them is read.

Version 3 of dataset.json states it of each shard; of earlier versions it is computed from
samples.jsonl.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Protocol, Self

from vocprep.files.ids import is_plain, record_order
from vocprep.shards.samples import Count, Entry, RecordId, Sha256


class ShardSpan(Entry):
    """The records of one shard, in id order."""

    images: Count
    """Records that are plain views."""
    first_id: RecordId
    last_id: RecordId
    ids_sha256: Sha256
    """``ids_sha256`` of the record ids in row order."""

    @classmethod
    def of(cls, record_ids: Sequence[str]) -> Self:
        """Describe the records of a shard by their ids in row order, at least one.

        >>> span = ShardSpan.of(["a", "a#flip", "b"])
        >>> span.images, span.first_id, span.last_id
        (2, 'a', 'b')
        """
        return cls(
            images=sum(is_plain(record_id) for record_id in record_ids),
            first_id=min(record_ids, key=record_order),
            last_id=max(record_ids, key=record_order),
            ids_sha256=ids_sha256(record_ids),
        )

    def check(self, records: int) -> None:
        """Raise ValueError where it cannot be that of a shard of so many records."""
        if self.images > records:
            raise ValueError(f"images {self.images:,}: expected at most its {records:,} records")
        is_one = self.first_id == self.last_id
        if record_order(self.first_id) > record_order(self.last_id) or is_one != (records == 1):
            raise ValueError(
                f"first_id {self.first_id!r} and last_id {self.last_id!r}: expected the ends of "
                f"{records:,} different ids in order"
            )


class SpannedShard(Protocol):
    """A shard as an index lists it."""

    @property
    def split(self) -> str:
        """Name of its split."""
        ...

    @property
    def records(self) -> int:
        """Number of its records."""
        ...

    @property
    def patches(self) -> int:
        """Number of their patches."""
        ...

    @property
    def span(self) -> ShardSpan | None:
        """Which records it holds."""
        ...


def check_spans(shards: Sequence[SpannedShard], images: Mapping[str, int]) -> None:
    """Raise ValueError where spans contradict each other, or hold more than a split's images.

    ``images`` are those of each split, quarantined ones included.
    """
    last_ids: dict[str, str] = {}
    held = dict.fromkeys(images, 0)
    for row, shard in enumerate(shards):
        if shard.split not in held:
            raise ValueError(f"shards[{row}].split {shard.split!r}: expected one of the recipe")
        if shard.span is None:
            continue
        try:
            shard.span.check(shard.records)
            last_id = last_ids.get(shard.split, "")
            if record_order(shard.span.first_id) <= record_order(last_id):
                raise ValueError(
                    f"first_id {shard.span.first_id!r}: expected one after "
                    f"{last_id!r}, the last of the shard before it"
                )
        except ValueError as error:
            raise ValueError(f"shards[{row}].span: {error}") from error
        last_ids[shard.split] = shard.span.last_id
        held[shard.split] += shard.span.images
    for split, count in held.items():
        if count > images[split]:
            raise ValueError(
                f"spans of split {split}: expected at most the {images[split]:,} images of the "
                f"recipe, found {count:,}"
            )


def check_views(shards: Sequence[SpannedShard], views: int) -> None:
    """Raise ValueError where shards do not hold so many views of each image."""
    for row, shard in enumerate(shards):
        if shard.span is not None and shard.records != shard.span.images * views:
            raise ValueError(
                f"shards[{row}].span.images {shard.span.images:,}: expected records, "
                f"{shard.records:,}, to be {views} times as many, the views of the recipe"
            )


def check_sums(shards: Sequence[SpannedShard], statistics: Mapping[str, Any]) -> None:
    """Raise ValueError where records and patches of shards are not those of the statistics."""
    sums: dict[str, dict[str, int]] = {}
    for shard in shards:
        counts = sums.setdefault(shard.split, {"records": 0, "patches": 0})
        counts["records"] += shard.records
        counts["patches"] += shard.patches
    stated = statistics.get("splits")
    stated = stated if isinstance(stated, dict) else {}
    for split in sorted({*sums, *stated}):
        found = stated.get(split)
        for name, count in sums.get(split, {"records": 0, "patches": 0}).items():
            number = found.get(name) if isinstance(found, dict) else None
            if number != count:
                raise ValueError(
                    f"statistics.splits.{split}.{name}: expected {count:,}, the sum over its "
                    f"shards, found {number!r}"
                )


class SpanSearch:
    """Finds the shards of a version that can hold a record, by bisection."""

    def __init__(self, shards: Iterable[tuple[str, str, ShardSpan]]) -> None:
        """``shards`` are their splits, names and spans."""
        by_split: dict[str, list[tuple[ShardSpan, str]]] = defaultdict(list)
        for split, name, span in shards:
            by_split[split].append((span, name))
        self._shards = {
            split: sorted(each, key=lambda shard: record_order(shard[0].first_id))
            for split, each in by_split.items()
        }
        self._first_ids = {
            split: [record_order(span.first_id) for span, _ in each]
            for split, each in self._shards.items()
        }
        # The greatest id up to each shard, since in versions of earlier formats spans may overlap.
        self._last_ids = {
            split: list(accumulate((record_order(span.last_id) for span, _ in each), max))
            for split, each in self._shards.items()
        }

    def find(self, record_id: str) -> Iterator[str]:
        """Yield the names of the shards that can hold a record: at most one of each split.

        >>> spans = [ShardSpan.of(ids) for ids in (["a", "c"], ["b", "e"], ["f"])]
        >>> search = SpanSearch(zip(["train", "val", "train"], ["t0", "v0", "t1"], spans))
        >>> [list(search.find(record_id)) for record_id in ("b", "f", "g")]
        [['t0', 'v0'], ['t1'], []]
        """
        wanted = record_order(record_id)
        for split, first_ids in self._first_ids.items():
            place = bisect_right(first_ids, wanted) - 1
            while place >= 0 and self._last_ids[split][place] >= wanted:
                span, name = self._shards[split][place]
                if wanted <= record_order(span.last_id):
                    yield name
                place -= 1

    def nearest(self, record_id: str) -> Iterator[str]:
        """Yield the names of the shards, of each split, that would hold a record of this id."""
        for split, first_ids in self._first_ids.items():
            place = bisect_right(first_ids, record_order(record_id)) - 1
            yield self._shards[split][max(0, place)][1]


def ids_sha256(record_ids: Iterable[str]) -> str:
    """Return the digest of ids in this order: of each of them, followed by a line feed."""
    lines = "".join([f"{record_id}\n" for record_id in record_ids])
    return hashlib.sha256(lines.encode()).hexdigest()
