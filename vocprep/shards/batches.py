"""Batches: several pictures' patches as the tensors that a training step takes.

Shape legend: B batch, P patches (the longest of the batch; shorter pictures are padded), T patches
of all pictures of the batch, D embedding, K = 4 slots.
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
    columns = {
        name: torch.from_numpy(np.concatenate([getattr(record, name) for record in records]))
        for name in PADDING
    }
    return pad_patches(
        tuple([record.image_id for record in records]),
        torch.tensor([record.grid for record in records]),
        columns,
        decode_label_maps(records) if label_maps else None,
    )


def decode_label_maps(records: Sequence[Record]) -> tuple[NDArray[np.uint16], ...]:
    """Decode label maps without keeping them: a split's maps are larger than all else of it."""
    return tuple(record.decode_label_map() for record in records)


def pad_patches(
    image_ids: tuple[str, ...],
    grids: Tensor,
    columns: Mapping[str, Tensor],
    label_maps: tuple[NDArray[np.uint16], ...] | None,
) -> Batch:
    """Return the batch of B records from their patches, one's after the other's.

    ``grids`` is int64 [B, 2]; ``columns`` holds each field of ``PADDING`` as stored, [T, …].
    """
    lengths = grids.prod(dim=1)
    padding = torch.arange(int(lengths.max())) >= lengths[:, None]
    # Records of one size are in place as they are: most geometries' case.
    places = (~padding).flatten().nonzero().flatten() if bool(padding.any()) else None
    return Batch(
        image_ids=image_ids,
        grids=grids,
        padding=padding,
        label_maps=label_maps,
        **{name: _pad(name, column, padding, places) for name, column in columns.items()},
    )


def _pad(name: str, patches: Tensor, padding: Tensor, places: Tensor | None) -> Tensor:
    """Return a field [B, P, …] in a batch's dtype from its patches [T, …] as stored.

    ``padding`` is [B, P]; ``places`` holds the row of [B·P] for each patch, None where T = B·P.
    """
    # torch computes little with uint16, so a batch has other dtypes than a shard.
    patches = patches.to(_BATCH_DTYPES.get(name, patches.dtype))
    row = patches.shape[1:]
    if places is not None:
        filler = torch.as_tensor(PADDING[name], dtype=patches.dtype)
        rows = filler.expand(padding.numel(), *row).contiguous()
        patches = rows.index_copy_(0, places, patches)
    return patches.view(*padding.shape, *row)
