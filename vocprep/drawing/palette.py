"""Colours of classes: those that are given, and for others the most distinct ones there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
"""Red, green and blue, 0..255."""
VOID_COLOUR: Colour = (224, 224, 224)
"""Of the ground that void is hatched on."""
_MOST_COLOURS = 512
"""More cannot be told apart; further classes repeat them."""
_STEPS = np.arange(0, 256, 17)
"""Levels of each channel that colours are chosen from."""
_LIGHTNESS = (0.42, 0.88)
"""Of OKLab: darker and lighter colours cannot be told from black and from paper."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassStyle:
    """How the classes of a label space are drawn: names for people and colours by class id."""

    void: int
    name: Callable[[int], str]
    """Name of an id, of void and of unnamed ids too."""
    colours: NDArray[np.uint8]
    """[C, 3] by class id; ids from C on repeat them."""

    @classmethod
    def of(
        cls,
        names: Mapping[int, str],
        void: int,
        name: Callable[[int], str],
        given: Mapping[int, Colour] | None = None,
    ) -> ClassStyle:
        """Return the style of classes ``names``; where colours are ``given``, those are taken."""
        colours = spread_colours(min(max(names) + 1, _MOST_COLOURS)).copy()
        for class_id, colour in (given or {}).items():
            if class_id < len(colours):
                colours[class_id] = colour
        return cls(void=void, name=name, colours=colours)

    def colour(self, class_id: int) -> Colour:
        """Return the colour of a class."""
        if class_id == self.void:
            return VOID_COLOUR
        red, green, blue = self.colours[class_id % len(self.colours)].tolist()
        return red, green, blue

    def paint(self, label_map: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Return the colours uint8 [H, W, 3] of class ids [H, W]."""
        painted: NDArray[np.uint8] = self.colours[label_map % len(self.colours)]
        painted[label_map == self.void] = VOID_COLOUR
        return painted


@cache
def spread_colours(count: int) -> NDArray[np.uint8]:
    """Return ``count`` colours uint8 [count, 3], each as far as can be from those before it.

    Distances are those of OKLab (Ottosson, 2020), in which equal steps look equally large. The
    first colours do not depend on ``count``.

    >>> spread_colours(2).tolist() == spread_colours(460)[:2].tolist()
    True
    """
    levels = np.stack(np.meshgrid(_STEPS, _STEPS, _STEPS, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = oklab(levels.astype(np.uint8))
    usable = (lab[:, 0] >= _LIGHTNESS[0]) & (lab[:, 0] <= _LIGHTNESS[1])
    levels, lab = levels[usable], lab[usable]
    greys = oklab(np.array([[v] * 3 for v in (40, 128, 224)], dtype=np.uint8))
    # Greys are taken from the beginning: void and photographs have them.
    distances = np.min(((lab[:, None] - greys) ** 2).sum(axis=-1), axis=1)
    chosen: list[int] = []
    for _ in range(count):
        best = int(np.argmax(distances))
        chosen.append(best)
        distances = np.minimum(distances, ((lab - lab[best]) ** 2).sum(axis=-1))
    colours = levels[chosen].astype(np.uint8)
    colours.flags.writeable = False
    return colours


def oklab(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the OKLab coordinates [..., 3] (lightness, green to red, blue to yellow) of sRGB.

    >>> oklab(np.array([255, 255, 255], dtype=np.uint8)).round(3).tolist()
    [1.0, 0.0, 0.0]
    """
    values = colours / 255.0
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    cones = linear @ _TO_CONES.T
    lab: NDArray[np.float64] = np.cbrt(cones) @ _TO_LAB.T + 0.0
    return lab


_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
