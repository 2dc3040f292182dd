"""Targets: the top-4 slots of a label map's patches, and the label map of targets.

For each patch the classes of its valid pixels (not void) are counted; the four largest, ties to the
smaller id, become its slots. Each pixel has one of six states, packed as three bit planes.

Shape legend: P patches, K = 4 slots, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vocprep.geometry import PATCH, Grid
from vocprep.placement import join_patches

SLOTS = 4
PIXELS = PATCH * PATCH
PLANES = 3
NO_LABEL = -1
"""``slot_labels`` where a patch has fewer than four classes."""
STATE_OTHER = 4
"""State of a pixel whose class is not among the patch's slots."""
STATE_VOID = 5
_NOT_VALID = np.uint16(0xFFFF)
_VOID_PLANES = np.array([[255], [0], [255]], dtype=np.uint8)
"""Bit planes of a patch without labels."""


@dataclass(frozen=True)
class Targets:
    """The targets of P patches."""

    slot_labels: NDArray[np.int16]
    """[P, 4] class ids, −1 where the patch has fewer classes."""
    slot_pixels: NDArray[np.uint16]
    """[P, 4] pixels of each slot."""
    label_count: NDArray[np.uint8]
    """[P] number of classes in the patch; 255 stands for 255 and more."""
    slot_planes: NDArray[np.uint8]
    """[P, 3, 128] plane b holds bit b of each pixel's state, in ``numpy.packbits`` order."""


def make_targets(label_map: NDArray[np.uint16], void: int) -> Targets:
    """Return the targets of a label map [32·ny, 32·nx] whose void pixels have the id ``void``.

    >>> label_map = np.full((32, 32), 7, dtype=np.uint16)
    >>> label_map[:10], label_map[10:12] = 3, 255
    >>> targets = make_targets(label_map, void=255)
    >>> targets.slot_labels.tolist(), targets.slot_pixels.tolist()
    ([[7, 3, -1, -1]], [[640, 320, 0, 0]])
    """
    return targets_with_areas(label_map, void)[0]


def targets_with_areas(label_map: NDArray[np.uint16], void: int) -> tuple[Targets, dict[int, int]]:
    """Return the targets of a label map, and the pixels of each label id in it, void included.

    >>> targets_with_areas(np.full((32, 64), 7, dtype=np.uint16), void=255)[1]
    {7: 2048}
    """
    least, most = _value_range(label_map)
    mixed = np.flatnonzero(least != most)
    pixels, only = _valid(_cut_out(label_map, mixed), void), _valid(least, void)
    runs = _find_runs(pixels, mixed, only)
    slot_labels, slot_pixels, label_count = _rank_labels(runs, len(only))
    slot_planes = np.zeros((len(only), PLANES, PIXELS // 8), dtype=np.uint8)
    slot_planes[only == _NOT_VALID] = _VOID_PLANES
    slot_planes[mixed] = _planes(pixels, slot_labels[mixed])
    targets = Targets(slot_labels, slot_pixels, label_count, slot_planes)
    return targets, _areas(runs, label_map.size, void)


def _value_range(label_map: NDArray[np.uint16]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Return the least and the greatest value of each patch [P]: the same where it is the only one.

    Rows of a whole map are compared first, which is faster than patch by patch.
    """
    ny, nx = label_map.shape[0] // PATCH, label_map.shape[1] // PATCH
    rows = label_map.reshape(ny, PATCH, nx * PATCH)
    least, most = (reduce(rows, axis=1) for reduce in (np.min, np.max))
    columns = ny * nx, PATCH
    return least.reshape(columns).min(axis=1), most.reshape(columns).max(axis=1)


def _cut_out(label_map: NDArray[np.uint16], patches: NDArray[np.intp]) -> NDArray[np.uint16]:
    """Return the pixels [M, 1024] of M patches of a label map, given by their numbers."""
    ny, nx = label_map.shape[0] // PATCH, label_map.shape[1] // PATCH
    tiles = label_map.reshape(ny, PATCH, nx, PATCH)
    return tiles[patches // nx, :, patches % nx].reshape(-1, PIXELS)


def _valid(labels: NDArray[np.uint16], void: int) -> NDArray[np.uint16]:
    """Return labels, in place of ``void`` the mark of those that are not valid."""
    return np.where(labels == void, _NOT_VALID, labels)


_Runs = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint16]]
"""Per label of each patch, void left out: the patch, the pixels, the label id."""


def _find_runs(
    pixels: NDArray[np.uint16], mixed: NDArray[np.intp], only: NDArray[np.uint16]
) -> _Runs:
    """Return the labels of the patches ``mixed``, of ``pixels`` [M, 1024], and of all others.

    These have one value each, which ``only`` [P] has. Pixels are sorted, so that each label is one
    run. That is faster than counting into a table as wide as the label space.
    """
    ordered = np.sort(pixels, axis=1)
    is_start = np.ones(ordered.shape, dtype=bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=is_start[:, 1:])
    starts = np.flatnonzero(is_start)
    plain = np.delete(np.arange(len(only)), mixed)
    patches = np.concatenate([plain, mixed[starts // PIXELS]])
    lengths = np.concatenate([np.full(len(plain), PIXELS), np.diff(starts, append=ordered.size)])
    labels = np.concatenate([only[plain], ordered.ravel()[starts]])
    valid = labels != _NOT_VALID
    return patches[valid], lengths[valid], labels[valid]


def _rank_labels(
    runs: _Runs, count: int
) -> tuple[NDArray[np.int16], NDArray[np.uint16], NDArray[np.uint8]]:
    """Return slot_labels, slot_pixels and label_count of so many patches."""
    patches, lengths, labels = runs
    order = np.argsort((patches << 32) | ((PIXELS - lengths) << 16) | labels)
    patches, lengths, labels = patches[order], lengths[order], labels[order]
    found = np.bincount(patches, minlength=count)
    first = np.cumsum(found) - found
    rank = np.arange(len(patches)) - first[patches]
    kept = rank < SLOTS
    where = patches[kept], rank[kept]
    slot_labels = np.full((count, SLOTS), NO_LABEL, dtype=np.int16)
    slot_labels[where] = labels[kept].astype(np.int16)
    slot_pixels = np.zeros((count, SLOTS), dtype=np.uint16)
    slot_pixels[where] = lengths[kept]
    return slot_labels, slot_pixels, np.minimum(found, 255).astype(np.uint8)


def _areas(runs: _Runs, pixels: int, void: int) -> dict[int, int]:
    """Return the pixels of each label id, void included, of so many in all."""
    _, lengths, labels = runs
    counts = np.bincount(labels, weights=lengths)
    areas = {label: int(counts[label]) for label in np.flatnonzero(counts).tolist()}
    void_pixels = pixels - int(lengths.sum())
    return areas | {void: void_pixels} if void_pixels else areas


def _planes(pixels: NDArray[np.uint16], slot_labels: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Return the bit planes of pixels [P, 1024] under their slots."""
    # −1 is 0xFFFF as uint16, the mark of pixels that are not valid: an absent slot equals them, so
    # the void state is written after the slots.
    ids = slot_labels.astype(np.uint16)
    slot0, slot1, slot2, slot3 = (pixels == ids[:, k, None] for k in range(SLOTS))
    void = pixels == _NOT_VALID
    bits = np.empty((len(pixels), PLANES, PIXELS), dtype=bool)
    bits[:, 0] = slot1 | slot3 | void
    bits[:, 1] = (slot2 | slot3) & ~void
    bits[:, 2] = ~(slot0 | slot1 | slot2 | slot3) | void
    return np.packbits(bits, axis=2)


def unpack_states(slot_planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the states uint8 [..., 1024] of bit planes [..., 3, 128]."""
    bits = np.unpackbits(slot_planes, axis=-1)
    one, two = np.uint8(1), np.uint8(2)
    states: NDArray[np.uint8] = (
        bits[..., 0, :] | (bits[..., 1, :] << one) | (bits[..., 2, :] << two)
    )
    return states


def count_states(slot_planes: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Return how many pixels bit planes [..., 3, 128] have: all, void ones, and ``STATE_OTHER``.

    >>> states = np.zeros((1, PIXELS), dtype=np.uint8)
    >>> states[0, :5] = [1, STATE_OTHER, STATE_VOID, STATE_OTHER, 3]
    >>> count_states(pack_states(states))
    (1024, 1, 2)
    """
    # Bit 2 is set in these two states only, and bit 0 in one of them.
    bit0, bit2 = slot_planes[..., 0, :], slot_planes[..., 2, :]
    void = int(np.bitwise_count(bit0 & bit2).sum())
    return bit2.size * 8, void, int(np.bitwise_count(bit2).sum()) - void


def pack_states(states: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the bit planes [..., 3, 128] of states [..., 1024]: the inverse of unpack_states."""
    planes = [np.packbits((states >> bit) & 1, axis=-1) for bit in range(PLANES)]
    return np.stack(planes, axis=-2)


def targets_to_label_map(targets: Targets, grid: Grid, void: int, other: int) -> NDArray[np.uint16]:
    """Return the label map [32·ny, 32·nx] that targets describe.

    It is exact except for pixels outside their patch's slots, which become ``other``.
    """
    lookup = np.empty((len(targets.slot_labels), STATE_VOID + 1), dtype=np.uint16)
    lookup[:, :SLOTS] = targets.slot_labels.astype(np.uint16)
    lookup[:, STATE_OTHER] = other
    lookup[:, STATE_VOID] = void
    pixels = np.take_along_axis(lookup, unpack_states(targets.slot_planes).astype(np.intp), axis=1)
    return join_patches(pixels.reshape(-1, PATCH, PATCH), grid)
