"""The generated scenes: label maps, and images with a texture for each class.

``vocprep.synthetic.dataset`` describes their purpose and the special patches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.random import PCG64, Generator
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel

from vocprep.geometry import PATCH, SHORTER, SIDE
from vocprep.manifests import find_manifest, read_manifest

LabelMap = NDArray[np.uint16]

CLASSES = 460
"""Class ids are below this."""
_TILE = 64
_TEXTURE_SEED = 1261  # of 1500 tried, the one with the most different colours of common classes

_COLOURS = (
    "sky 84b8f0 mountain 8a84a8 tree 2c6a34 grass 78b83c building b07058 sidewalk b8aca0 "
    "road 58585e water 2474a0 sand e4cc8c ceiling e8e4d0 wall d4a878 floor 8c5a34 snow eceff8 "
    "platform 948c58 track 4a3c3c fence 6e4a70 ground 9c7844 rock 6c7470"
)
_SCENES = (  # background from top to bottom; objects
    ("sky mountain tree grass", "cow sheep horse dog bird person rock"),
    ("sky building sidewalk road", "car bus bicycle motorbike person sign unknown"),
    ("sky mountain water sand", "boat bird person dog aeroplane rock"),
    ("ceiling wall floor", "sofa chair table tvmonitor pottedplant bottle cat window door"),
    ("sky building platform track", "train train person bicycle sign unknown"),
    ("sky tree snow", "person dog horse car bird unknown"),
    ("building fence ground", "cat motorbike bicycle pottedplant chair bottle door"),
    ("sky tree grass road", "aeroplane aeroplane bus car motorbike sheep cow"),
    ("wall wall floor", "person cat sofa table tvmonitor curtain window bottle"),
)


@dataclass(frozen=True, eq=False)
class Scene:
    """One generated image and its label map."""

    number: int
    """From 0."""
    split: Literal["train", "val"]
    image: NDArray[np.uint8]
    """[H, W, 3]."""
    label_map: LabelMap
    """[H, W], ids of context460; 0 where nothing is labelled."""


def draw_scene(seed: int, number: int) -> Scene:
    """Return the scene of a number; it depends on seed and number alone.

    Every sixth scene belongs to val, from the second on.
    """
    draw = Generator(PCG64((seed, number)))
    label_map = draw_label_map(draw, number)
    split: Literal["train", "val"] = "val" if number % 6 == 1 else "train"
    return Scene(number, split, draw_image(draw, label_map), label_map)


def draw_label_map(draw: Generator, number: int) -> LabelMap:
    """Return the label map [H, W] of image ``number``: bands, objects, special patches."""
    ids = {name: label for label, name in class_names("context460").items()}
    label_map = np.zeros(_draw_size(draw, number), dtype=np.uint16)
    bands, objects = (text.split() for text in _SCENES[draw.integers(len(_SCENES))])
    label_map[:] = ids[bands[0]]
    for index in range(1, len(bands)):
        _paint_below(label_map, draw, ids[bands[index]], (index, len(bands)))
    for _ in range(draw.integers(1, 5)):
        _paint_object(label_map, draw, ids[objects[draw.integers(len(objects))]])
    shorter = min(label_map.shape)
    if number % 5 in (0, 2):
        mosaics_before = number // 5 * 2 + number % 5 // 2
        tile = shorter * 10 // SHORTER
        _paint_inside(label_map, draw, _mosaic(25 * mosaics_before, (5, 5), 5 * tile))
    elif number % 5 == 3:
        side = shorter * 2 * PATCH // SHORTER + 8
        _paint_inside(label_map, draw, np.zeros((side, side), dtype=np.uint16))
    elif number % 10 == 9:
        _paint_ties(label_map, draw)
    return label_map


def _draw_size(draw: Generator, number: int) -> tuple[int, int]:
    """Return (height, width): mostly 500 pixels on the longer side, as in VOC."""
    usual = (375, 375, 333, 500, int(draw.integers(281, 501)), 240)
    shorter = usual[draw.integers(len(usual))]
    longer = 320 if shorter == 240 else 500
    if number % 10 == 9:
        shorter, longer = SHORTER, 2 * int(draw.integers(150, 200))
    return (shorter, longer) if draw.integers(3) else (longer, shorter)


def _paint_below(label_map: LabelMap, draw: Generator, label: int, band: tuple[int, int]) -> None:
    """Paint all below the ragged upper edge of background band (index, count)."""
    height, width = label_map.shape
    swing, step = height // (8 * band[1]), int(draw.integers(40, 160))
    level = height * band[0] // band[1] + draw.integers(-swing, swing + 1)
    knots = level + draw.integers(-swing, swing + 1, size=width // step + 2)
    cell, along = np.divmod(np.arange(width), step)
    edge = (knots[cell] * (step - along) + knots[cell + 1] * along) // step
    label_map[np.arange(height)[:, None] >= edge] = label


def _paint_object(label_map: LabelMap, draw: Generator, label: int) -> None:
    """Paint an ellipse, or a rectangle with corners cut off more or less or not at all."""
    (height, width), shorter = label_map.shape, min(label_map.shape)
    half_y, half_x = draw.integers(shorter // 9, shorter // 3, size=2)
    y = abs(np.arange(height)[:, None] - draw.integers(height // 5, height))
    x = abs(np.arange(width)[None, :] - draw.integers(width // 6, width))
    inside = (x * half_y) ** 2 + (y * half_x) ** 2 <= (half_x * half_y) ** 2
    if draw.integers(3):
        corner = half_x * half_y * draw.integers(18, 40) // 16
        inside = (y <= half_y) & (x <= half_x) & (x * half_y + y * half_x <= corner)
    label_map[inside] = label


def _paint_inside(label_map: LabelMap, draw: Generator, panel: LabelMap) -> None:
    """Put a square panel where the centre crop keeps all of it."""
    side, kept = len(panel), min(label_map.shape) * SIDE // SHORTER
    free = draw.integers(1, kept - side, size=2)
    top, left = ((whole - kept) // 2 + free[axis] for axis, whole in enumerate(label_map.shape))
    label_map[top : top + side, left : left + side] = panel


def _paint_ties(label_map: LabelMap, draw: Generator) -> None:
    """Fill three whole patches, side by side, with 2, 4 and 16 classes of equal area."""
    first = int(draw.integers(CLASSES))
    top, left = ((whole - SIDE) // 2 for whole in label_map.shape)
    top += PATCH * int(draw.integers(SIDE // PATCH))
    left += PATCH * int(draw.integers(SIDE // PATCH - 2))
    for index, grid in enumerate(((1, 2), (2, 2), (4, 4))):
        start = left + index * PATCH
        label_map[top : top + PATCH, start : start + PATCH] = _mosaic(first, grid, PATCH)


def _mosaic(first: int, grid: tuple[int, int], side: int) -> LabelMap:
    """Tile a square with ids from an endless round through 1..459 that leaps from id to id."""
    rows, columns = grid
    ids = (np.arange(first, first + rows * columns) * 200 % (CLASSES - 1) + 1).astype(np.uint16)
    return ids.reshape(grid).repeat(side // rows, axis=0).repeat(side // columns, axis=1)


def draw_image(draw: Generator, label_map: LabelMap) -> NDArray[np.uint8]:
    """Return the image [H, W, 3]: textures under a slanting, tinted light, with noise."""
    height, width = label_map.shape
    shift_y, shift_x, slant_y, slant_x = draw.integers(-_TILE // 2, _TILE // 2, size=4)
    y = np.arange(height)[:, None]
    x = np.arange(width)[None, :]
    texel = (y + shift_y) % _TILE * _TILE + (x + shift_x) % _TILE
    plain = np.take(_textures(), label_map * np.int64(_TILE * _TILE) + texel, axis=0)
    light = 128 + slant_y * (y - height // 2) // height + slant_x * (x - width // 2) // width
    tint = draw.integers(-8, 9, size=3)
    lit = plain * (light[..., None] + tint).astype(np.uint16) >> 7
    noisy = lit + draw.integers(0, 25, size=lit.shape, dtype=np.uint8)
    image: NDArray[np.uint8] = (noisy.clip(12, 267) - 12).astype(np.uint8)
    return image


@cache
def _textures() -> NDArray[np.uint8]:
    """Return the texture of every class as rows of pixels: [460 · 64 · 64, 3].

    A texture is two colours and a pattern that repeats every 64 pixels, drawn from the class id.
    """
    words = _COLOURS.split()
    natural = dict(zip(words[::2], words[1::2], strict=True))
    y, x = np.indices((_TILE, _TILE))
    textures = np.full((CLASSES, _TILE, _TILE, 3), 128)
    for label, name in class_names("context460").items():
        draw = Generator(PCG64((_TEXTURE_SEED, label)))
        colour, contrast = draw.integers(48, 208, size=3), draw.integers(-88, 89, size=3)
        if name in natural:
            colour, contrast = np.array(list(bytes.fromhex(natural[name]))), np.full(3, 28)
        step_y, step_x = draw.integers(-5, 6), draw.integers(2, 6)
        u, v = (step_y * y + step_x * x) % _TILE, (step_y * x - step_x * y) % _TILE
        wave, dots = abs(u - 32), (u - 32) ** 2 + (v - 32) ** 2 < 400
        speckles = draw.integers(0, 2, size=(16, 16)).repeat(4, axis=0).repeat(4, axis=1)
        stripes, checks, lines = u < 32, (u < 32) ^ (v < 32), (u < 14) | (v < 14)
        patterns = (wave, 32 * dots, 32 * speckles, 32 * stripes, 32 * checks, 32 * lines)
        pattern = patterns[draw.integers(len(patterns))][..., None]
        textures[label] = colour + contrast * (pattern - 16) // 32
    return textures.clip(0, 255).astype(np.uint8).reshape(-1, 3)


def write_jpeg(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image [H, W, 3] as the sample's JPEGs are."""
    Image.fromarray(image).save(path, "JPEG", quality=90, subsampling="4:2:0")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file of these lines, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


class _ClassNames(BaseModel):
    """The class names in the TOML file of a label space."""

    names: dict[int, str]


@cache
def class_names(space: str) -> dict[int, str]:
    """Return the class names of a shipped label space by id."""
    return read_manifest(_ClassNames, find_manifest("labels", space)).names
