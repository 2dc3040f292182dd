"""Small trees of pictures and masks in the layouts that people come with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 20, 16
"""Width and height of pictures and masks."""
CVAT = {"background": (0, 0, 0), "cat": (250, 50, 83), "dog": (51, 221, 255)}
"""Classes of a mask export in its order."""


def picture(path: Path, size: tuple[int, int] = SIZE, seed: int = 0) -> None:
    """Write a picture in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def ids(values: Mapping[int, int] | list[int], size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Return a mask of equal columns, one for each of some values from the left."""
    columns = np.linspace(0, len(values), size[0], endpoint=False).astype(int)
    return np.tile(np.array(list(values), dtype=np.uint8)[columns], (size[1], 1))


def grey(path: Path, values: list[int], size: tuple[int, int] = SIZE) -> None:
    """Write a mask as 8-bit grey PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids(values, size)).save(path)


def palette(path: Path, values: list[int], colours: Mapping[int, tuple[int, int, int]]) -> None:
    """Write a mask as palette PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids(values)).convert("P")
    image.putpalette([level for key in range(256) for level in colours.get(key, (key, key, key))])
    image.save(path)


def rgb(path: Path, colours: list[tuple[int, int, int]]) -> None:
    """Write a mask as RGB PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    places = ids(list(range(len(colours))))
    Image.fromarray(np.array(colours, dtype=np.uint8)[places]).save(path)


def text(path: Path, *lines: str) -> None:
    """Write a file of lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def plain(
    root: Path,
    stems: list[str],
    values: Callable[[int], list[int]] = lambda number: [0, 1 + number % 2, 255],
    folders: tuple[str, str] = ("images", "masks"),
) -> Path:
    """Write pictures and grey masks of the same names in two folders."""
    for number, stem in enumerate(stems):
        picture(root / folders[0] / f"{stem}.jpg", seed=number)
        grey(root / folders[1] / f"{stem}.png", values(number))
    return root


def labelme(root: Path, *, is_old: bool) -> Path:
    """Write what labelme's ``labelme2voc.py`` writes, of an earlier release or of a later one."""
    ignored = ["__ignore__"] if is_old else []
    text(root / "class_names.txt", *ignored, "_background_", "cat", "dog")
    pngs, arrays = ("SegmentationClassPNG", "SegmentationClass")
    if not is_old:
        pngs, arrays = ("SegmentationClass", "SegmentationClassNpy")
    for number in range(4):
        picture(root / "JPEGImages" / f"a{number}.jpg", seed=number)
        palette(root / pngs / f"a{number}.png", [0, 1 + number % 2, 255], {})
        (root / arrays).mkdir(exist_ok=True)
        values = ids([0, 1 + number % 2, 255]).astype(np.int32)
        np.save(root / arrays / f"a{number}.npy", np.where(values == 255, -1, values))
        picture(root / "SegmentationClassVisualization" / f"a{number}.jpg", seed=number)
    return root


def cvat(root: Path, *, pictures: str | None = "JPEGImages", is_palette: bool = False) -> Path:
    """Write what CVAT exports as "Segmentation mask 1.1"."""
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in CVAT.items()]
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions", *lines)
    names = [f"frame {number}" for number in range(4)]
    text(root / "ImageSets" / "Segmentation" / "default.txt", *names)
    colours = list(CVAT.values())
    for number, name in enumerate(names):
        held = [0, 1 + number % 2]
        for folder in ("SegmentationClass", "SegmentationObject"):
            if is_palette:
                palette(root / folder / f"{name}.png", held, dict(enumerate(colours)))
            else:
                rgb(root / folder / f"{name}.png", [colours[key] for key in held])
        if pictures:
            picture(root / pictures / f"{name}.jpg", seed=number)
    return root


def coco(root: Path) -> Path:
    """Write COCO's panoptic annotations of two splits, and label maps of COCO-Stuff beside."""
    categories = [
        {"id": 1, "name": "person", "isthing": 1, "color": [220, 20, 60]},
        {"id": 187, "name": "sky-other-merged", "isthing": 0, "color": [70, 130, 180]},
    ]
    for split, count in (("train2017", 3), ("val2017", 2)):
        annotations = []
        for number in range(count):
            name = f"{number + 1:012d}"
            picture(root / split / f"{name}.jpg", seed=number)
            # Segments 0 (nothing), 7 and 263 = 7 + 256·1.
            rgb(root / f"panoptic_{split}" / f"{name}.png", [(0, 0, 0), (7, 0, 0), (7, 1, 0)])
            grey(root / "stuffthingmaps" / split / f"{name}.png", [0, 156, 255])
            segments = [{"id": 7, "category_id": 1}, {"id": 263, "category_id": 187}]
            annotations.append({"file_name": f"{name}.png", "segments_info": segments})
        document = {"annotations": annotations, "categories": categories}
        text(root / "annotations" / f"panoptic_{split}.json", json.dumps(document))
    return root


def camvid(root: Path) -> Path:
    """Write CamVid as tutorials of SegNet have it: folders per split and lists of pairs."""
    for split, count in (("train", 4), ("val", 2), ("test", 1)):
        lines = []
        for number in range(count):
            name = f"0001TP_{number:06d}.png"
            picture(root / split / name, seed=number)
            grey(root / f"{split}annot" / name, [0, 3, 11])
            lines.append(f"/SegNet/CamVid/{split}/{name} /SegNet/CamVid/{split}annot/{name}")
        text(root / f"{split}.txt", *lines)
    return root
