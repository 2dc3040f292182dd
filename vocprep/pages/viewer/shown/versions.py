"""A dataset version that the viewer shows: its lists, and its records one by one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from vocprep.analysis.components import Components
from vocprep.analysis.neighbours import PatchIndex
from vocprep.analysis.photographs import Photographs
from vocprep.drawing.palette import hex_of
from vocprep.errors import OutOfMemoryError, ShardError
from vocprep.pages.viewer.options import ViewOptions
from vocprep.pages.viewer.queries import NotFoundError
from vocprep.pages.viewer.shown.areas import ClassAreas
from vocprep.pages.viewer.shown.audited import AuditedPictures
from vocprep.pages.viewer.shown.background import Task
from vocprep.pages.viewer.shown.catalogue import Catalogue
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.containers import ProvedShards, ShardReader
from vocprep.shards.index import remake_advice
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record
from vocprep.validation import printable

Key = TypeVar("Key")
Value = TypeVar("Value")
_COMPONENT_SECONDS = 20.0
"""That a picture of components waits for the first of them."""
_MOST_SHARDS = 256 << 20
"""Bytes of shards that are kept open for the next picture."""


class Kept(Generic[Key, Value]):
    """The values that were used last, as many as a number of bytes allows."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._lock = threading.Lock()
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """Return a value that is kept."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Key, value: Value, size: int) -> Value:
        """Keep a value of so many bytes, in the place of others; the last one always."""
        with self._lock:
            _, before = self._values.pop(key, (None, 0))
            self._values[key] = value, size
            self._bytes += size - before
            while self._bytes > self._most and len(self._values) > 1:
                _, (_, freed) = self._values.popitem(last=False)
                self._bytes -= freed
        return value


def _check_memory(size: int, what: str) -> None:
    """Raise OutOfMemoryError where so many bytes are more than half of the memory that is free."""
    available = _available_bytes()
    if available is not None and 2 * size > available:
        raise OutOfMemoryError(
            f"{what} take {size / 1e9:.1f} GB of memory, more than half of the "
            f"{available / 1e9:.1f} GB that are free; close other programs, or view a smaller "
            "version"
        )


def _available_bytes() -> int | None:
    """Return the memory that is free, None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) << 10 if found else None


class ShownVersion:
    """An opened version with its lists."""

    def __init__(
        self,
        key: str,
        dataset: ShardDataset,
        options: ViewOptions,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        self.key, self.dataset = key, dataset
        self.catalogue = Catalogue.read(dataset, progress)
        self.space = dataset.label_space
        self.is_local = isinstance(dataset.path, Path)
        self.photographs = (
            None
            if options.data_dir is None
            else Photographs.of(dataset, options.data_dir, options.dataset)
        )
        self.areas = ClassAreas(self.catalogue)
        self.name = printable(dataset.path.name or str(dataset.path))
        self.embedding_dim: int | None = None
        records = int(self.catalogue.is_record.sum())
        self.columns: Task[ClassAreas] = Task(
            lambda task: self.areas.read(dataset, task), records, f"the classes of {self.name}"
        )
        self.similar = {split: self._index_task(split) for split in self.catalogue.split_names}
        self.audited: AuditedPictures | None = None
        self._components: Task[Components] = Task(
            lambda _: Components.of(dataset), records, f"the components of {self.name}"
        )
        self._shards = ProvedShards(dataset.path, dataset.index)
        self._open: Kept[int, ShardReader] = Kept(_MOST_SHARDS)
        self._lock = threading.Lock()

    def place(self, record_id: str) -> int:
        """Return the place of a picture that has a record; NotFoundError for any other id."""
        place = self.catalogue.places.get(record_id)
        if place is None:
            raise NotFoundError(
                f"id {printable(record_id, 60)!r}: {self.dataset.path} lists no such picture"
            )
        if (bad := self.catalogue.quarantined.get(place)) is not None:
            raise NotFoundError(
                f"id {printable(record_id, 60)!r}: in quarantine, {printable(bad.reason)}"
            )
        return place

    def record(self, place: int) -> Record:
        """Return a record; ShardError where it cannot be read."""
        record = self._read(place)
        self.embedding_dim = record.embeddings.shape[1]
        return record

    def _read(self, place: int) -> Record:
        record_id = self.catalogue.ids[place]
        with self._lock:  # HDF5 and what is kept are not for several threads
            if not self.is_local:
                return self.dataset.record(record_id)
            number, row = int(self.catalogue.shards[place]), int(self.catalogue.rows[place])
            entry = self.dataset.index.shards[number]
            shard = self._open.get(number)
            if shard is None:
                shard = self._open.put(number, self._shards.open(entry.name), entry.bytes)
            if row >= len(shard) or shard.image_ids[row] != record_id:
                raise ShardError(
                    f"{self.dataset.path / entry.name}: row {row} is not the record {record_id} "
                    f"that is listed there; {remake_advice(self.dataset.path)}"
                )
            return shard.read(row)

    def components(self) -> Components:
        """Return the principal components of the version's embeddings, computed once."""
        return self._components.ask(_COMPONENT_SECONDS)

    def _index_task(self, split: str) -> Task[PatchIndex]:
        chosen = self.catalogue.of_split(split) & self.catalogue.is_record

        def read(task: Task[PatchIndex]) -> PatchIndex:
            first = np.flatnonzero(chosen)[:1].tolist()
            if first:
                embeddings = self.record(first[0]).embeddings
                patches = int(self.catalogue.patches[chosen].sum())
                _check_memory(patches * embeddings[0].nbytes, f"{patches:,} patches")
            return PatchIndex.of(self.dataset, split, task.advance)

        return Task(read, int(chosen.sum()), f"similar patches of split {split} of {self.name}")

    def photograph(self, place: int) -> NDArray[np.uint8] | None:
        """Return a picture's photograph; None where there are none.

        Raises DataError when its file cannot be read, or is not the one of the record.
        """
        if self.photographs is None:
            return None
        digest = bytes(self.catalogue.image_sha256[place]).decode()
        return self.photographs.read(self.catalogue.ids[place], digest)

    def to_json(self) -> dict[str, Any]:
        """Return the identities, splits and classes of the version."""
        index, counts = self.dataset.index, np.bincount(self.catalogue.splits, minlength=1)
        is_flipped = len(self.dataset) > int(self.catalogue.is_record.sum())
        return {
            "key": self.key,
            "name": self.name,
            "path": printable(str(self.dataset.path)),
            "short_id": index.short_id,
            "content_id": index.content_id,
            "splits": [
                {"name": name, "pictures": int(counts[number]) if number < len(counts) else 0}
                for number, name in enumerate(self.catalogue.split_names)
            ],
            "schema": self.space.name,
            "void": self.space.void,
            "classes": [
                {"id": class_id, "name": name, "colour": self.colour(class_id)}
                for class_id, name in sorted(self.space.names.items())
            ],
            "has_photographs": self.photographs is not None,
            "has_audit": self.audited is not None,
            "has_views": is_flipped,
            "quarantined": index.quarantined,
            "embedding_dim": self.embedding_dim,
            "columns": self.columns.to_json(),
            "similar": {split: task.to_json() for split, task in self.similar.items()},
        }

    def colour(self, class_id: int) -> str:
        """Return the colour of a class as ``#rrggbb``."""
        return hex_of(self.space.style.colour(class_id))
