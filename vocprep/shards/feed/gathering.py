"""Batches gathered from the columns of shards, without an object per record.

Shape legend: B records of a batch, b of them in one shard, P patches (the most that one has).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.shards.columns import Columns, Ints
from vocprep.shards.feed.batches import (
    BATCH_DTYPES,
    PADDING,
    Batch,
    as_tensor,
    padding_of,
    with_label_maps,
)

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class BatchPart:
    """The records of a batch that are in one shard."""

    columns: Columns
    rows: Ints
    """[b]: which of the shard's records."""
    places: Ints
    """[b]: where they are in the batch."""


def gather_columns(parts: Sequence[BatchPart], *, label_maps: bool = False) -> Batch:
    """Return what ``collate`` returns of the records of some parts, at least one, at their places.

    Each field is copied in one piece per part.
    """
    lengths = _placed([(part.places, part.columns.lengths[part.rows]) for part in parts])
    longest = int(lengths.max())
    padding = padding_of(torch.from_numpy(lengths), longest)
    has_padding = bool(lengths.min() < longest)
    grids = _placed([(part.places, part.columns.grids[part.rows]) for part in parts])
    fields: dict[str, Any] = {}
    for name, filler in PADDING.items():
        field = _gathered(parts, name, longest)
        if has_padding:
            field[padding] = torch.as_tensor(filler, dtype=field.dtype)
        fields[name] = field
    batch = Batch(
        image_ids=tuple(listed(parts, lambda part, row: part.columns.image_ids[row])),
        grids=torch.from_numpy(grids),
        padding=padding,
        has_padding=has_padding,
        **fields,
    )
    if not label_maps:
        return batch
    return with_label_maps(batch, listed(parts, lambda part, row: part.columns.read(row)))


def listed(parts: Sequence[BatchPart], value: Callable[[BatchPart, int], Item]) -> list[Item]:
    """Return a value of each record of a batch, in the batch's order."""
    values = {
        place: value(part, row)
        for part in parts
        for place, row in zip(part.places.tolist(), part.rows.tolist(), strict=True)
    }
    return [values[place] for place in range(len(values))]


def _placed(pieces: Sequence[tuple[Ints, NDArray[np.int64]]]) -> NDArray[np.int64]:
    """Return the values [·, …] of several parts at their places."""
    (_, first), *_ = pieces
    placed = np.empty((sum(len(places) for places, _ in pieces), *first.shape[1:]), np.int64)
    for places, values in pieces:
        placed[places] = values
    return placed


def _gathered(parts: Sequence[BatchPart], name: str, longest: int) -> Tensor:
    """Return a field of a batch [B, longest, …]; behind the patches of a record is anything."""
    dtype = BATCH_DTYPES[name]
    if len(parts) == 1:
        stored = as_tensor(parts[0].columns.fields[name].gather(parts[0].rows, longest))
        return stored.to(dtype).contiguous()
    count, field = sum(len(part.places) for part in parts), torch.empty(0)
    for number, part in enumerate(parts):
        stored = as_tensor(part.columns.fields[name].gather(part.rows, longest))
        if number == 0:
            field = torch.empty((count, *stored.shape[1:]), dtype=dtype)
        _put(field, part.places, stored)
    return field


def _put(field: Tensor, places: Ints, stored: Tensor) -> None:
    """Copy rows to places of a field, which as a rule are evenly spaced."""
    step = int(places[1] - places[0]) if len(places) > 1 else 1
    if (np.diff(places) == step).all():  # then nothing but the copy itself
        field[int(places[0]) : int(places[-1]) + 1 : step] = stored
    else:
        field[torch.from_numpy(places)] = stored.to(field.dtype)
