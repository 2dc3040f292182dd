"""The nearest patches of a split by the cosine of their embeddings: an exact search.

Every patch is compared in single precision, in blocks that stay in a processor's cache; those that
could be among the nearest, by a bound on the rounding, are compared again in double precision. So
the result does not depend on how a machine sums.

Shape legend: N patches of a split, P of one record, D embedding.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vocprep.errors import ShardError
from vocprep.options import usable_cores
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record

_BLOCK = 2048
"""Patches that are compared at once."""
_MOST_THREADS = 4
_EXACT_BLOCK = 8192
"""Patches that are compared at once in double precision."""
_SCALES = (1e-12, 1e12)
"""Lengths of embeddings between which no product of two numbers is lost in single precision."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Patches:
    """The patches of a split, one record after another."""

    record_ids: Sequence[str]
    starts: NDArray[np.int64]
    """[records + 1] numbers of each record's first patch, and N."""
    embeddings: NDArray[np.float16] | NDArray[np.float32]
    """[N, D] as they are stored."""
    slot_labels: NDArray[np.int16]
    """[N, 4]"""
    slot_pixels: NDArray[np.uint16]
    """[N, 4]"""

    @classmethod
    def read(
        cls, dataset: ShardDataset, split: str, advance: Callable[[int], object] | None = None
    ) -> Patches:
        """Read the patches of a split, mirrored views left out.

        ``advance`` is called with the number of records read. UsageError when there is no such
        split.
        """
        names = dataset.shard_names(split)
        entries = {shard.name: shard for shard in dataset.index.shards}
        most = sum(entries[name].patches for name in names)
        columns: dict[str, NDArray[Any]] = {}
        ids, starts = [], [0]
        for number, name in enumerate(names):
            dataset.prefetch(names[number + 1 : number + 2])
            for record in dataset.read_shard(name):
                if not columns:  # mirrored views leave the end of each untouched
                    columns = _empty_columns(record, most)
                stop = starts[-1] + len(record.embeddings)
                if record.embeddings.shape[1:] != columns["embeddings"].shape[1:] or stop > most:
                    raise ShardError(
                        f"{dataset.path / name}: record {record.image_id}: embeddings "
                        f"{record.embeddings.shape}: expected {columns['embeddings'].shape[1]} "
                        f"numbers per patch, and {most:,} patches in split {split}; build the "
                        "shards again"
                    )
                for field, column in columns.items():
                    column[starts[-1] : stop] = getattr(record, field)
                ids.append(record.image_id)
                starts.append(stop)
                if advance is not None:
                    advance(1)
        fields: dict[str, Any] = {name: column[: starts[-1]] for name, column in columns.items()}
        return cls(record_ids=ids, starts=np.array(starts), **fields)


def _empty_columns(record: Record, count: int) -> dict[str, NDArray[Any]]:
    """Return columns of so many patches, each like the field of a record."""
    columns = {}
    for name in ("embeddings", "slot_labels", "slot_pixels"):
        field: NDArray[Any] = getattr(record, name)
        columns[name] = np.empty((count, *field.shape[1:]), field.dtype)
    return columns


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """The nearest patches, the nearest first; those equally near in the order of the split."""

    numbers: NDArray[np.intp]
    """[K] numbers of the patches in the index."""
    similarities: NDArray[np.float64]
    """[K] cosines, −1..1."""


class PatchIndex:
    """Finds patches of a split; it takes little memory beside what is stored of them."""

    def __init__(self, patches: Patches) -> None:
        self.patches = patches
        self._stored = torch.from_numpy(patches.embeddings)
        self._scales = _inverse_lengths(patches.embeddings)
        count = min(_MOST_THREADS, usable_cores())
        self._threads = ThreadPoolExecutor(count, "vocprep-nearest", torch.set_num_threads, (1,))
        self._parts = np.linspace(0, len(self), count + 1).astype(int).tolist()
        self._buffers = torch.empty(count, _BLOCK, self._size)
        self._lock = threading.Lock()
        self._records = {record_id: row for row, record_id in enumerate(patches.record_ids)}

    @classmethod
    def of(
        cls, dataset: ShardDataset, split: str, advance: Callable[[int], object] | None = None
    ) -> PatchIndex:
        """Read the patches of a split, and return their index; see ``Patches.read``."""
        return cls(Patches.read(dataset, split, advance))

    def __len__(self) -> int:
        """Return N."""
        return len(self.patches.embeddings)

    @property
    def _size(self) -> int:
        return int(self.patches.embeddings.shape[1])

    def locate(self, number: int) -> tuple[str, int]:
        """Return the record of a patch, and the patch's number in it."""
        starts = self.patches.starts
        record = int(np.searchsorted(starts, number, side="right")) - 1
        return self.patches.record_ids[record], number - int(starts[record])

    def number(self, record_id: str, patch: int) -> int | None:
        """Return the number of a record's patch in the index; None where it is not in it."""
        record = self._records.get(record_id)
        return None if record is None else int(self.patches.starts[record]) + patch

    def nearest(
        self, vector: NDArray[np.floating], count: int, *, without: int | None = None
    ) -> Neighbours:
        """Return the ``count`` patches whose embeddings have the largest cosine with a vector [D].

        ``without`` is the number of a patch that is left out: the one that the vector is of. An
        embedding of zeros, and one that is not finite, has the cosine 0 with all others.
        """
        candidates = self._candidates(vector, count + (without is not None))
        candidates = candidates[candidates != (-1 if without is None else without)]
        similarities = np.zeros(len(candidates))
        for start in range(0, len(candidates), _EXACT_BLOCK):
            rows = slice(start, start + _EXACT_BLOCK)
            similarities[rows] = cosines(self.patches.embeddings[candidates[rows]], vector)
        order = np.argsort(-similarities, kind="stable")[:count]
        return Neighbours(numbers=candidates[order], similarities=similarities[order])

    def _candidates(self, vector: NDArray[np.floating], count: int) -> NDArray[np.intp]:
        """Return the numbers of the patches that may be among the ``count`` nearest, in order."""
        if count >= len(self):
            return np.arange(len(self))
        scores = self._approximate(vector)
        known = np.where(np.isfinite(scores), scores, -np.inf)
        least = np.partition(known, len(self) - count)[len(self) - count]
        # What single precision does not tell is compared again, too.
        return np.flatnonzero(~(scores < least - 2 * _bound(self._size)))

    def _approximate(self, vector: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the cosines [N] in single precision; NaN where that does not suffice."""
        length = _lengths(vector.astype(np.float64)[np.newaxis])[0]
        if not (np.isfinite(length) and length > 0):
            return np.full(len(self), np.nan, dtype=np.float32)
        unit = torch.from_numpy((vector.astype(np.float64) / length).astype(np.float32))
        products = torch.empty(len(self))
        with self._lock:  # its buffers are for one search at a time
            spans = zip(self._parts[:-1], self._parts[1:], self._buffers, strict=True)
            done = [self._threads.submit(self._multiply, *s, unit, products) for s in spans]
            for each in done:
                each.result()
        scores: NDArray[np.float32] = products.numpy() * self._scales
        return scores

    def _multiply(
        self,
        start: int,
        stop: int,
        buffer: torch.Tensor,
        unit: torch.Tensor,
        products: torch.Tensor,
    ) -> None:
        for first in range(start, stop, _BLOCK):
            rows = slice(first, min(first + _BLOCK, stop))
            block = buffer[: rows.stop - rows.start]
            block.copy_(self._stored[rows])
            torch.mv(block, unit, out=products[rows])


def similarity_map(embeddings: NDArray[np.floating], patch: int) -> NDArray[np.float64]:
    """Return the cosines [P] of a record's embeddings [P, D] with that of one of its patches.

    >>> similarity_map(np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]), 0).tolist()
    [1.0, 1.0, 0.0]
    """
    return cosines(embeddings, embeddings[patch])


def cosines(embeddings: NDArray[np.floating], vector: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the cosines [N] of embeddings [N, D] with a vector [D], in double precision.

    0 where one of the two is zero or not finite.
    """
    rows, other = embeddings.astype(np.float64), vector.astype(np.float64)
    with np.errstate(all="ignore"):
        lengths = _lengths(rows) * _lengths(other[np.newaxis])
        # Each row is summed alone: equal rows have equal cosines, whatever stands beside them.
        found = (rows * other).sum(axis=1) / lengths
    result: NDArray[np.float64] = np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0).clip(-1, 1)
    return result


def _lengths(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.sqrt((rows * rows).sum(axis=1))
    return lengths


def _inverse_lengths(embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return what products [N] are multiplied by; NaN where single precision does not suffice."""
    scales = np.empty(len(embeddings), dtype=np.float32)
    for start in range(0, len(embeddings), _EXACT_BLOCK):
        rows = slice(start, start + _EXACT_BLOCK)
        with np.errstate(all="ignore"):
            lengths = _lengths(embeddings[rows].astype(np.float64))
            is_usual = (lengths > _SCALES[0]) & (lengths < _SCALES[1])
            scales[rows] = np.where(is_usual, 1 / lengths, np.nan)
    return scales


def _bound(size: int) -> float:
    """Return by how much a cosine in single precision may be wrong.

    A sum of D products, in any order and rounded after each step or not, is wrong by less than
    D · 2⁻²⁴ times the sum of their sizes (Higham, 2002), which is at most 1 here; the vector, the
    scale and the last product are rounded too.
    """
    return (size + 16) * 2.0**-23
