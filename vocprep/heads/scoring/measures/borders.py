"""Borders: which pixels lie near a border between two classes of the true label map.

Scores over such pixels alone are those of a *trimap* (Kohli, Ladický and Torr, Robust Higher Order
Potentials for Enforcing Label Consistency, IJCV 2009): most pixels lie inside large areas, so that
scores over all pixels hardly tell where the heads draw the borders.

A pixel lies within d pixels of a border when the square of side 2·d + 1 around it holds a pixel of
another class (the distance is the larger one of rows and columns), at the scale of the geometry.
Void is no class. Inside the smallest rectangle that holds all pixels of a class, a void pixel takes
the class of the nearest one, by Euclidean distance, of several as near the largest id: the border
of two classes lies in the middle of an outline left void, as in VOC. Outside that rectangle nothing
has a class, so that the end of a picture is no border and padding changes no band. Void pixels
themselves are never scored.
"""

from __future__ import annotations

import math
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


_REACH = math.isqrt(2 * WIDTHS[-1] ** 2)
"""Of a void pixel that is farther from all classes no band says anything."""


def _steps_by_length() -> list[NDArray[np.int64]]:
    """Return the steps of rows and columns [S, 2] of each length up to the reach, rising."""
    side = 2 * _REACH + 1
    steps = np.argwhere(np.ones((side, side))) - _REACH
    squared = (steps**2).sum(axis=1)
    return [steps[squared == each] for each in np.unique(squared[squared <= 2 * WIDTHS[-1] ** 2])]


_STEPS_BY_LENGTH = _steps_by_length()


def border_bands(label_map: Labels, void: int) -> NDArray[np.uint8]:
    """Return the band of each pixel: uint8 [H, W] of a true label map [H, W].

    >>> border_bands(np.repeat([[1, 2]], 6, axis=1), void=0).tolist()
    [[1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1]]
    """
    bands = np.full(label_map.shape, BANDS - 1, dtype=np.uint8)
    is_class = label_map != void
    rows, columns = (_extent(is_class.any(axis=axis)) for axis in (1, 0))
    inside = label_map[rows, columns].astype(np.int32) + 1
    classes = _void_filled(np.where(is_class[rows, columns], inside, 0))
    # Where the largest and the smallest id around a pixel differ, another class is next to it.
    below = np.where(classes > 0, _ABOVE - classes, 0)
    smallest = _ABOVE - _largest_around(below)
    near = (classes > 0) & (_largest_around(classes) != smallest)
    reached = 1
    for width in WIDTHS:
        for _ in range(width - reached):
            near = _largest_around(near)
        reached = width
        bands[rows, columns] -= near
    return bands


def _extent(holds: NDArray[np.bool_]) -> slice:
    """Return the places from the first to the last that is true [N]; none where none is.

    >>> _extent(np.array([False, True, False, True, False]))
    slice(1, 4, None)
    """
    places = np.flatnonzero(holds)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _void_filled(classes: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return class ids plus one [H, W] with the nearest one at void (0) that is near any."""
    if classes.all():
        return classes
    near = classes > 0
    for _ in range(WIDTHS[-1]):
        near = _largest_around(near)
    padded = np.pad(classes, _REACH)
    known, filled = padded.ravel(), padded.copy()
    void = np.flatnonzero(np.pad(near, _REACH) & (padded == 0))
    for steps in _STEPS_BY_LENGTH:
        places = void[:, None] + steps @ (padded.shape[1], 1)
        filled.ravel()[void] = nearest = known[places].max(axis=1)
        void = void[nearest == 0]
        if not len(void):
            break
    return filled[_REACH:-_REACH, _REACH:-_REACH]


def _largest_around(values: NDArray[Value]) -> NDArray[Value]:
    """Return the largest of each value [H, W] and the up to eight around it."""
    for axis in (0, 1):
        largest = values.copy()
        rows, shown = np.moveaxis(values, axis, 0), np.moveaxis(largest, axis, 0)
        for one, other in (_HALVES, _HALVES[::-1]):
            np.maximum(shown[one], rows[other], out=shown[one])
        values = largest
    return values
