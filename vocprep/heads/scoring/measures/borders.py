"""Borders: which pixels lie near a border between two classes of the true label map.

Scores over such pixels alone are those of a *trimap* (Kohli, Ladický and Torr, Robust Higher Order
Potentials for Enforcing Label Consistency, IJCV 2009): most pixels lie inside large areas, so that
scores over all pixels hardly tell where the heads draw the borders.

A pixel lies within d pixels of a border when the square of side 2·d + 1 around it holds a pixel of
another class (the distance is the larger one of rows and columns), at the scale of the geometry.
Void is no class: a void pixel takes the class of the nearest pixel that has one, of several as near
the largest id, so that the border of two classes lies in the middle of an outline left void, as in
VOC. Where the picture ends, or its padding begins, is no border. Void pixels themselves are never
scored.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vocprep.heads.scoring.measures.metrics import Labels

WIDTHS = (3, 8)
"""Distances in pixels that are scored, rising."""
BANDS = len(WIDTHS) + 1
"""A pixel's band is the place of the first width that it lies within, the last one: within none."""

Value = TypeVar("Value", np.bool_, np.int32)
_ABOVE = 1 << 17
"""More than any class id plus one."""
_HALVES = slice(None, -1), slice(1, None)


def border_bands(label_map: Labels, void: int) -> NDArray[np.uint8]:
    """Return the band of each pixel: uint8 [H, W] of a true label map [H, W].

    >>> border_bands(np.repeat([[1, 2]], 6, axis=1), void=0).tolist()
    [[1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1]]
    """
    classes = _void_filled(np.where(label_map == void, 0, label_map.astype(np.int32) + 1))
    # Where the largest and the smallest id around a pixel differ, another class is next to it.
    below = np.where(classes > 0, _ABOVE - classes, 0)
    smallest = _ABOVE - _largest_around(below)
    near = (classes > 0) & (_largest_around(classes) != smallest)
    bands = np.full(label_map.shape, BANDS - 1, dtype=np.uint8)
    reached = 1
    for width in WIDTHS:
        for _ in range(width - reached):
            near = _largest_around(near)
        reached = width
        bands -= near
    return bands


def _void_filled(classes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return class ids plus one [H, W] with the nearest one at void (0) that is near any."""
    for _ in range(WIDTHS[-1]):
        if classes.all():
            break
        classes = np.where(classes > 0, classes, _largest_around(classes))
    return classes


def _largest_around(values: NDArray[Value]) -> NDArray[Value]:
    """Return the largest of each value [H, W] and the up to eight around it."""
    for axis in (0, 1):
        largest = values.copy()
        rows, shown = np.moveaxis(values, axis, 0), np.moveaxis(largest, axis, 0)
        for one, other in (_HALVES, _HALVES[::-1]):
            np.maximum(shown[one], rows[other], out=shown[one])
        values = largest
    return values
