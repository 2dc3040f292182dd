"""A label map cut into its patches, as the slots of their targets hold it.

Shape legend: H, W pixels. Returned pixels are uint8 [H, W, 3].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vocprep.drawing.label_maps import paint_label_map
from vocprep.drawing.palette import ClassStyle, Colour

LEFT_OUT_COLOUR: Colour = (0, 0, 0)
"""Of pixels whose class is none of their patch's slots."""
GAP_COLOUR: Colour = (255, 255, 255)
"""Of the lines between patches."""


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
