"""What a finished dataset version is and holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from pydantic import BaseModel

from vocprep.errors import ShardError
from vocprep.shards.index import DATASET_FILE, DatasetIndex, read_index
from vocprep.shards.listed import check_files
from vocprep.shards.samples import Count
from vocprep.storage.places import Place, parse_place
from vocprep.validation import explain, from_json


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """What one split of a version holds."""

    split: str
    records: int
    patches: int
    void_percent: float
    """Pixels of class void."""
    other_percent: float
    """Pixels of classes that are not among the four largest of their patch."""


@dataclass(frozen=True, kw_only=True)
class VersionSummary:
    """A dataset version: its index, and sums over its splits and shards."""

    index: DatasetIndex
    splits: tuple[SplitSummary, ...]
    """Of all splits of the recipe, also those without a record."""
    bytes: int
    """Of all shards."""

    def __repr__(self) -> str:
        splits = ", ".join(f"{split.split} {split.records:,}" for split in self.splits)
        return f"VersionSummary({self.short_id}, records: {splits}; {self.bytes:,} bytes)"

    @classmethod
    def of(cls, index: DatasetIndex) -> Self:
        """Sum up what an index lists."""
        return cls(
            index=index,
            splits=_summarize_splits(index),
            bytes=sum(shard.bytes for shard in index.shards),
        )

    @property
    def short_id(self) -> str:
        """Recipe and content in one short name: ``context460-crop224-resnet32-fp32@1f3a9c…``."""
        return self.index.short_id

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: the index with the sums beside its fields."""
        return {
            **self.index.model_dump(mode="json"),
            "short_id": self.short_id,
            "splits": [asdict(split) for split in self.splits],
            "bytes": self.bytes,
        }


class _SplitCounts(BaseModel):
    """What ``inspect`` needs of a split's counts in dataset.json."""

    records: Count
    patches: Count
    pixels: Count
    void_pixels: Count
    other_pixels: Count


class _Statistics(BaseModel):
    splits: dict[str, _SplitCounts]


def _summarize_splits(index: DatasetIndex) -> tuple[SplitSummary, ...]:
    """Return a summary of each split of the recipe; ShardError when there are no counts."""
    try:
        counts = from_json(_Statistics, index.statistics).splits
    except ValueError as error:
        raise ShardError(
            f"{DATASET_FILE}: statistics: {explain(error)}; build the shards again"
        ) from error
    return tuple(_summarize_split(split, counts.get(split)) for split in index.recipe.splits)


def _summarize_split(split: str, counts: _SplitCounts | None) -> SplitSummary:
    if counts is None:
        return SplitSummary(split=split, records=0, patches=0, void_percent=0.0, other_percent=0.0)
    return SplitSummary(
        split=split,
        records=counts.records,
        patches=counts.patches,
        void_percent=100 * counts.void_pixels / max(counts.pixels, 1),
        other_percent=100 * counts.other_pixels / max(counts.pixels, 1),
    )


def inspect(path: str | Place) -> VersionSummary:
    """Return what a finished dataset version is and holds.

    Raises ShardError when it is no version, or a shard is missing or of another size.
    """
    path = parse_place(path)
    index = read_index(path)
    check_files(path, index)
    return VersionSummary.of(index)
