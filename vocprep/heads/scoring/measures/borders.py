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

import numpy as np
from numpy.typing import NDArray

from vocprep.heads.scoring.measures.metrics import Labels

WIDTHS = (3, 8)
"""Distances in pixels that are scored, rising."""
BANDS = len(WIDTHS) + 1
"""A pixel's band is the place of the first width that it lies within, the last one: within none."""

_HALVES = slice(None, -1), slice(1, None)
_WIDEST = WIDTHS[-1]
_REACH = math.isqrt(2 * _WIDEST**2)
"""Of a void pixel that is farther from all classes no band says anything."""


def _steps_by_length() -> list[NDArray[np.int64]]:
    """Return the steps of rows and columns [S, 2] of each length up to the reach, rising."""
    side = 2 * _REACH + 1
    steps = np.argwhere(np.ones((side, side))) - _REACH
    squared = (steps**2).sum(axis=1)
    return [steps[squared == each] for each in np.unique(squared[squared <= 2 * _WIDEST**2])]


_STEPS_BY_LENGTH = _steps_by_length()


def border_bands(label_map: Labels, void: int) -> NDArray[np.uint8]:
    """Return the band of each pixel: uint8 [H, W] of a true label map [H, W]; the last of void.

    >>> border_bands(np.repeat([[1, 2]], 6, axis=1), void=0).tolist()
    [[1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1]]
    """
    bands = np.full(label_map.shape, BANDS - 1, dtype=np.uint8)
    is_class = label_map != void
    extent = tuple(_extent(is_class.any(axis=axis)) for axis in (1, 0))
    inside, is_class = label_map[extent], is_class[extent]
    if not inside.size or (inside == inside[is_class][0])[is_class].all():
        return bands  # one class has no border
    differs = _differing_squares(_void_filled(inside, is_class))
    for width in WIDTHS:
        # A window holds several classes where a square of 2×2 pixels in it does.
        first = _WIDEST - width
        near = _any_within(differs, 2 * width)[first:, first:]
        bands[extent] -= near[: inside.shape[0], : inside.shape[1]] & is_class
    return bands


def _extent(holds: NDArray[np.bool_]) -> slice:
    """Return the places from the first to the last that is true [N]; none where none is.

    >>> _extent(np.array([False, True, False, True, False]))
    slice(1, 4, None)
    """
    places = np.flatnonzero(holds)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _void_filled(classes: Labels, is_class: NDArray[np.bool_]) -> Labels:
    """Return class ids [H, W], where void is near any the nearest one plus one; the others so too.

    Void that is far from all classes is 0.
    """
    if is_class.all():
        return classes
    height, width = classes.shape
    near = _any_within(np.pad(is_class, _WIDEST), 2 * _WIDEST + 1)[:height, :width]
    padded = np.pad(np.where(is_class, classes.astype(np.int32) + 1, 0), _REACH)
    known, filled = padded.ravel(), padded.copy()
    void = np.flatnonzero(np.pad(near & ~is_class, _REACH))
    for steps in _STEPS_BY_LENGTH:
        places = void[:, None] + steps @ (padded.shape[1], 1)
        filled.ravel()[void] = nearest = known[places].max(axis=1)
        void = void[nearest == 0]
        if not len(void):
            break
    return filled[_REACH:-_REACH, _REACH:-_REACH]


def _differing_squares(classes: Labels) -> NDArray[np.bool_]:
    """Return which squares of 2×2 pixels of [H, W] hold several classes: bool [H + 15, W + 15].

    The one at [8, 8] has pixel [0, 0] as its first; those around the picture hold none.
    """
    height, width = classes.shape
    squares = np.zeros((height + 2 * _WIDEST - 1, width + 2 * _WIDEST - 1), dtype=bool)
    # Of squares that reach beyond the picture, what lies in it counts.
    inner = squares[_WIDEST - 1 :, _WIDEST - 1 :][: height + 1, : width + 1]
    beside, below = classes[:, 1:] != classes[:, :-1], classes[1:] != classes[:-1]
    for before, after in (_HALVES, _HALVES[::-1]):
        inner[before, 1:-1] |= beside
        inner[1:-1, after] |= below
    return squares


def _any_within(holds: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Return whether any value is true in the square of a side whose first place is each [H, W].

    Squares that reach beyond the last row or column are meaningless.
    """
    flat = holds.ravel()
    for stride in (holds.shape[1], 1):
        reached = 1
        while reached < side:
            step = min(reached, side - reached)
            wider = flat.copy()
            wider[: -step * stride] |= flat[step * stride :]
            flat, reached = wider, reached + step
    return flat.reshape(holds.shape)
