"""The ground truth of a batch's pixels: from its targets, and from label maps where these lack it.

The states of pixels give the class of all but those of a patch's fifth class and further ones, so
that few label maps are decoded.

Shape legend: B batch, P patches, N = B·P, F pixels of no slot, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.errors import UsageError
from vocprep.geometry import PATCH
from vocprep.heads.model.loss_parts import unpack_states
from vocprep.heads.scoring.measures.borders import BANDS, border_bands
from vocprep.heads.scoring.measures.pixel_counts import STATES, TruePixels
from vocprep.labels.targets import PIXELS, SLOTS, STATE_OTHER, STATE_VOID
from vocprep.placement import join_patches, split_patches
from vocprep.shards.feed.batches import Batch

Ids = NDArray[np.uint16]


def true_pixels(batch: Batch, void: int, *, borders: bool) -> TruePixels:
    """Return the ground truth of a batch, on its device.

    With ``borders`` how near pixels lie to one, too. Raises UsageError where the loader gives no
    label maps.
    """
    if batch.label_maps is None:
        raise UsageError("scores need label maps: expected a loader with label_maps=True")
    labels = batch.slot_labels.flatten(0, 1)
    states = unpack_states(batch.slot_planes).flatten(0, 1)
    other = _places_of_other(batch.slot_planes.flatten(0, 1), states)
    patches = batch.padding.shape[1]
    decoded = {
        image: split_patches(batch.label_maps[image]).reshape(-1, PIXELS)
        for image in torch.unique(other // (patches * PIXELS)).tolist()
    }
    other_labels = np.zeros(len(other), dtype=np.int64)
    image, pixel = np.divmod(other.cpu().numpy(), patches * PIXELS)
    for number, ids in decoded.items():
        other_labels[image == number] = ids.ravel()[pixel[image == number]]
    bands = None
    if borders:
        found = _bands(batch, _ids_of_slots(labels, states, void), decoded, void)
        bands = torch.from_numpy(found).to(labels.device)
    return TruePixels(
        labels=labels,
        states=states,
        bands=bands,
        other=other,
        other_labels=torch.from_numpy(other_labels).to(labels.device),
    )


def _places_of_other(planes: Tensor, states: Tensor) -> Tensor:
    """Return the places among N·1024 pixels of those in no slot: int64 [F]."""
    # Bit 2 is set in two states, bit 0 in one of them.
    patches = (planes[:, 2] & ~planes[:, 0]).any(dim=-1).nonzero().squeeze(1)
    row, pixel = (states[patches] == STATE_OTHER).nonzero(as_tuple=True)
    return patches[row] * PIXELS + pixel


def _ids_of_slots(labels: Tensor, states: Tensor, void: int) -> Ids:
    """Return the class ids [N, 1024] of pixels that belong to slots, and of void."""
    lookup = np.zeros((len(labels), STATES), dtype=np.uint16)
    lookup[:, :SLOTS] = labels.cpu().numpy()
    lookup[:, STATE_VOID] = void
    first = np.arange(0, lookup.size, STATES, dtype=np.int32)
    ids: Ids = lookup.ravel().take(states.cpu().numpy() + first[:, np.newaxis])
    return ids


def _bands(batch: Batch, ids: Ids, decoded: dict[int, Ids], void: int) -> NDArray[np.uint8]:
    """Return how near pixels lie to a border: uint8 [N, 1024]."""
    patches = batch.padding.shape[1]
    bands = np.full(ids.shape, BANDS - 1, dtype=np.uint8)
    for image, (ny, nx) in enumerate(batch.grids.tolist()):
        own = slice(image * patches, image * patches + ny * nx)
        tiles = decoded.get(image, ids[own]).reshape(-1, PATCH, PATCH)
        found = border_bands(join_patches(tiles, (ny, nx)), void)
        bands[own] = split_patches(found).reshape(-1, PIXELS)
    return bands
