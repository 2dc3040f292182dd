"""Placement: the pixels of an image and of its label map, brought to the patch grid of a geometry.

One geometry moves an image (antialiased bilinear) and its label map (nearest) alike, so that a
pixel of the label map stays the label of the same pixel of the image.

Shape legend: H, W pixels of the source; h, w = 32·ny, 32·nx pixels after the geometry;
P = ny·nx patches, row-major.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import DataError
from vocprep.files.ids import is_plain
from vocprep.geometry import MAX_PIXELS, PATCH, SHORTER, SIDE, Geometry, Grid, patch_grid
from vocprep.resampling import Filter, Resize, resize_with_pillow
from vocprep.views import CROP_GEOMETRY, Box

Scalar = TypeVar("Scalar", bound=np.generic)


def place_image(image: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """Bring an image [H, W, 3] to its patch grid: uint8 [h, w, 3].

    The resize is in fixed point, so that its bits do not depend on the machine.
    """
    resize = image_resize(image.shape[0], image.shape[1], geometry)
    if resize is None:
        return _fit_native(image, geometry, fill=None)
    return resize_with_pillow(image, resize)


@lru_cache(maxsize=1024)
def image_resize(height: int, width: int, geometry: Geometry) -> Resize | None:
    """Return how a geometry resizes an image, and what it keeps; None for ``native``.

    Raises DataError for an image that is too long and thin.
    """
    if geometry.geometry == "native":
        return None
    rows, columns = (
        Filter(source, target, _centre(target), _centre(target) + SIDE)
        for source, target in zip((height, width), _resized(height, width, geometry), strict=True)
    )
    return Resize(rows, columns)


def place_view(
    image: NDArray[np.uint8], record_id: str, geometry: Geometry, box: Box | None
) -> NDArray[np.uint8]:
    """Bring an image [H, W, 3] to its patch grid as the view that a record is of.

    ``box`` is where a crop lies in the image, None for other views.
    """
    if box is not None:
        return place_image(image[box], CROP_GEOMETRY)
    placed: NDArray[np.uint8] = place_image(image, geometry)
    return placed if is_plain(record_id) else mirror(placed)


def place_labels(label_map: NDArray[Scalar], geometry: Geometry, void: int) -> NDArray[Scalar]:
    """Bring a label map [H, W] to its patch grid: same dtype, [h, w]; padding becomes ``void``."""
    height, width = label_map.shape
    if geometry.geometry == "native":
        return _fit_native(label_map, geometry, fill=void)
    target_h, target_w = _resized(height, width, geometry)
    rows = nearest_indices(height, target_h)[_centre(target_h) :][:SIDE]
    columns = nearest_indices(width, target_w)[_centre(target_w) :][:SIDE]
    placed: NDArray[Scalar] = label_map[rows].take(columns, axis=1)
    return placed


def whole_labels(label_map: NDArray[Scalar], geometry: Geometry) -> NDArray[Scalar]:
    """Bring a label map [H, W] to the geometry's scale and leave nothing out: same dtype.

    What ``place_labels`` covers is a part of it: the middle for ``crop``, the whole patches for
    ``native``.
    """
    height, width = label_map.shape
    if geometry.geometry == "native":
        return label_map
    target_h, target_w = _resized(height, width, geometry)
    rows, columns = nearest_indices(height, target_h), nearest_indices(width, target_w)
    resized: NDArray[Scalar] = label_map[np.ix_(rows, columns)]
    return resized


def nearest_indices(source: int, target: int) -> NDArray[np.intp]:
    """Return for each of ``target`` pixels the source pixel under its centre, in exact integers.

    >>> nearest_indices(source=4, target=2).tolist()
    [1, 3]
    """
    return (2 * np.arange(target) + 1) * source // (2 * target)


def split_patches(pixels: NDArray[Scalar]) -> NDArray[Scalar]:
    """Cut [h, w, ...] into patches [P, 32, 32, ...], row-major."""
    ny, nx = pixels.shape[0] // PATCH, pixels.shape[1] // PATCH
    tiles = pixels.reshape(ny, PATCH, nx, PATCH, *pixels.shape[2:]).swapaxes(1, 2)
    return np.ascontiguousarray(tiles).reshape(ny * nx, PATCH, PATCH, *pixels.shape[2:])


def join_patches(patches: NDArray[Scalar], grid: Grid) -> NDArray[Scalar]:
    """Join patches [P, 32, 32, ...] to [h, w, ...]: the inverse of ``split_patches``.

    >>> pixels = np.arange(64 * 96).reshape(64, 96)
    >>> bool((join_patches(split_patches(pixels), (2, 3)) == pixels).all())
    True
    """
    ny, nx = grid
    tiles = patches.reshape(ny, nx, PATCH, PATCH, *patches.shape[3:]).swapaxes(1, 2)
    return np.ascontiguousarray(tiles).reshape(ny * PATCH, nx * PATCH, *patches.shape[3:])


def mirror(pixels: NDArray[Scalar]) -> NDArray[Scalar]:
    """Mirror [h, w, ...] left to right."""
    return np.ascontiguousarray(pixels[:, ::-1])


def _resized(height: int, width: int, geometry: Geometry) -> tuple[int, int]:
    """Return (height, width) after the resize and before the crop, rounded as torchvision does."""
    if geometry.geometry == "squash":
        return SIDE, SIDE
    longer = SHORTER * max(height, width) // min(height, width)
    if SHORTER * longer > MAX_PIXELS:
        problem = (
            f"a picture of {width}×{height} pixels is too long and thin to crop: expected sides "
            f"that differ at most {MAX_PIXELS // SHORTER**2} times"
        )
        raise DataError(
            f"{problem}; cut it into parts, or build with --geometry squash or native",
            recorded=f"{problem}; use --geometry squash or native",
        )
    return (SHORTER, longer) if height <= width else (longer, SHORTER)


def _centre(length: int) -> int:
    """Return where the middle ``SIDE`` of ``length`` pixels begins, rounded as torchvision does."""
    return round((length - SIDE) / 2)


def _fit_native(array: NDArray[Any], geometry: Geometry, fill: int | None) -> NDArray[Any]:
    """Cut to whole patches, or pad to them: with ``fill``, or with the edge where it is None."""
    height, width = array.shape[:2]
    ny, nx = patch_grid(height, width, geometry)
    if geometry.edge == "drop":
        return array[: ny * PATCH, : nx * PATCH]
    margins = [(0, ny * PATCH - height), (0, nx * PATCH - width)]
    margins += [(0, 0)] * (array.ndim - 2)
    if fill is None:
        return np.pad(array, margins, mode="edge")
    return np.pad(array, margins, constant_values=fill)
