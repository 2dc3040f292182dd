"""Pictures on their patch grids by a device, and windows and patches cut there."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vocprep.features.on_device.placing import (
    Picture,
    cut_patches,
    place_on,
    scale_patches,
    shrink_windows,
)
from vocprep.features.on_device.resizing import resize_together
from vocprep.geometry import PATCH, WINDOWS, Geometry, GeometryKind
from vocprep.placement import mirror, place_image, split_patches
from vocprep.resampling import Resize

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
GEOMETRIES = [*(Geometry(geometry=kind) for kind in get_args(GeometryKind))]
GEOMETRIES.append(Geometry(geometry="native", edge="pad"))


def pictures() -> list[NDArray[np.uint8]]:
    draw = np.random.default_rng(0)
    sizes = ((300, 400), (400, 300), (500, 90), (33, 64), (64, 33), (300, 400))
    return [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def by_number(stacks: list[tuple[list[int], torch.Tensor]]) -> dict[int, NDArray[np.uint8]]:
    return {
        number: image.cpu().numpy()
        for numbers, stack in stacks
        for number, image in zip(numbers, stack, strict=True)
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda geometry: geometry.short_name)
@pytest.mark.parametrize("is_there", [False, True], ids=["from host", "from device"])
def test_devices_place_pictures_as_the_host_does(
    geometry: Geometry, is_there: bool, device: str
) -> None:
    made, on = pictures(), torch.device(device)
    placed = place_image(made[0], geometry)
    given = [torch.from_numpy(image).to(on) if is_there else image for image in made]
    some = [
        Picture(image, geometry, is_mirrored=place % 2 == 1) for place, image in enumerate(given)
    ]
    found = by_number(place_on(on, [placed, *some]))
    np.testing.assert_array_equal(found[0], placed)
    for number, (image, wanted) in enumerate(zip(made, some, strict=True), start=1):
        expected = place_image(image, geometry)
        expected = mirror(expected) if wanted.is_mirrored else expected
        np.testing.assert_array_equal(found[number], expected)


def test_images_of_one_size_lie_in_one_stack() -> None:
    crop, other = Geometry(), np.zeros((64, 32, 3), dtype=np.uint8)
    some = [other, *(Picture(image, crop) for image in pictures()), other]
    stacks = place_on(torch.device("cpu"), some)
    assert [(numbers, tuple(stack.shape)) for numbers, stack in stacks] == [
        ([0, 7], (2, 64, 32, 3)),
        ([1, 2, 3, 4, 5, 6], (6, 224, 224, 3)),
    ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("window", WINDOWS)
def test_windows_are_means_of_squares_around_patches(window: int, device: str) -> None:
    images = np.random.default_rng(window).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    factor, margin = window // PATCH, (window - PATCH) // 2
    shrunk, step = shrink_windows(torch.from_numpy(images).to(device), window)
    tiles = cut_patches(shrunk, step).cpu().numpy()
    assert tiles.shape == (2 * 6, PATCH, PATCH, 3)
    for image, of_image in zip(images, tiles.reshape(2, 6, PATCH, PATCH, 3), strict=True):
        padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
        for place, tile in enumerate(of_image):
            y, x = (32 * number for number in divmod(place, 3))
            squares = padded[y : y + window, x : x + window].reshape(32, factor, 32, factor, 3)
            sums = squares.sum(axis=(1, 3), dtype=np.int64)
            np.testing.assert_array_equal(tile, (2 * sums + factor**2) // (2 * factor**2))


def test_patches_are_cut_as_on_the_host() -> None:
    image = pictures()[0][:96, :64]
    found = cut_patches(torch.from_numpy(image)[None], PATCH).numpy()
    np.testing.assert_array_equal(found, split_patches(image))


@pytest.mark.parametrize("side", [14, 16, 48])
def test_patches_of_other_sides_have_the_same_bits_by_both_ways(side: int) -> None:
    images = np.stack([pictures()[0][:96, :64], pictures()[5][:96, :64]])
    resize = Resize.whole((96, 64), (3 * side, 2 * side))
    scaled = scale_patches(torch.from_numpy(images), side)
    pixels = torch.from_numpy(images.reshape(-1, 3))
    assert scaled.shape == (2, 3 * side, 2 * side, 3)
    assert torch.equal(scaled, resize_together(pixels, [resize, resize]))


def test_patches_that_fit_are_not_resized() -> None:
    images = torch.from_numpy(pictures()[0][None, :96, :64])
    assert scale_patches(images, PATCH) is images
