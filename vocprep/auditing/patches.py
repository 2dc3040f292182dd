"""The patches of a version as an audit needs them: features to learn from, and their labels.

A patch's features are the principal components of its embedding, of the mean of the patches around
it and of the mean of its picture, its place, and 1.

Shape legend: R patches of all pictures, D embedding, M components, F = 3·M + 6 features, C classes
that occur.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.analysis.finite import finite
from vocprep.geometry import Grid
from vocprep.labels.targets import NO_LABEL, PIXELS
from vocprep.progress import Progress
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record

_LARGEST = np.float32(6e4)
"""Of a feature: what half precision holds."""
_COMPONENTS = 128
"""At most; beyond them a ResNet-32 holds little that tells classes apart."""
_SAMPLE = 400
"""Pictures of each split that components are computed from."""
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Patches:
    """All patches of some pictures, those of each one after another."""

    ids: tuple[str, ...]
    splits: tuple[str, ...]
    """Of each picture."""
    grids: tuple[Grid, ...]
    starts: NDArray[np.intp]
    """First patch of each picture, and behind the last one."""
    classes: NDArray[np.int64]
    """[C] the class ids that occur in slots, ascending."""
    slots: NDArray[np.int16]
    """[R, 4] places in ``classes``, −1 where a patch has fewer."""
    pixels: NDArray[np.uint16]
    """[R, 4] of each slot."""
    void: NDArray[np.uint16]
    """[R] void pixels."""
    features: NDArray[np.float16]
    """[R, F]"""

    def rows(self, picture: int) -> slice:
        """Return where the patches of a picture are."""
        return slice(int(self.starts[picture]), int(self.starts[picture + 1]))


def read_patches(dataset: ShardDataset, splits: Sequence[str], progress: Progress) -> Patches:
    """Read the pictures of splits, without mirrored views, in the order of the shards."""
    reduce = _Reduction.of(dataset, splits)
    kept: list[tuple[Any, ...]] = []
    progress.begin("pictures", sum(dataset.count(split) for split in splits), 0)
    try:
        for split in splits:
            for record in _records(dataset, split):
                arrays = _labels_of(record)
                kept.append((record.image_id, split, record.grid, *arrays, reduce.features(record)))
                progress.advance(1)
    finally:
        progress.end()
    ids, names, grids, labels, pixels, void, features = zip(*kept, strict=True)
    slot_labels = np.concatenate(labels)
    classes = np.unique(slot_labels[slot_labels != NO_LABEL]).astype(np.int64)
    places = np.searchsorted(classes, slot_labels).astype(np.int16)
    places[slot_labels == NO_LABEL] = NO_LABEL
    return Patches(
        ids=ids,
        splits=names,
        grids=grids,
        starts=np.cumsum([0, *map(len, features)]),
        classes=classes,
        slots=places,
        pixels=np.concatenate(pixels),
        void=np.concatenate(void),
        features=np.concatenate(features),
    )


def _records(dataset: ShardDataset, split: str) -> Iterator[Record]:
    for name in dataset.shard_names(split):
        yield from dataset.read_shard(name)


def _labels_of(record: Record) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return copies of a record's slots and of its void pixels per patch."""
    # State 5, void, is the only one with bits 0 and 2.
    void = np.unpackbits(record.slot_planes[:, 0] & record.slot_planes[:, 2], axis=1).sum(axis=1)
    return record.slot_labels.copy(), record.slot_pixels.copy(), void.astype(np.uint16)


@dataclass(frozen=True)
class _Reduction:
    """Embeddings [·, D] → components [·, M], all of them on one scale."""

    mean: Floats
    axes: Floats
    """[D, M]"""

    @classmethod
    def of(cls, dataset: ShardDataset, splits: Sequence[str]) -> _Reduction:
        """Return the components of the first pictures of each split, however shards are cut."""
        sample = [
            finite(record.embeddings).astype(np.float64)
            for split in splits
            for record in islice(_records(dataset, split), _SAMPLE)
        ]
        embeddings = np.concatenate(sample)
        mean, deviation = embeddings.mean(axis=0), embeddings.std(axis=0)
        deviation[deviation == 0] = 1
        standard = (embeddings - mean) / deviation
        _, vectors = np.linalg.eigh(standard.T @ standard)
        axes = vectors[:, ::-1][:, :_COMPONENTS]
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])
        scaled = axes / deviation[:, np.newaxis]
        return cls(mean.astype(np.float32), scaled.astype(np.float32))

    def features(self, record: Record) -> NDArray[np.float16]:
        """Return the features float16 [P, F] of a record's patches."""
        ny, nx = record.grid
        centred: Floats = finite(record.embeddings) - self.mean
        own = centred @ self.axes
        around = _neighbour_means(own.reshape(ny, nx, -1)).reshape(own.shape)
        whole = np.broadcast_to(own.mean(axis=0), own.shape)
        features = np.concatenate([own, around, whole, _places(ny, nx)], axis=1)
        return features.clip(-_LARGEST, _LARGEST).astype(np.float16)


def _neighbour_means(values: Floats) -> Floats:
    """Return the mean of each patch [ny, nx, M] and of those that touch it."""
    ny, nx = values.shape[:2]
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)))
    ones = np.pad(np.ones((ny, nx, 1), dtype=np.float32), ((1, 1), (1, 1), (0, 0)))
    windows = [(slice(y, y + ny), slice(x, x + nx)) for y in range(3) for x in range(3)]
    total: Floats = sum((padded[window] for window in windows), np.zeros_like(values))
    count: Floats = sum((ones[window] for window in windows), np.zeros_like(ones[1:-1, 1:-1]))
    return total / count


def _places(ny: int, nx: int) -> Floats:
    """Return each patch's row and column, −1 to 1, their squares and product, and 1: [P, 6]."""
    rows, columns = np.meshgrid(np.linspace(-1, 1, ny), np.linspace(-1, 1, nx), indexing="ij")
    parts = [rows, columns, rows**2, columns**2, rows * columns, np.ones_like(rows)]
    places: Floats = np.stack(parts, axis=-1).reshape(ny * nx, -1).astype(np.float32)
    return places


def label_shares(patches: Patches, rows: slice | NDArray[np.intp]) -> Floats:
    """Return the pixels of each class as parts of a patch: float32 [·, C], void left out."""
    slots, pixels = patches.slots[rows], patches.pixels[rows]
    shares = np.zeros((len(slots), len(patches.classes)), dtype=np.float32)
    for slot in range(slots.shape[1]):
        found = np.flatnonzero(slots[:, slot] != NO_LABEL)
        shares[found, slots[found, slot]] = pixels[found, slot] / np.float32(PIXELS)
    return shares
