"""Resizing many pictures of any sizes together, on a device, to the bits of Pillow.

The pictures lie one behind the other in one array. Each filter multiplies, for all pixels of all
pictures at once, the first source pixel with its weight, then the second, and so on, and adds them
up: integers, as ``vocprep.resampling`` defines.

Shape legend: N pictures, U different resizes among them; a is the axis that is filtered first, b
the other; A, B pixels that are kept along them; T weights of a pixel; R pixels along b that the
second filter needs of all pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.resampling import COLUMNS, ROWS, WEIGHT_BITS, Filter, Resize, bilinear_weights

TOGETHER = 1 << 23
"""Pixels that a filter computes at once, which bounds its memory: about 60 bytes for each."""
_HALF = 1 << (WEIGHT_BITS - 1)
"""Added before the last bits are dropped, which rounds."""


def resize_together(pixels: Tensor, resizes: Sequence[Resize]) -> Tensor:
    """Return what resizes keep of pictures: uint8 [N, h, w, 3], on the device of ``pixels``.

    ``pixels`` uint8 [pixels, 3] are what is ``needed`` of each picture, row-major, one behind the
    other. All resizes keep the same number of rows and of columns.
    """
    sizes = [resize.needed_size for resize in resizes]
    offsets = np.cumsum([0, *(rows * columns for rows, columns in sizes)])
    kept = resizes[0].kept
    shape = (len(resizes), *kept, 3)
    resized = torch.empty(shape, dtype=torch.uint8, device=pixels.device)
    for axis in (ROWS, COLUMNS):
        along = [place for place, resize in enumerate(resizes) if resize.order[0] == axis]
        for some in _bounded(along, [sizes[place][1 - axis] for place in along], kept[axis]):
            chosen = [resizes[place] for place in some]
            found = _resize(pixels, offsets[some], chosen, axis)
            resized[some] = found if axis == COLUMNS else found.transpose(1, 2)
    return resized


class _Taps(NamedTuple):
    """Where each weight's source pixel lies, and the weights: both [U, T, kept]."""

    places: Tensor
    weights: Tensor


def _resize(pixels: Tensor, offsets: NDArray[np.intp], resizes: list[Resize], axis: int) -> Tensor:
    """Return uint8 [N, B, A, 3] of pictures that are all filtered along ``axis`` first."""
    distinct = list(dict.fromkeys(resizes))
    numbers = {resize: number for number, resize in enumerate(distinct)}
    which = np.array([numbers[resize] for resize in resizes])
    sizes = np.array([resize.needed_size for resize in resizes])
    strides = (sizes[:, 1], np.ones_like(sizes[:, 1]))  # pixels from one row, and column, on
    lengths, device = sizes[:, 1 - axis], pixels.device
    taps = [_taps([each.along(of) for each in distinct], device) for of in (axis, 1 - axis)]

    starts = np.concatenate(
        [
            offset + np.arange(length) * stride
            for offset, length, stride in zip(offsets, lengths, strides[1 - axis], strict=True)
        ]
    )
    rows = torch.from_numpy(np.repeat(which, lengths)).to(device)
    along = torch.from_numpy(np.repeat(strides[axis], lengths)).to(device)[:, None]
    begin = torch.from_numpy(starts).to(device)[:, None]
    places, weights = taps[0]
    once = _sums(
        (
            pixels[begin + places[rows, tap] * along],
            weights[rows, tap][..., None],
        )
        for tap in range(places.shape[1])
    )  # [R, A, 3]

    chosen = torch.from_numpy(which).to(device)
    first = torch.from_numpy(np.cumsum([0, *lengths])[:-1]).to(device)[:, None]
    places, weights = taps[1]
    return _sums(
        (once[first + places[chosen, tap]], weights[chosen, tap][..., None, None])
        for tap in range(places.shape[1])
    )


def _sums(products: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the sums of pixels uint8 times weights int32, rounded to uint8."""
    values, weights = next(products)
    sums = values.int().mul_(weights).add_(_HALF)
    for values, weights in products:
        sums += values.int().mul_(weights)
    return (sums >> WEIGHT_BITS).to(torch.uint8)


def _taps(filters: Sequence[Filter], device: torch.device) -> _Taps:
    """Return the taps of filters; those of a filter that has fewer weights are filled up by 0."""
    pairs = [bilinear_weights(each) for each in filters]
    most = max(weights.shape[1] for _, weights in pairs)
    places = np.stack(
        [
            # Past the end of the source weights are 0, but something must be read.
            np.minimum(first + np.arange(most)[:, None], each.needed.stop - 1) - each.needed.start
            for each, (first, _) in zip(filters, pairs, strict=True)
        ]
    )
    weights = np.zeros(places.shape, dtype=np.int32)
    for into, (_, some) in zip(weights, pairs, strict=True):
        into[: some.shape[1]] = some.T
    return _Taps(torch.from_numpy(places).to(device), torch.from_numpy(weights).to(device))


def _bounded(places: list[int], lengths: Sequence[int], kept: int) -> Iterator[list[int]]:
    """Cut pictures into lists of ``TOGETHER`` pixels at most that the first filter computes."""
    some: list[int] = []
    count = 0
    for place, length in zip(places, lengths, strict=True):
        if some and count + length * kept > TOGETHER:
            yield some
            some, count = [], 0
        some.append(place)
        count += length * kept
    if some:
        yield some
