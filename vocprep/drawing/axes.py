"""Label maps on matplotlib's axes, for notebooks.

Shape legend: H, W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vocprep.drawing.label_maps import paint_label_map
from vocprep.drawing.legend import legend_rows
from vocprep.drawing.palette import ClassStyle, hex_of
from vocprep.drawing.patches import paint_patches

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_label_map(
    axes: Axes,
    label_map: NDArray[np.uint16],
    style: ClassStyle,
    image: NDArray[np.uint8] | None = None,
) -> None:
    """Plot a label map [H, W], over an image [H, W, 3] where there is one, with a legend."""
    _show(axes, paint_label_map(label_map, style, image))
    _add_legend(axes, label_map, style)


def plot_patches(
    axes: Axes, label_map: NDArray[np.uint16], slots: NDArray[np.uint8], style: ClassStyle
) -> None:
    """Plot a label map [H, W] cut into its patches, the slots of each numbered from 1.

    ``slots`` [ny, nx, S, S] of the patches of S×S pixels holds the slot of each pixel, 4 and more
    for none. Pixels of a class in no slot are black.
    """
    side = slots.shape[2]
    joined = slots.transpose(0, 2, 1, 3).reshape(label_map.shape)
    left_out = (joined >= _SLOTS) & (label_map != style.void)
    _show(axes, paint_patches(label_map, left_out, style, side))
    for row, column, slot in np.ndindex(*slots.shape[:2], _SLOTS):
        rows, columns = np.nonzero(slots[row, column] == slot)
        if len(rows) >= _LEAST_NUMBERED:
            # A pixel of the slot itself: the centre of a ring would lie in another.
            middle = np.hypot(rows - rows.mean(), columns - columns.mean()).argmin()
            at = column * side + columns[middle], row * side + rows[middle]
            axes.text(*at, str(slot + 1), ha="center", va="center", fontsize="xx-small")
    _add_legend(axes, label_map, style)


_SLOTS = 4
_LEAST_NUMBERED = 24
"""Pixels of a slot below which its number would cover it."""


def _show(axes: Axes, pixels: NDArray[np.uint8]) -> None:
    axes.imshow(pixels, interpolation="nearest")
    axes.set_axis_off()


def _add_legend(axes: Axes, label_map: NDArray[np.uint16], style: ClassStyle) -> None:
    """Add a legend of the classes and their shares on the right of the axes."""
    from matplotlib.patches import Patch  # noqa: PLC0415  # slow to load

    handles = [
        Patch(
            facecolor=hex_of(row.colour),
            edgecolor="grey",
            hatch="////" if row.is_void else None,
            label=f"{row.name} {row.shares[0]} %",
        )
        for row in legend_rows(label_map, style)
    ]
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        fontsize="small",
    )
