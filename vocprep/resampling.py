"""Resizing of 8-bit pixels in fixed point: which filter weights, and in which order.

A resize filters along one axis, rounds to 8 bits, and filters along the other. Pixels are summed
with weights in units of 2⁻²², whole numbers, so that the result does not depend on the machine. It
depends on which axis comes first, though, where Pillow's versions differ: here the order is fixed,
and each filter is a call of its own.

``resize_with_pillow`` is for a CPU, ``vocprep.features.on_device.resizing`` for a GPU. Both give
the same bits.

Shape legend: H, W pixels of the source; T weights of a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WEIGHT_BITS = 22
"""Weights are whole numbers in units of 2⁻²²: 8 bits of a pixel and these fit into 32, signed."""
ROWS, COLUMNS = 0, 1
"""Axes of a picture."""


@dataclass(frozen=True)
class Filter:
    """A resize along one axis, of which only pixels ``start`` to ``stop`` are kept."""

    source: int
    target: int
    start: int
    stop: int

    @property
    def kept(self) -> int:
        """Pixels that are kept."""
        return self.stop - self.start

    @property
    def box(self) -> tuple[float, float] | None:
        """Where in the source the kept pixels begin and end, if Pillow can filter them alone.

        Pillow takes such a box as float32, and computes weights from it in float64. These are the
        weights of the whole where nothing of that is rounded.
        """
        if self.target & (self.target - 1):  # no power of two
            return None
        scale = self.source / self.target
        box = self.start * scale, self.stop * scale
        return box if all(float(np.float32(end)) == end for end in box) else None

    @cached_property
    def needed(self) -> slice:
        """The pixels of the source that the kept ones are made of."""
        first, weights = bilinear_weights(self)
        return slice(int(first[0]), int(min(first[-1] + weights.shape[1], self.source)))


@dataclass(frozen=True)
class Resize:
    """A resize of a whole picture, of which a part is kept."""

    rows: Filter
    columns: Filter

    @classmethod
    def whole(cls, source: tuple[int, int], target: tuple[int, int]) -> Self:
        """Return the resize from one (height, width) to another, of which everything is kept."""
        rows, columns = (Filter(a, b, 0, b) for a, b in zip(source, target, strict=True))
        return cls(rows, columns)

    def along(self, axis: int) -> Filter:
        """Return the filter along an axis."""
        return self.rows if axis == ROWS else self.columns

    @cached_property
    def order(self) -> tuple[int, int]:
        """The axes in the order in which they are filtered.

        Columns come first, unless rows become fewer, and by more than twice as many as columns.
        """
        fewer_rows = self.rows.source - self.rows.target
        fewer_columns = self.columns.source - self.columns.target
        return (ROWS, COLUMNS) if fewer_rows > max(0, 2 * fewer_columns) else (COLUMNS, ROWS)

    @cached_property
    def needed(self) -> tuple[slice, slice]:
        """The rows and the columns of the source that the kept part is made of."""
        return self.rows.needed, self.columns.needed

    @cached_property
    def needed_size(self) -> tuple[int, int]:
        """How many rows and columns these are."""
        rows, columns = self.needed
        return rows.stop - rows.start, columns.stop - columns.start

    @property
    def kept(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        return self.rows.kept, self.columns.kept


@lru_cache(maxsize=1024)
def bilinear_weights(along: Filter) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the first source pixel [N] of each kept pixel, and the weights [N, T] from it on.

    The weights of a pixel fall linearly with the distance from its centre, to 0 at a distance of
    one pixel, of the source or of the target, whichever are larger; they add up to 1 but for
    rounding. Weights outside of the source are 0.
    """
    scale = along.source / along.target
    reach = max(scale, 1.0)
    centres = (np.arange(along.start, along.stop) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.int64), along.source)
    places = first[:, None] + np.arange(int((last - first).max()))
    distances = (places - centres[:, None] + 0.5) * (1.0 / reach)
    shares = np.maximum(1.0 - np.abs(distances), 0.0)
    shares[places >= last[:, None]] = 0.0
    # Summed one after the other, as numpy's own sum is not.
    shares /= np.add.accumulate(shares, axis=1)[:, -1:]
    weights = (shares * (1 << WEIGHT_BITS) + 0.5).astype(np.int32)
    for array in (first, weights):
        array.flags.writeable = False
    return first, weights


def resize_with_pillow(image: NDArray[np.uint8], resize: Resize) -> NDArray[np.uint8]:
    """Return what a resize keeps of an image [H, W, 3]: uint8, by one filter after the other."""
    first, second = resize.order
    begin = 0
    if resize.along(second).box is not None:
        needed = resize.along(second).needed
        image, begin = (image[needed] if second == ROWS else image[:, needed]), needed.start
    pixels = Image.fromarray(np.ascontiguousarray(image))
    once = _filter(pixels, resize.along(first), first, 0)
    return np.asarray(_filter(once, resize.along(second), second, begin))


def _filter(pixels: Image.Image, along: Filter, axis: int, begin: int) -> Image.Image:
    """Filter along one axis of pixels that begin with the source's pixel ``begin``."""
    width, height = pixels.size
    box, count = along.box, along.target
    start, stop = 0.0, float(along.source)
    if box is not None:
        count, start, stop = along.kept, box[0] - begin, box[1] - begin
    if axis == ROWS:
        size, area = (width, count), (0.0, start, float(width), stop)
        kept = (0, along.start, width, along.stop)
    else:
        size, area = (count, height), (start, 0.0, stop, float(height))
        kept = (along.start, 0, along.stop, height)
    resized = pixels.resize(size, Image.Resampling.BILINEAR, box=area)
    return resized if box is not None else resized.crop(kept)
