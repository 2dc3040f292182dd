"""A label map cut into its patches, as the slots of their targets hold it.

Shape legend: H, W pixels. Returned pixels are uint8 [H, W, 3].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vocprep.drawing.label_maps import paint_label_map
from vocprep.drawing.palette import ClassStyle, Colour

LEFT_OUT_COLOUR: Colour = (0, 0, 0)
"""Of pixels whose class is none of their patch's slots."""
GAP_COLOUR: Colour = (255, 255, 255)
"""Of the lines between patches."""
_FRAME: tuple[Colour, ...] = ((0, 0, 0), (255, 255, 255))
"""The colours of a frame from the outside to the inside: one of them is seen on any colour."""


def paint_patches(
    label_map: NDArray[np.uint16], left_out: NDArray[np.bool_], style: ClassStyle, side: int
) -> NDArray[np.uint8]:
    """Return a label map [H, W] as patches of ``side`` pixels with white lines between them.

    ``left_out`` [H, W] are the pixels in no slot, which are black; void is hatched.

    >>> style = ClassStyle.of({1: "cat"}, 0, str, given={1: (9, 9, 9)})
    >>> cats = np.ones((2, 4), dtype=np.uint16)
    >>> paint_patches(cats, cats == 0, style, side=2)[1, :, 0].tolist()
    [255, 9, 255, 9]
    """
    painted = paint_label_map(label_map, style)
    painted[left_out] = LEFT_OUT_COLOUR
    painted[::side] = GAP_COLOUR
    painted[:, ::side] = GAP_COLOUR
    return painted


def frame_patches(
    pixels: NDArray[np.uint8], patches: Sequence[int], side: int
) -> NDArray[np.uint8]:
    """Return pixels with frames around some patches of ``side`` pixels, by their numbers.

    >>> frame_patches(np.full((8, 16, 3), 9, dtype=np.uint8), [1], side=8)[4, 6:, 0].tolist()
    [9, 9, 0, 255, 9, 9, 9, 9, 255, 0]
    """
    framed = pixels.copy()
    columns = pixels.shape[1] // side
    width = max(side // 16, 1)
    lines = [colour for colour in _FRAME for _ in range(width)][: (side + 1) // 2]
    for patch in patches:
        top, left = side * (patch // columns), side * (patch % columns)
        cell = framed[top : top + side, left : left + side]
        for inset, colour in enumerate(lines):
            cell[[inset, -1 - inset], inset : side - inset] = colour
            cell[inset : side - inset, [inset, -1 - inset]] = colour
    return framed
