"""Legends: which classes label maps hold, in which colours, with shares that sum to 100."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vocprep.drawing.palette import VOID_COLOUR, ClassStyle, Colour

MOST_ROWS = 12
"""Classes that a legend lists; the others are summed."""
OTHER_COLOUR: Colour = (255, 255, 255)
_TENTHS = 1000


@dataclass(frozen=True, kw_only=True)
class LegendRow:
    """One class of a legend, void, or all classes that are not listed."""

    id: int | None
    """Class id; None for the sum of those that are not listed."""
    name: str
    colour: Colour
    pixels: tuple[int, ...]
    """Per label map."""
    percents: tuple[float, ...]
    """Per label map, of all its pixels; whole tenths, whose sum over all rows is 100."""
    is_void: bool = False

    @property
    def shares(self) -> tuple[str, ...]:
        """The percentages as text: a hyphen for none, ``<0.1`` for a share below a tenth.

        >>> LegendRow(id=1, name="sky", colour=(0, 0, 0), pixels=(0, 1), percents=(0, 50)).shares
        ('-', '50.0')
        """
        return tuple(
            "-" if not pixels else f"{percent:.1f}" if percent else "<0.1"
            for pixels, percent in zip(self.pixels, self.percents, strict=True)
        )


def legend_rows(
    label_maps: NDArray[np.uint16] | Sequence[NDArray[np.uint16]],
    style: ClassStyle,
    most: int = MOST_ROWS,
) -> tuple[LegendRow, ...]:
    """Return the rows of a legend for one or more label maps [H, W], the largest class first.

    Classes beyond ``most`` are one row, and void is the last.
    """
    maps = [label_maps] if isinstance(label_maps, np.ndarray) else list(label_maps)
    areas = _areas(maps)
    void = areas.pop(style.void, None)
    ids = sorted(areas, key=lambda class_id: (-sum(areas[class_id]), class_id))
    # A row for a single class takes no more room than a row that says "1 other class".
    listed = ids if len(ids) <= most + 1 else ids[:most]
    rest = ids[len(listed) :]
    kinds: list[tuple[int | None, str, Colour, tuple[int, ...]]] = [
        (key, style.name(key), style.colour(key), areas[key]) for key in listed
    ]
    if rest:
        summed = tuple(map(sum, zip(*(areas[key] for key in rest), strict=True)))
        kinds.append((None, f"{len(rest)} other classes", OTHER_COLOUR, summed))
    if void is not None:
        kinds.append((style.void, style.name(style.void), VOID_COLOUR, void))
    columns = zip(*(area for *_, area in kinds), strict=True)
    percents = list(zip(*(rounded_shares(column) for column in columns), strict=True))
    return tuple(
        LegendRow(
            id=key,
            name=name,
            colour=colour,
            pixels=area,
            percents=shares,
            is_void=key == style.void,
        )
        for (key, name, colour, area), shares in zip(kinds, percents, strict=True)
    )


def rounded_shares(counts: Sequence[int]) -> tuple[float, ...]:
    """Return the percentages of counts in tenths that sum to 100, by largest remainders.

    >>> rounded_shares([1, 1, 1])
    (33.4, 33.3, 33.3)
    """
    total = sum(counts)
    if not total:
        return (0.0,) * len(counts)
    tenths = [count * _TENTHS // total for count in counts]
    remainders = [count * _TENTHS % total for count in counts]
    order = sorted(range(len(counts)), key=lambda index: -remainders[index])
    for index in order[: _TENTHS - sum(tenths)]:
        tenths[index] += 1
    return tuple(tenth / 10 for tenth in tenths)


def _areas(label_maps: Sequence[NDArray[np.uint16]]) -> dict[int, tuple[int, ...]]:
    """Return the pixels of every id that occurs, per label map."""
    counts = [np.bincount(label_map.ravel()) for label_map in label_maps]
    ids = np.unique(np.concatenate([np.flatnonzero(count) for count in counts]))
    return {
        int(key): tuple(int(count[key]) if key < len(count) else 0 for count in counts)
        for key in ids
    }
