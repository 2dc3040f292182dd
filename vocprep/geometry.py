"""Geometry: how an image of any size becomes a grid of 32×32 patches.

One geometry moves an image (antialiased bilinear) and its label map (nearest) alike, so that a
pixel of the label map stays the label of the same pixel of the image.

Shape legend: H, W pixels of the source; h, w = 32·ny, 32·nx pixels after the geometry;
P = ny·nx patches, row-major.
"""

from __future__ import annotations

from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import model_validator

from vocprep.errors import DataError, UsageError
from vocprep.validation import checked

PATCH = 32
"""Side of a patch in pixels."""
SIDE = 224
"""Side of the square that ``crop`` and ``squash`` produce: 7×7 patches."""
SHORTER = 256
"""What ``crop`` brings the shorter side to before it crops."""
WINDOWS = (32, 64, 128, 256)
"""Sides of the windows around a patch that ``shrink_windows`` can bring to a patch's size."""
MAX_PIXELS = 1 << 26
"""An image so long and thin that ``crop`` would blow it up beyond this is refused."""

GeometryKind = Literal["crop", "squash", "native"]
EdgeRule = Literal["drop", "pad"]
Grid = tuple[int, int]
Scalar = TypeVar("Scalar", bound=np.generic)


@checked
class Geometry:
    """The choice of a geometry."""

    geometry: GeometryKind = "crop"
    """``crop``: shorter side to 256, centre 224×224. ``squash``: straight to 224×224. ``native``:
    no resize."""
    edge: EdgeRule = "drop"
    """What ``native`` does with the rows and columns past the last whole patch: leave them out, or
    fill the patch up (image: edge pixels repeated; label map: void)."""

    @model_validator(mode="after")
    def _edge_has_an_effect(self) -> Self:
        """Refuse an edge rule that would change nothing."""
        if self.edge == "pad" and self.geometry != "native":
            raise UsageError(
                f"edge 'pad' goes with geometry 'native' only, found {self.geometry!r}: leave "
                "--edge out"
            )
        return self

    @property
    def covers_all(self) -> bool:
        """Whether every pixel of an image lies in a patch."""
        return self.geometry == "squash" or self.edge == "pad"

    @property
    def short_name(self) -> str:
        """A name for people: ``crop224``, ``squash224``, ``native``, ``native-pad``."""
        if self.geometry == "native":
            return "native-pad" if self.edge == "pad" else "native"
        return f"{self.geometry}{SIDE}"


def patch_grid(height: int, width: int, geometry: Geometry) -> Grid:
    """Return (ny, nx), the patches per column and per row of an image of height × width pixels.

    Raises DataError when no whole patch fits.

    >>> patch_grid(375, 500, Geometry(geometry="native"))
    (11, 15)
    """
    if geometry.geometry != "native":
        return SIDE // PATCH, SIDE // PATCH
    if geometry.edge == "pad":
        return -(-height // PATCH), -(-width // PATCH)
    ny, nx = height // PATCH, width // PATCH
    if ny == 0 or nx == 0:
        problem = (
            f"a picture of {width}×{height} pixels has no whole {PATCH}×{PATCH} patch: expected "
            f"at least {PATCH} pixels a side"
        )
        raise DataError(
            f"{problem}; enlarge it, or build with --edge pad or --geometry crop or squash",
            recorded=f"{problem}; use edge pad, or another geometry",
        )
    return ny, nx


def place_image(image: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """Bring an image [H, W, 3] to its patch grid: uint8 [h, w, 3].

    Pillow's fixed-point bilinear filter is used because its bits do not depend on the machine.
    """
    height, width = image.shape[:2]
    if geometry.geometry == "native":
        return _fit_native(image, geometry, fill=None)
    target_h, target_w = _resized(height, width, geometry)
    top, left = _centre(target_h), _centre(target_w)
    if geometry.geometry == "crop" and height <= width:
        return _resize_middle(image, target_w, left)
    pixels = Image.fromarray(np.ascontiguousarray(image))
    resized = pixels.resize((target_w, target_h), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)))


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


def shrink_windows(image: NDArray[np.uint8], window: int) -> tuple[NDArray[np.uint8], int]:
    """Shrink an image [h, w, 3] so that its windows become 32×32 tiles.

    A window of ``window`` pixels per side, one of ``WINDOWS``, lies centred on each patch, the
    image mirrored at its border. Returns the image with that border, every square of
    (window/32)² pixels averaged and rounded: uint8; and the step in pixels from one window's tile
    to the next. Whole numbers only, so the bits do not depend on the machine.
    """
    factor = window // PATCH
    if factor == 1:
        return image, PATCH
    margin = (window - PATCH) // 2
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    height, width = padded.shape[0] // factor, padded.shape[1] // factor
    squares = padded.reshape(height, factor, width, factor, 3).astype(np.uint16)
    area = factor * factor
    shrunk = (squares.sum(axis=(1, 3), dtype=np.uint16) + area // 2) // area
    return shrunk.astype(np.uint8), PATCH // factor


def scale_patches(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize an image [32·ny, 32·nx, 3] so that its patches are ``side`` pixels wide: uint8.

    By the filter of ``place_image``; the image itself where the patches stay as they are.
    """
    if side == PATCH:
        return image
    height, width = (length // PATCH * side for length in image.shape[:2])
    pixels = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(pixels.resize((width, height), Image.Resampling.BILINEAR))


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


def _resize_middle(image: NDArray[np.uint8], target_w: int, left: int) -> NDArray[np.uint8]:
    """Resize a picture [H, W, 3] that is not high to [256, target_w], and return its middle.

    The pixels are those of a resize of the whole. Pillow filters within rows first, then within
    columns, where the width shrinks at least as much as the height; here each filter runs alone,
    over what the next step needs. A part of a side can be filtered with the weights of the whole
    where it begins and ends at multiples of 1/16 pixel, which are exact in every type of floats:
    that is so of the height, but not of the width.
    """
    height = len(image)
    scale, margin = height / SHORTER, _centre(SHORTER)
    support = max(1, -(-height // SHORTER)) + 1
    first = max(0, int(margin * scale) - support)
    last = min(height, int((margin + SIDE) * scale) + 1 + support)
    rows = Image.fromarray(np.ascontiguousarray(image[first:last]))
    wide = rows.resize((target_w, last - first), Image.Resampling.BILINEAR)
    middle = wide.crop((left, 0, left + SIDE, last - first))
    box = (0, margin * scale - first, SIDE, (margin + SIDE) * scale - first)
    return np.asarray(middle.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box))


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
