"""Label maps, errors, confidences and similarities as pixels, over an image or alone.

Shape legend: H, W pixels. Every function returns new pixels uint8 [H, W, 3].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vocprep.drawing.palette import VOID_COLOUR, ClassStyle, Colour

Pixels = NDArray[np.uint8]
"""[H, W, 3] of red, green and blue."""

ERROR_COLOUR: Colour = (214, 40, 24)
"""Of pixels whose predicted class is wrong."""
RIGHT_COLOUR: Colour = (214, 226, 236)
"""Of pixels whose predicted class is right, where there is no image."""
HATCH_COLOUR: Colour = (120, 120, 120)
"""Of the stripes over void."""
_OPACITY = 0.65
_SATURATION = 0.4
"""Of the image below a tint, so that it does not mix with the class's colour."""
_LINE_EVERY = 600
"""Contours and stripes are one pixel wide, and one more for every so many pixels of a picture."""
_STRIPE_PERIOD = 6
_MOST_COVERED = 0.6
"""Share of pixels around a pixel that contours may cover; a label map of noise would have more."""

# Matplotlib's viridis at equal distances: it is as dark as its value for every kind of eye.
_VALUE_COLOURS = np.array(
    [
        (68, 1, 84),
        (71, 44, 122),
        (59, 81, 139),
        (44, 113, 142),
        (33, 144, 141),
        (39, 173, 129),
        (92, 200, 99),
        (170, 220, 50),
        (253, 231, 37),
    ]
)


def paint_label_map(
    label_map: NDArray[np.uint16], style: ClassStyle, image: Pixels | None = None
) -> Pixels:
    """Return a label map [H, W] in the colours of its classes, laid over an image [H, W, 3].

    Without an image the colours are plain. Neighbouring classes are separated by a contour, and
    void is hatched.
    """
    colours = style.paint(label_map)
    painted = colours if image is None else _blend(muted(image), colours, _OPACITY)
    _draw_contours(painted, colours, label_map, style.void)
    _hatch(painted, label_map == style.void)
    return painted


def paint_errors(
    truth: NDArray[np.uint16],
    predicted: NDArray[np.uint16],
    style: ClassStyle,
    image: Pixels | None = None,
) -> Pixels:
    """Return where a predicted label map [H, W] differs from the true one, over an image.

    Wrong pixels are red, right ones dimmed, those that are void in the truth hatched; contours are
    those of the true classes.
    """
    wrong = (truth != predicted) & (truth != style.void)
    plain = np.full((*truth.shape, 3), RIGHT_COLOUR, dtype=np.uint8)
    ground = plain if image is None else _blend(plain, muted(image, 0.0), 0.55)
    signal = np.full_like(plain, ERROR_COLOUR)
    over = signal if image is None else _blend(muted(image, 0.0), signal, 0.7)
    painted = np.where(wrong[..., np.newaxis], over, ground)
    _draw_contours(painted, painted, truth, style.void)
    _hatch(painted, truth == style.void)
    return painted


def paint_confidence(confidence: NDArray[np.floating]) -> Pixels:
    """Return confidences [H, W] from 0 (dark blue) to 1 (yellow).

    >>> paint_confidence(np.array([[0.0, 1.0]], dtype=np.float32)).tolist()
    [[[68, 1, 84], [253, 231, 37]]]
    """
    return paint_values(confidence, 0.0, 1.0)


def paint_values(values: NDArray[np.floating], low: float, high: float) -> Pixels:
    """Return values [H, W] from ``low`` (dark blue) to ``high`` (yellow); others as the nearer.

    Where the two are equal, all values are drawn as the lowest; what is not a number, too.
    """
    within = np.clip(np.nan_to_num(values, nan=low), low, high) - low
    levels = within * (255.0 / (high - low) if high > low else 0.0)
    painted: Pixels = value_colours()[np.rint(levels).astype(np.uint8)]
    return painted


def value_colours() -> Pixels:
    """Return the colours uint8 [256, 3] from the lowest value to the highest."""
    at = np.linspace(0, len(_VALUE_COLOURS) - 1, 256)
    columns = [np.interp(at, range(len(_VALUE_COLOURS)), column) for column in _VALUE_COLOURS.T]
    return np.stack(columns, axis=-1).round().astype(np.uint8)


def muted(image: Pixels, saturation: float = _SATURATION) -> Pixels:
    """Return an image [H, W, 3] with its colours drawn towards grey."""
    colourful = Image.fromarray(image)
    return np.asarray(Image.blend(colourful.convert("L").convert("RGB"), colourful, saturation))


def hatched(height: int, width: int) -> Pixels:
    """Return the pattern of void, as in a legend."""
    painted = np.full((height, width, 3), VOID_COLOUR, dtype=np.uint8)
    _hatch(painted, np.ones((height, width), dtype=np.bool_))
    return painted


def _blend(below: Pixels, above: Pixels, opacity: float) -> Pixels:
    return np.array(Image.blend(Image.fromarray(below), Image.fromarray(above), opacity))


def _line_width(shape: tuple[int, ...]) -> int:
    return 1 + max(shape[:2]) // _LINE_EVERY


def _hatch(painted: Pixels, void: NDArray[np.bool_]) -> None:
    """Draw stripes at 45° where ``void`` is set."""
    if not void.any():
        return
    height, width = void.shape
    line = _line_width(void.shape)
    phase = np.add.outer(np.arange(height), np.arange(width)) // line % _STRIPE_PERIOD
    painted[void & (phase < _STRIPE_PERIOD // 3)] = HATCH_COLOUR


def _draw_contours(
    painted: Pixels, colours: Pixels, label_map: NDArray[np.uint16], void: int
) -> None:
    """Darken the colours on the one side of a boundary of two classes, and lighten the other's.

    A line of both can be seen between any two colours. There is none beside void, nor where so many
    boundaries meet that they would cover the classes.
    """
    line = _line_width(label_map.shape)
    dark, light = _boundary_sides(label_map, void, line)
    clear = ~_is_dense(dark | light, 4 * line)
    dark, light = dark & clear, light & clear
    painted[light] = 255 - (255 - colours[light]) // 4
    painted[dark] = colours[dark] // 3


def _is_dense(covered: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return where most of the pixels within ``radius`` of a pixel are covered."""
    blurred = Image.fromarray(covered.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(radius))
    return np.asarray(blurred) > 255 * _MOST_COVERED


def _boundary_sides(
    label_map: NDArray[np.uint16], void: int, line: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which pixels [H, W] have another class of a smaller, and of a larger id, beside them.

    Beside are the ``line`` pixels to the left, right, top and bottom.
    """
    above = np.zeros(label_map.shape, dtype=np.bool_)
    below = np.zeros(label_map.shape, dtype=np.bool_)
    for step in range(1, line + 1):
        for axis in (0, 1):
            if label_map.shape[axis] <= step:
                continue
            first, second = _pair(axis, step)
            one, other = label_map[first], label_map[second]
            apart = (one != other) & (one != void) & (other != void)
            is_larger = apart & (one > other)
            is_smaller = apart ^ is_larger
            above[first] |= is_larger
            below[first] |= is_smaller
            above[second] |= is_smaller
            below[second] |= is_larger
    return above, below & ~above


def _pair(axis: int, step: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the indices of all pixels that have a neighbour, and of that neighbour."""
    everything = (slice(None), slice(None))
    first = (*everything[:axis], slice(None, -step), *everything[axis + 1 :])
    second = (*everything[:axis], slice(step, None), *everything[axis + 1 :])
    return first, second
