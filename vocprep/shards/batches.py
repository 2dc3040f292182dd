"""Batches: several pictures' patches as the tensors that a training step takes.

Shape legend: B batch, P patches (the longest of the batch; shorter pictures are padded), D
embedding, K = 4 slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.labels.targets import NO_LABEL, PIXELS, STATE_VOID, pack_states
from vocprep.shards.record import Record

_VOID_PLANES = pack_states(np.full(PIXELS, STATE_VOID, dtype=np.uint8))
PADDING: dict[str, Any] = {
    "embeddings": 0,
    "slot_labels": NO_LABEL,
    "slot_pixels": 0,
    "slot_planes": _VOID_PLANES,
}
"""The patch fields of a batch, and what each holds where a picture has no patch."""
_BATCH_DTYPES = {
    "embeddings": torch.float32,
    "slot_labels": torch.int64,
    "slot_pixels": torch.int64,
}


@dataclass(frozen=True, eq=False)
class Batch:
    """Several pictures' patches, padded to one length."""

    image_ids: tuple[str, ...]
    grids: Tensor
    """int64 [B, 2]: (ny, nx)."""
    padding: Tensor
    """bool [B, P], True where there is no patch: a key-padding mask."""
    embeddings: Tensor
    """float32 [B, P, D], 0 where padded."""
    slot_labels: Tensor
    """int64 [B, P, 4], −1 where absent or padded."""
    slot_pixels: Tensor
    """int64 [B, P, 4]"""
    slot_planes: Tensor
    """uint8 [B, P, 3, 128]; padded patches are all void."""
    label_maps: tuple[NDArray[np.uint16], ...] | None = None
    """Each [32·ny, 32·nx] under the schema; only when asked for."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on a device."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def collate(records: Sequence[Record], *, label_maps: bool = False) -> Batch:
    """Pad records to one length and stack them: a DataLoader's collate function."""
    lengths = [len(record.embeddings) for record in records]
    return make_batch(
        records,
        torch.tensor([record.grid for record in records]),
        {
            name: _join([getattr(record, name) for record in records], lengths, name)
            for name in PADDING
        },
        label_maps=label_maps,
    )


def _join(arrays: Sequence[NDArray[Any]], lengths: Sequence[int], name: str) -> Tensor:
    """Return a field's arrays [P_k, …] padded and behind one another, [B·P, …], in one copy."""
    longest, shortest = max(lengths), min(lengths)
    if longest > shortest:
        filler = padding_patches(name, arrays[0], longest - shortest)
        arrays = [
            piece
            for array, length in zip(arrays, lengths, strict=True)
            for piece in (array, filler[: longest - length])
        ]
    return torch.from_numpy(np.concatenate(arrays))


def padding_patches(name: str, like: NDArray[Any], count: int) -> NDArray[Any]:
    """Return what a field [count, …] holds where there is no patch, with the dtype of ``like``."""
    filler = np.empty((count, *like.shape[1:]), dtype=like.dtype)
    filler[:] = PADDING[name]
    return filler


def make_batch(
    records: Sequence[Record], grids: Tensor, columns: Mapping[str, Tensor], *, label_maps: bool
) -> Batch:
    """Return the batch of B records from their padded patches.

    ``grids`` is int64 [B, 2]; ``columns`` holds each field of ``PADDING`` as stored, [B·P, …].
    """
    lengths = grids.prod(dim=1)
    padding = torch.arange(int(lengths.max())) >= lengths[:, None]
    # torch computes little with uint16, so a batch has other dtypes than a shard.
    tensors = {
        name: column.to(_BATCH_DTYPES.get(name, column.dtype)).view(
            *padding.shape, *column.shape[1:]
        )
        for name, column in columns.items()
    }
    return Batch(
        image_ids=tuple([record.image_id for record in records]),
        grids=grids,
        padding=padding,
        # Not kept by the records: a split's label maps are larger than all else of it.
        label_maps=tuple(record.decode_label_map() for record in records) if label_maps else None,
        **tensors,
    )
