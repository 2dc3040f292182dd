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
BACKGROUND_COLOUR: Colour = (104, 118, 140)
"""Of a class that is called background: visible, and quieter than the others."""
_BACKGROUND = "background"
_MOST_COLOURS = 512
"""More cannot be told apart; further classes repeat them."""
_STEPS = np.arange(0, 256, 17)
"""Levels of each channel that colours are chosen from."""
_LIGHTNESS = (0.42, 0.88)
"""Of OKLab: darker and lighter colours cannot be told from black and from paper."""
_CHROMA = (0.05, 0.2)
"""Of OKLab: paler colours look like void and shadows, stronger ones like one another."""


def rgb_of(text: str) -> Colour:
    """Return the colour that ``#rrggbb`` names.

    >>> rgb_of("#1e90ff")
    (30, 144, 255)
    """
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def hex_of(colour: Colour) -> str:
    """Return a colour as ``#rrggbb``; ``rgb_of`` is the inverse.

    >>> hex_of((30, 144, 255))
    '#1e90ff'
    """
    return f"#{bytes(colour).hex()}"


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
        """Return the style of classes ``names``.

        Where colours are ``given``, those are taken, and the others are as far as can be from them.
        """
        given = given or {}
        outputs = max(names, default=0) + 1
        spread = spread_colours(min(outputs, _MOST_COLOURS), tuple(given.values()))
        colours = spread[np.arange(outputs) % len(spread)]
        quiet = {key: BACKGROUND_COLOUR for key, text in names.items() if text == _BACKGROUND}
        for class_id, colour in {**quiet, **given}.items():
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
def spread_colours(count: int, taken: tuple[Colour, ...] = ()) -> NDArray[np.uint8]:
    """Return ``count`` colours uint8 [count, 3], each as far as can be from those before it.

    ``taken`` are colours to stay away from. Distances are those of OKLab (Ottosson, 2020), in which
    equal steps look equally large: the distance for people who see all colours, unless it is far
    smaller for those who see no red or no green. The first colours do not depend on ``count``.

    >>> spread_colours(2).tolist() == spread_colours(460)[:2].tolist()
    True
    """
    grid = np.meshgrid(_STEPS, _STEPS, _STEPS, indexing="ij")
    levels = np.stack(grid, axis=-1).reshape(-1, 3).astype(np.uint8)
    lightness, green_to_red, blue_to_yellow = oklab(levels).T
    chroma = np.hypot(green_to_red, blue_to_yellow)
    levels = levels[_is_within(lightness, _LIGHTNESS) & _is_within(chroma, _CHROMA)]
    seen = _as_seen(levels)
    # Greys are taken from the beginning: void, background and photographs have them.
    greys = oklab(np.array([[v] * 3 for v in (40, 120, 224)], dtype=np.uint8))
    distances = np.min(((seen[0][:, np.newaxis] - greys) ** 2).sum(axis=-1), axis=1)
    for colour in np.array(taken, dtype=np.uint8).reshape(-1, 3):
        distances = np.minimum(distances, _distances(seen, _as_seen(colour[np.newaxis])))
    chosen: list[int] = []
    for _ in range(count):
        best = int(np.argmax(distances))
        chosen.append(best)
        distances = np.minimum(distances, _distances(seen, seen[:, best : best + 1]))
    colours = levels[chosen]
    colours.flags.writeable = False
    return colours


def _distances(seen: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distances [N], squared, of colours [3, N, 3] from another [3, 1, 3]."""
    smallest: NDArray[np.float64] = (((seen - other) ** 2).sum(axis=-1) * _WEIGHTS).min(axis=0)
    return smallest


def _is_within(values: NDArray[np.float64], limits: tuple[float, float]) -> NDArray[np.bool_]:
    return (values >= limits[0]) & (values <= limits[1])


def _as_seen(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return OKLab [3, N, 3] of colours [N, 3]: by all cones, without red, without green ones."""
    linear = _linear(colours)
    kinds = linear, linear @ _NO_RED.T, linear @ _NO_GREEN.T
    return np.stack([_linear_to_oklab(np.clip(seen, 0, 1)) for seen in kinds])


def oklab(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the OKLab coordinates [..., 3] (lightness, green to red, blue to yellow) of sRGB.

    >>> oklab(np.array([255, 255, 255], dtype=np.uint8)).round(3).tolist()
    [1.0, 0.0, 0.0]
    """
    return _linear_to_oklab(_linear(colours))


def _linear(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return linear light 0..1 of sRGB."""
    values = colours / 255.0
    linear: NDArray[np.float64] = np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    )
    return linear


def _linear_to_oklab(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    lab: NDArray[np.float64] = np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T + 0.0
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
_WEIGHTS = np.array([[1.0], [6.0], [6.0]])
"""Of the squared distances of ``_as_seen``; equal ones would leave few colours for anyone."""
# Linear light as seen without red and without green cones (Machado, Oliveira and Fernandes, 2009).
_NO_RED = np.array(
    [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]
)
_NO_GREEN = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)
