"""From decoded pictures to what backbones take, on a device, in the bits of the CPU's geometry.

Shape legend: H, W pixels of a decoded picture; h, w = 32·ny, 32·nx pixels after the geometry;
P = ny·nx patches, row-major.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.features.on_device.resizing import resize_together
from vocprep.geometry import PATCH, Geometry, patch_grid
from vocprep.placement import image_resize
from vocprep.resampling import Resize, resize_with_pillow

Pixels = NDArray[np.uint8]
MOST_BYTES = 1 << 21
"""Of a picture that is brought to its patch grid on a device: larger ones would fill the memory of
the host, or of the device, while they wait for others to fill a chunk."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture that a device brings to its patch grid."""

    pixels: Pixels | Tensor
    """uint8 [H, W, 3]; a tensor is on the device already."""
    geometry: Geometry
    is_mirrored: bool = False
    """Whether it is to be mirrored left to right, once it is placed."""

    @property
    def resize(self) -> Resize | None:
        """How it is resized; None for geometry ``native``."""
        return image_resize(self.pixels.shape[0], self.pixels.shape[1], self.geometry)

    @property
    def needed(self) -> Pixels | Tensor:
        """The part of its pixels that a resize needs; for ``native`` those of its patches."""
        pixels, resize = self.pixels, self.resize
        if resize is not None:
            part: Pixels | Tensor = pixels[resize.needed]
            return part
        height, width = pixels.shape[:2]
        ny, nx = patch_grid(height, width, self.geometry)
        whole = torch.as_tensor(pixels)
        # Past the last row and column these are repeated, which is what edge ``pad`` means.
        rows = torch.arange(ny * PATCH).clamp(max=height - 1).to(whole.device)
        columns = torch.arange(nx * PATCH).clamp(max=width - 1).to(whole.device)
        return whole[rows][:, columns]


def place_on(
    device: torch.device, images: Sequence[Pixels | Picture]
) -> list[tuple[list[int], Tensor]]:
    """Return stacks uint8 [n, h, w, 3] of images on a device, and which images are in each.

    All in a stack are of one size. Pictures are brought to their patch grids on the device; of
    those in the host's memory only what is needed is copied there, in one piece per stack.
    """
    alike: dict[Hashable, list[int]] = {}
    for number, image in enumerate(images):
        alike.setdefault(_kind(image), []).append(number)
    return [(some, _stack([images[number] for number in some], device)) for some in alike.values()]


def upload(arrays: Sequence[Pixels], device: torch.device) -> Tensor:
    """Return the numbers of arrays, one behind the other, on a device.

    A GPU gets them in one copy from pinned memory.
    """
    ends = np.cumsum([array.size for array in arrays])
    host = torch.empty(int(ends[-1]), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for array, part in zip(arrays, np.split(host.numpy(), ends[:-1]), strict=True):
        np.copyto(part.reshape(array.shape), array)
    return host.to(device, non_blocking=True)


def shrink_windows(images: Tensor, window: int) -> tuple[Tensor, int]:
    """Shrink images [N, h, w, 3] so that their windows become 32×32 tiles.

    A window of ``window`` pixels per side, one of ``WINDOWS``, lies centred on each patch, the
    image mirrored at its border. Returns the images with that border, every square of
    (window/32)² pixels averaged and rounded: uint8; and the step in pixels from one window's tile
    to the next. Whole numbers only, so the bits do not depend on the machine.
    """
    factor = window // PATCH
    if factor == 1:
        return images, PATCH
    margin = (window - PATCH) // 2
    for axis in (1, 2):
        mirrored = np.pad(np.arange(images.shape[axis]), margin, mode="reflect")
        images = images.index_select(axis, torch.from_numpy(mirrored).to(images.device))
    count, height, width, _ = images.shape
    squares = images.view(count, height // factor, factor, width // factor, factor, 3)
    area = factor * factor
    sums = squares.sum(dim=(2, 4), dtype=torch.int32)
    return ((sums + area // 2) // area).to(torch.uint8), PATCH // factor


def cut_patches(images: Tensor, step: int) -> Tensor:
    """Cut images [N, h, w, 3] into tiles [N·P, 32, 32, 3], row-major, ``step`` pixels apart."""
    tiles = images.unfold(1, PATCH, step).unfold(2, PATCH, step)
    return tiles.permute(0, 1, 2, 4, 5, 3).flatten(0, 2)


def scale_patches(images: Tensor, side: int) -> Tensor:
    """Resize images uint8 [N, h, w, 3] so that their patches are ``side`` pixels wide.

    By the filter of the geometry; the images themselves where the patches stay as they are.
    """
    if side == PATCH:
        return images
    height, width = images.shape[1:3]
    target = height // PATCH * side, width // PATCH * side
    resize = Resize.whole((height, width), target)
    if images.is_cuda:
        return resize_together(images.reshape(-1, 3), [resize] * len(images))
    return torch.from_numpy(
        np.stack([resize_with_pillow(image, resize) for image in images.numpy()])
    )


def _kind(image: Pixels | Picture) -> Hashable:
    """Return what images have in common that are placed together."""
    if not isinstance(image, Picture):
        return image.shape
    resize, is_there = image.resize, isinstance(image.pixels, Tensor)
    if resize is not None:
        return resize.kept, is_there
    height, width = image.pixels.shape[:2]
    return patch_grid(height, width, image.geometry), is_there, "native"


def _stack(images: Sequence[Pixels | Picture], device: torch.device) -> Tensor:
    """Return images of one kind as a stack."""
    pictures = [image for image in images if isinstance(image, Picture)]
    if not pictures:
        arrays = [image for image in images if not isinstance(image, Picture)]
        return upload(arrays, device).view(len(arrays), *arrays[0].shape)
    parts = [picture.needed for picture in pictures]
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if arrays:
        pixels = upload(arrays, device)
    else:
        pixels = torch.cat([torch.as_tensor(part).flatten() for part in parts]).to(device)
    resizes = [resize for picture in pictures if (resize := picture.resize) is not None]
    if resizes:
        stack = resize_together(pixels.view(-1, 3), resizes)
    else:
        stack = pixels.view(len(parts), *parts[0].shape)
    mirrored = [number for number, picture in enumerate(pictures) if picture.is_mirrored]
    if mirrored:
        stack[mirrored] = stack[mirrored].flip(2)
    return stack
