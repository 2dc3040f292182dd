"""Label maps as arrays of numbers: NPY files, TIFF files, and what numbers are label ids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.formats import tiff
from vocprep.formats.errors import FormatError, UnreadError
from vocprep.formats.npy import read_any_npy
from vocprep.labels.advice import no_npy, no_tiff, not_flat, too_large

MAX_PIXELS = 1 << 25
"""A label map with more pixels than this is refused as a decompression bomb."""
LARGEST_ID = 0xFFFF
VOID_OF_MINUS_ONE = 255
"""What −1 stands for, which tools write for void where the same mask as PNG has 255."""


def label_ids(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Return numbers [H, W] of any type as label ids; UnreadError unless each is one.

    −1 becomes 255, unless 255 occurs as well.

    >>> label_ids(np.array([[3.0, -1.0]])).tolist()
    [[3, 255]]
    """
    if values.dtype.kind in "bu" and values.dtype.itemsize <= 2:
        return np.ascontiguousarray(values.astype(np.uint16))
    # Of the byte order here: numpy before 2.3 crashes where it compares numbers of another.
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype == np.float16:  # whose largest number is below that of the ids
        values = values.astype(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        is_id = (values >= 0) & (values <= LARGEST_ID)
        if values.dtype.kind == "f":
            is_id &= values == np.floor(values)
        is_void = values == -1
    bad = ~(is_id | is_void)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise UnreadError(
            f"{values[row, column]} at row {row}, column {column}, where label ids are expected, "
            f"whole numbers of 0 to {LARGEST_ID}, or -1 for {VOID_OF_MINUS_ONE}; save the ids"
        )
    if is_void.any() and (values == VOID_OF_MINUS_ONE).any():
        raise UnreadError(
            f"holds both -1 and {VOID_OF_MINUS_ONE}, which are read as one id; replace -1 by the "
            "id that it stands for"
        )
    ids = np.where(is_void, values.dtype.type(0), values).astype(np.uint16)
    ids[is_void] = VOID_OF_MINUS_ONE
    return np.ascontiguousarray(ids)


def read_npy_ids(data: bytes) -> NDArray[np.uint16]:
    """Return the label map [H, W] of an NPY file; FormatError for any other."""
    if not data.startswith(b"\x93NUMPY"):
        raise UnreadError(no_npy(data))
    values = read_any_npy(data)
    if values.ndim != 2 or 0 in values.shape:
        raise UnreadError(not_flat("array", values.shape))
    _check_size(*values.shape)
    return label_ids(values)


def read_tiff_ids(data: bytes) -> NDArray[np.uint16]:
    """Return the label map [H, W] of a TIFF, grey or of a palette; FormatError for any other."""
    if not data.startswith((b"II", b"MM")):
        raise UnreadError(no_tiff(data))
    page = tiff.read_page(data)
    _check_size(page.height, page.width)
    if page.photometric in (tiff.RGB, tiff.CMYK) or page.samples != 1:
        raise UnreadError(
            f"a TIFF of {page.samples} channels, where label ids are expected; save it as PNG, and "
            'give the ids of its colours with label_kind = "colours" in the manifest'
        )
    if page.photometric == tiff.WHITE_IS_ZERO:
        raise UnreadError(
            "grey whose 0 is white, so that programs disagree about its values; save it with 0 as "
            "black"
        )
    return label_ids(tiff.read_samples(data, page)[..., 0])


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise UnreadError(too_large(width, height, MAX_PIXELS))


__all__ = ["FormatError", "label_ids", "read_npy_ids", "read_tiff_ids"]
