"""The pictures of a version as columns: what lists are filtered and sorted by, without records.

Shape legend: N pictures in id order, records and quarantined ones; mirrored views are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import ShardError
from vocprep.files.ids import is_plain
from vocprep.geometry import Grid
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.reader import ShardDataset
from vocprep.shards.samples import SAMPLES_FILE, QuarantinedSample, Sample, SampleEntry
from vocprep.validation import printable

_DIGITS = 16
"""Of a digest that two versions are compared by."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Catalogue:
    """The columns of samples.jsonl and quarantine.jsonl."""

    ids: Sequence[str]
    """The N ids, sorted."""
    split_names: tuple[str, ...]
    splits: NDArray[np.int16]
    """[N] places in ``split_names``."""
    shards: NDArray[np.int32]
    """[N] numbers of the index's shards; −1 for a quarantined picture."""
    rows: NDArray[np.int32]
    """[N] rows in the shard."""
    grids: NDArray[np.uint16]
    """[N, 2] (ny, nx); 0 for a quarantined picture."""
    image_sha256: NDArray[np.bytes_]
    """[N]"""
    targets: NDArray[np.bytes_]
    """[N] first digits of the targets' digest."""
    embeddings: NDArray[np.bytes_]
    """[N] first digits of the embeddings' digest."""
    quarantined: dict[int, QuarantinedSample]
    """By place."""

    @classmethod
    def read(cls, dataset: ShardDataset, progress: Progress = NO_PROGRESS) -> Catalogue:
        """Read the lists of a version; ShardError where they are not those of its index."""
        columns = _Columns(dataset)
        progress.begin("pictures", len(dataset), 0)
        try:
            for sample in dataset.version.stream_all():
                if is_plain(sample.id):
                    columns.add(sample)
                progress.advance(1)
        finally:
            progress.end()
        return columns.catalogue()

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each id."""
        return {record_id: place for place, record_id in enumerate(self.ids)}

    def place(self, record_id: str) -> int:
        """Return the place of a record that a shard holds; ShardError where it is not listed."""
        place = self.places.get(record_id)
        if place is None or place in self.quarantined:
            raise ShardError(
                f"{SAMPLES_FILE}: does not list {printable(record_id, 60)!r}, which a shard holds; "
                "build the shards again"
            )
        return place

    @cached_property
    def lower_ids(self) -> list[str]:
        """The ids in small letters, for searches."""
        return [record_id.casefold() for record_id in self.ids]

    @cached_property
    def is_record(self) -> NDArray[np.bool_]:
        """[N] whether there is a record, and not only a line of quarantine.jsonl."""
        is_record: NDArray[np.bool_] = self.shards >= 0
        return is_record

    @cached_property
    def patches(self) -> NDArray[np.int64]:
        """[N] patches of each picture."""
        patches: NDArray[np.int64] = self.grids.astype(np.int64).prod(axis=1)
        return patches

    def grid(self, place: int) -> Grid:
        """Return (ny, nx) of a picture."""
        ny, nx = self.grids[place].tolist()
        return ny, nx

    def split(self, place: int) -> str:
        """Return the split of a picture."""
        return self.split_names[int(self.splits[place])]

    def of_split(self, split: str) -> NDArray[np.bool_]:
        """Return for each picture [N] whether it is of a split."""
        chosen: NDArray[np.bool_] = self.splits == self.split_names.index(split)
        return chosen


class _Columns:
    """Columns that grow by one picture at a time."""

    def __init__(self, dataset: ShardDataset) -> None:
        self.names = dataset.splits
        self._splits = {name: number for number, name in enumerate(self.names)}
        self._shards = {shard.name: number for number, shard in enumerate(dataset.index.shards)}
        self.ids: list[str] = []
        self.numbers: list[tuple[int, int, int, int, int]] = []
        self.digests: list[tuple[bytes, bytes, bytes]] = []
        self.quarantined: dict[int, QuarantinedSample] = {}

    def add(self, sample: Sample) -> None:
        if sample.split not in self._splits:
            raise ShardError(
                f"{SAMPLES_FILE}: {sample.id} is of split {sample.split!r}, which the recipe does "
                "not name; build the shards again"
            )
        split = self._splits[sample.split]
        if isinstance(sample, SampleEntry):
            self.numbers.append((split, self._shards[sample.shard], sample.row, *sample.grid))
            self.digests.append(
                (
                    sample.image_sha256.encode(),
                    sample.targets_sha256[:_DIGITS].encode(),
                    sample.embeddings_sha256[:_DIGITS].encode(),
                )
            )
        else:
            self.quarantined[len(self.ids)] = sample
            self.numbers.append((split, -1, -1, 0, 0))
            self.digests.append((b"", b"", b""))
        self.ids.append(sample.id)

    def catalogue(self) -> Catalogue:
        numbers = np.array(self.numbers, dtype=np.int64).reshape(-1, 5)
        images, targets, embeddings = zip(*self.digests, strict=True) if self.digests else [()] * 3
        return Catalogue(
            ids=self.ids,
            split_names=self.names,
            splits=numbers[:, 0].astype(np.int16),
            shards=numbers[:, 1].astype(np.int32),
            rows=numbers[:, 2].astype(np.int32),
            grids=numbers[:, 3:].astype(np.uint16),
            image_sha256=np.array(images, dtype=np.bytes_),
            targets=np.array(targets, dtype=np.bytes_),
            embeddings=np.array(embeddings, dtype=np.bytes_),
            quarantined=self.quarantined,
        )
