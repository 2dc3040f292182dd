"""What a dataset version gives to the formats that it is exported to.

Shape legend: P patches of a record, h×w = 32·ny × 32·nx pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vocprep.exporting.options import ExportOptions
from vocprep.files.ids import is_plain
from vocprep.labels.label_space import LabelSpace
from vocprep.progress import Progress, advancing, task
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record
from vocprep.shards.samples import SampleEntry


@dataclass(frozen=True)
class VersionSource:
    """The records of some splits of a version, in the order of ids within each split."""

    dataset: ShardDataset
    options: ExportOptions
    progress: Progress

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits that are exported; UsageError where the version lacks one."""
        chosen = self.options.splits
        if chosen is None:
            counted = {shard.split for shard in self.dataset.index.shards}
            return [split for split in self.dataset.splits if split in counted]
        for split in chosen:
            self.dataset.shard_names(split)
        return sorted(set(chosen))

    @property
    def label_space(self) -> LabelSpace:
        """The label space of the targets and label maps."""
        return self.dataset.label_space

    @property
    def embedding_size(self) -> int:
        """D, the numbers that a patch's embedding has."""
        size: int = next(self._stored(self.splits[0])).embeddings.shape[1]
        return size

    @property
    def identity(self) -> Mapping[str, Any]:
        """What export.json says of the version and of what was taken of it."""
        index = self.dataset.index
        return {
            "kind": "dataset version",
            "content_id": index.content_id,
            "recipe_id": index.recipe_id,
            "schema": index.recipe.schema.name,
            "splits": list(self.splits),
            "views": self.options.views,
        }

    @property
    def about(self) -> Mapping[str, Any]:
        """What files say of the version that they were made of, as plain JSON values by name."""
        index = self.dataset.index
        return {
            "content_id": index.content_id,
            "recipe_id": index.recipe_id,
            "source_id": index.source_id,
            "targets_id": index.targets_id,
            "recipe": index.recipe.to_json(),
            "label_space": self.label_space.to_json(),
        }

    def samples(self, split: str) -> Iterator[SampleEntry]:
        """Yield what samples.jsonl lists of the records of a split, in their order."""
        for sample in self.dataset.version.stream_samples():
            if sample.split == split and self._is_chosen(sample.id):
                yield sample

    def records(self, split: str) -> Iterator[Record]:
        """Yield the records of a split, and report each as progress."""
        with task(self.progress, split, self.dataset.count(split, all_views=self._all_views)):
            yield from advancing(self._stored(split), self.progress)

    @property
    def _all_views(self) -> bool:
        return self.options.views == "all"

    def _is_chosen(self, record_id: str) -> bool:
        return self._all_views or is_plain(record_id)

    def _stored(self, split: str) -> Iterator[Record]:
        for name in self.dataset.shard_names(split):
            yield from self.dataset.read_shard(name, all_views=self._all_views)
