"""A small data dir of one's own: pictures, masks, split files and their manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

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
