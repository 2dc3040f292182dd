"""The records of a shard as columns: arrays over all of them, from which batches are gathered.

Shape legend: N records, P patches of a record, U units of a column, B records that are gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.shards.record import Record

Ints = NDArray[np.intp]

BATCH_FIELDS = ("embeddings", "slot_labels", "slot_pixels", "slot_planes")
"""The fields of a record, with one row per patch, that batches hold."""


@dataclass(frozen=True, eq=False)
class Column:
    """One field of the patches of N records, as stored.

    The patches of a record lie one after another, from the beginning of a unit on.
    """

    units: NDArray[np.uint8]
    """[U, bytes]"""
    starts: Ints
    """[N]: the unit with which each record begins."""
    dtype: np.dtype[Any]
    row: tuple[int, ...]
    """Shape of the field of one patch."""

    @classmethod
    def of(cls, array: NDArray[Any], offsets: Ints) -> Column:
        """Return the column of an array [·, …]: record n has its rows offsets[n] to offsets[n + 1].

        ``offsets`` [N + 1] rise from 0 to the number of rows.
        """
        lengths, units = np.diff(offsets), array.view(np.uint8)
        if (lengths == lengths[0]).all():  # whole records, which are longer pieces to copy
            return cls(units.reshape(len(lengths), -1), np.arange(len(lengths)), *_form(array))
        return cls(units.reshape(len(array), -1), offsets[:-1], *_form(array))

    def gather(self, rows: Ints, patches: int) -> NDArray[Any]:
        """Return the first patches of some records [B, patches, …].

        Behind the patches of a record that has fewer is whatever follows it in the shard.
        """
        size = patches * self.dtype.itemsize * int(np.prod(self.row))
        count = -(-size // max(1, self.units.shape[1]))
        places = self.starts[rows, np.newaxis] + np.arange(count)
        taken = self.units.take(places, axis=0, mode="clip").reshape(len(rows), -1)
        return taken[:, :size].view(self.dtype).reshape(len(rows), patches, *self.row)


def _form(array: NDArray[Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    return array.dtype, array.shape[1:]


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """N records of a shard in memory; whole columns were checked as single records are."""

    image_ids: Sequence[str]
    """The N records' ids."""
    grids: NDArray[np.int64]
    """[N, 2]: (ny, nx)."""
    fields: Mapping[str, Column]
    """Each of ``BATCH_FIELDS``."""
    read: Callable[[int], Record]
    """Returns one of the N records."""

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """[N]: patches of each record."""
        lengths: NDArray[np.int64] = self.grids.prod(axis=1)
        return lengths

    def part(self, rows: Ints) -> Columns:
        """Return some of the records."""
        fields = {
            name: Column(column.units, column.starts[rows], column.dtype, column.row)
            for name, column in self.fields.items()
        }
        numbers = rows.tolist()
        return Columns(
            image_ids=[self.image_ids[row] for row in numbers],
            grids=self.grids[rows],
            fields=fields,
            read=lambda row: self.read(numbers[row]),
        )
