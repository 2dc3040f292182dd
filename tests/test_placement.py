"""Placement: pictures and label maps move alike, and sizes are exact."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vocprep.errors import DataError
from vocprep.geometry import PATCH, SHORTER, SIDE, Geometry, patch_grid
from vocprep.placement import (
    join_patches,
    mirror,
    nearest_indices,
    place_image,
    place_labels,
    split_patches,
    whole_labels,
)

CROP = Geometry()
SQUASH = Geometry(geometry="squash")
NATIVE = Geometry(geometry="native")
PAD = Geometry(geometry="native", edge="pad")
VOID = 999
SIZES = st.tuples(st.integers(1, 120), st.integers(1, 120))


def quadrants(height: int, width: int) -> NDArray[np.uint16]:
    """Four large regions whose borders are off centre, so that a shift or a swap shows."""
    label_map = np.full((height, width), 10, dtype=np.uint16)
    label_map[: height * 2 // 5] += 60
    label_map[:, : width * 3 // 7] += 100
    return label_map


def far_from_borders(label_map: NDArray[np.uint16], reach: int) -> NDArray[np.bool_]:
    """Pixels whose square neighbourhood of ``reach`` holds one label."""
    padded = np.pad(label_map, reach, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1,) * 2)
    same: NDArray[np.bool_] = windows.min(axis=(2, 3)) == windows.max(axis=(2, 3))
    return same


@pytest.mark.parametrize("geometry", [CROP, SQUASH, NATIVE, PAD], ids=lambda g: g.short_name)
@pytest.mark.parametrize(("height", "width"), [(150, 201), (375, 250), (260, 256)])
def test_image_and_label_map_stay_aligned(geometry: Geometry, height: int, width: int) -> None:
    labels = quadrants(height, width)
    picture = np.repeat(labels[..., None].astype(np.uint8), 3, axis=2)
    placed = place_labels(labels, geometry, void=VOID)
    image = place_image(picture, geometry)
    ny, nx = patch_grid(height, width, geometry)
    assert image.shape == (*placed.shape, 3) == (ny * PATCH, nx * PATCH, 3)
    assert image.dtype == np.uint8
    assert placed.dtype == labels.dtype
    certain = far_from_borders(placed, reach=2) & (placed != VOID)
    assert certain.mean() > 0.7
    np.testing.assert_array_equal(image[..., 0][certain], placed[certain])
    assert len(set(placed[placed != VOID].tolist())) == 4


def test_native_without_padding_changes_no_pixel() -> None:
    labels = np.arange(70 * 100, dtype=np.uint16).reshape(70, 100)
    np.testing.assert_array_equal(place_labels(labels, NATIVE, void=0), labels[:64, :96])
    picture = np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    np.testing.assert_array_equal(place_image(picture, NATIVE), picture[:64, :96])


def test_padding_repeats_edge_pixels_and_voids_labels() -> None:
    labels = np.arange(1, 70 * 33 + 1, dtype=np.uint16).reshape(70, 33)
    placed = place_labels(labels, PAD, void=VOID * 10)
    assert placed.shape == (96, 64)
    np.testing.assert_array_equal(placed[:70, :33], labels)
    assert (placed[70:] == VOID * 10).all()
    assert (placed[:, 33:] == VOID * 10).all()
    picture = np.random.default_rng(0).integers(0, 256, (70, 33, 3), dtype=np.uint8)
    image = place_image(picture, PAD)
    np.testing.assert_array_equal(image[:70, :33], picture)
    np.testing.assert_array_equal(image[70:, :33], np.broadcast_to(picture[-1], (26, 33, 3)))
    np.testing.assert_array_equal(image[:70, 33:], np.repeat(picture[:, -1:], 31, axis=1))


def test_padding_adds_nothing_to_whole_patches() -> None:
    labels = np.ones((64, 96), dtype=np.uint16)
    np.testing.assert_array_equal(place_labels(labels, PAD, void=VOID), labels)


@given(st.integers(1, 700), st.integers(1, 700))
def test_nearest_indices_are_the_pixels_under_the_centres(source: int, target: int) -> None:
    expected = [int((Fraction(2 * i + 1, 2) * source) // target) for i in range(target)]
    assert nearest_indices(source, target).tolist() == expected


def test_no_resize_moves_no_label() -> None:
    assert nearest_indices(256, 256).tolist() == list(range(256))


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([(), (3,)]), st.integers(0, 99))
def test_join_undoes_split(ny: int, nx: int, trailing: tuple[int, ...], seed: int) -> None:
    shape = (ny * PATCH, nx * PATCH, *trailing)
    pixels = np.random.default_rng(seed).integers(0, 60000, shape, dtype=np.uint16)
    patches = split_patches(pixels)
    assert patches.shape == (ny * nx, PATCH, PATCH, *trailing)
    np.testing.assert_array_equal(join_patches(patches, (ny, nx)), pixels)


def test_patches_are_row_major() -> None:
    pixels = np.arange(64 * 96, dtype=np.uint16).reshape(64, 96)
    patches = split_patches(pixels)
    for row in range(2):
        for column in range(3):
            tile = pixels[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
            np.testing.assert_array_equal(patches[row * 3 + column], tile)


def test_mirror_swaps_columns_only() -> None:
    pixels = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    np.testing.assert_array_equal(mirror(pixels), pixels[:, [2, 1, 0]])
    assert mirror(pixels).flags.c_contiguous


def torchvision_sizes(height: int, width: int) -> tuple[int, int]:
    """Size after torchvision's Resize(256), as its source computes it."""
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = SHORTER, int(SHORTER * long / short)
    new_w, new_h = (new_short, new_long) if width <= height else (new_long, new_short)
    return new_h, new_w


def torchvision_corner(length: int) -> int:
    """Where torchvision's CenterCrop(224) begins, as its source computes it."""
    return int(round((length - SIDE) / 2.0))  # noqa: RUF046  # the formula as it stands there


@given(st.integers(1, 400), st.integers(1, 400))
@example(375, 500)
@example(257, 256)
@example(333, 281)
def test_crop_rounds_as_torchvision_does(height: int, width: int) -> None:
    new_h, new_w = torchvision_sizes(height, width)
    if new_h * new_w > 1 << 22:
        return
    rows = np.arange(height, dtype=np.int64)[:, None] * 1000
    source = rows + np.arange(width, dtype=np.int64)
    placed = place_labels(source, CROP, void=0)
    top, left = torchvision_corner(new_h), torchvision_corner(new_w)
    expected_rows = [(2 * (top + i) + 1) * height // (2 * new_h) for i in range(SIDE)]
    expected_columns = [(2 * (left + i) + 1) * width // (2 * new_w) for i in range(SIDE)]
    assert (placed[:, 0] // 1000).tolist() == expected_rows
    assert (placed[0] % 1000).tolist() == expected_columns


@pytest.mark.parametrize(
    "size",
    [
        *((375, 500), (500, 375), (333, 500), (256, 256), (256, 700), (512, 512), (101, 101)),
        *((255, 257), (257, 258), (40, 39), (3, 500), (701, 1100), (1100, 701), (224, 900)),
    ],
)
def test_crop_has_the_pixels_of_a_resize_of_the_whole(size: tuple[int, int]) -> None:
    # Black and white, so that every weight of the filter shows.
    picture = np.random.default_rng(0).integers(0, 2, (*size, 3), dtype=np.uint8) * 255
    height, width = torchvision_sizes(*size)
    whole = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
    top, left = round((height - SIDE) / 2), round((width - SIDE) / 2)
    expected = np.asarray(whole)[top : top + SIDE, left : left + SIDE]
    np.testing.assert_array_equal(place_image(picture, CROP), expected)


def test_crop_of_the_unresized_side_takes_the_middle() -> None:
    labels = np.arange(256 * 256).reshape(256, 256)
    np.testing.assert_array_equal(place_labels(labels, CROP, void=0), labels[16:240, 16:240])
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    np.testing.assert_array_equal(place_image(picture, CROP), picture[16:240, 16:240])


@given(SIZES)
def test_grid_says_what_place_labels_gives(size: tuple[int, int]) -> None:
    height, width = size
    for geometry in (SQUASH, PAD):
        ny, nx = patch_grid(height, width, geometry)
        placed = place_labels(np.zeros(size, dtype=np.uint16), geometry, void=0)
        assert placed.shape == (ny * PATCH, nx * PATCH)
    assert patch_grid(height, width, CROP) == patch_grid(height, width, SQUASH) == (7, 7)
    assert patch_grid(height, width, PAD) == (-(-height // 32), -(-width // 32))


@pytest.mark.parametrize("size", [(31, 200), (200, 31)])
def test_native_refuses_a_picture_without_a_whole_patch(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="no whole 32×32 patch"):
        place_image(np.zeros((*size, 3), dtype=np.uint8), NATIVE)
    with pytest.raises(DataError, match=f"{size[1]}×{size[0]} pixels.*; enlarge it, or") as caught:
        patch_grid(*size, NATIVE)
    assert caught.value.recorded.endswith("; use edge pad, or another geometry")


@pytest.mark.parametrize("size", [(1, 65535), (65535, 1), (1, 1025)])
def test_crop_refuses_what_it_would_blow_up_without_bound(size: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="too long and thin"):
        place_image(np.zeros((*size, 3), dtype=np.uint8), CROP)
    with pytest.raises(DataError, match="too long and thin"):
        place_labels(np.zeros(size, dtype=np.uint16), CROP, void=0)


@given(st.integers(32, 90), st.integers(32, 90), st.sampled_from([CROP, SQUASH, NATIVE, PAD]))
def test_what_is_covered_is_a_part_of_the_whole(
    height: int, width: int, geometry: Geometry
) -> None:
    labels = np.random.default_rng(height * width).integers(1, 9, (height, width), dtype=np.uint16)
    whole = whole_labels(labels, geometry)
    placed = place_labels(labels, geometry, void=VOID)
    if geometry.geometry == "crop":
        assert min(whole.shape) == 256
        top, left = round((whole.shape[0] - 224) / 2), round((whole.shape[1] - 224) / 2)
        np.testing.assert_array_equal(placed, whole[top : top + 224, left : left + 224])
    elif geometry.geometry == "squash":
        np.testing.assert_array_equal(placed, whole)
    else:
        np.testing.assert_array_equal(whole, labels)
    counted = np.bincount(placed[placed != VOID], minlength=9)
    covers = np.array_equal(counted, np.bincount(whole.ravel(), minlength=9))
    assert covers or not geometry.covers_all
    assert geometry.covers_all == (geometry in (SQUASH, PAD))
