"""Data of one's own: a small data dir with its manifest, plain folders, what is in a sample."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat

from vocprep.labels.label_space import load_label_space

MANIFEST = """
title = "mine"
images = "pictures"
labels = "masks"
label_kind = "png"
split_files = "splits"
splits = ["train", "val"]
schemas = ["voc21"]
"""


def write_own_data(folder: Path, images: int = 4) -> Path:
    """Write im000, im001…: three quarters in train, the others in val; return the manifest."""
    for name in ("pictures", "masks", "splits"):
        (folder / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    ids = [f"im{number:03d}" for number in range(images)]
    for number, image_id in enumerate(ids):
        pixels = generator.integers(0, 255, (8, 10, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(folder / "pictures" / f"{image_id}.jpg")
        mask = np.zeros((64, 80), dtype=np.uint8)
        mask[32:] = 1 + number % 20
        mask[:, :2] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{image_id}.png")
    cut = images * 3 // 4
    for split, members in (("train", ids[:cut]), ("val", ids[cut:])):
        (folder / "splits" / f"{split}.txt").write_text("".join(f"{key}\n" for key in members))
    manifest = folder / "mine.toml"
    manifest.write_text(MANIFEST)
    return manifest


def picture_and_mask(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a picture [64, 80, 3] and its mask of ids 0, 1 or 2, and 3, a class per band."""
    generator = np.random.default_rng(number)
    mask = np.zeros((64, 80), dtype=np.uint8)
    mask[24 + number % 8 :] = 1 + number % 2
    mask[:, 60:] = 3
    colours = np.array([(40, 90, 200), (60, 160, 50), (190, 60, 50), (220, 210, 90)])
    noisy = colours[mask] + generator.integers(0, 30, (64, 80, 3))
    return noisy.astype(np.uint8), mask


def write_plain_data(folder: Path, names: Sequence[str] = tuple("abcdef")) -> Path:
    """Write images/NAME.jpg and masks/NAME.png; return the folder."""
    for number, name in enumerate(names):
        for part, suffix, array in zip(
            ("images", "masks"), (".jpg", ".png"), picture_and_mask(number), strict=True
        ):
            path = folder / part / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return folder


def file_digests(folder: Path) -> dict[Path, str]:
    """Return the digest of every file below a folder."""
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def scene_labels(tree: Path, number: int) -> NDArray[np.uint16]:
    """Return the ids of context460 of a sample's image, whose layout is the default; from 1."""
    found: NDArray[np.uint16] = loadmat(tree / "trainval" / f"2010_{number:06d}.mat")["LabelMap"]
    return found


def classes_below(maps: Iterable[NDArray[np.integer]], tree: Path) -> dict[int, set[str]]:
    """Return the classes of context460, "" for none, that lie below each value of other maps.

    The maps are of images 1, 2, 3… of the sample at ``tree``.
    """
    names = {0: "", **load_label_space("context460").names}
    found: dict[int, set[str]] = {}
    for number, values in enumerate(maps, start=1):
        for pair in np.unique(values.astype(np.int64) * 460 + scene_labels(tree, number)).tolist():
            found.setdefault(pair // 460, set()).add(names[pair % 460])
    return found
