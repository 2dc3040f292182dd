"""The generated scenes as files of VOC 2010 and Pascal Context: .mat, palette PNG, split files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from vocprep.synthetic.scene import CLASSES, LabelMap, Scene, class_names, write_jpeg, write_lines

_VOC: Final = Path("VOCdevkit/VOC2010")
_VOID: Final = 255
_MAT_HEADER: Final = b"MATLAB 5.0 MAT-file, written by vocprep sample".ljust(116)


def write_voc(folder: Path, scenes: Iterable[Scene]) -> int:
    """Write all files below the folder; return how many of the 459 classes occur."""
    for place in (_VOC / "JPEGImages", _VOC / "SegmentationClass", Path("trainval")):
        (folder / place).mkdir(parents=True)
    names = class_names("context460")
    write_lines(folder / "labels.txt", [f"{label}: {names[label]}" for label in sorted(names)])
    splits: dict[str, list[str]] = {"train": [], "val": [], "trainval": []}
    used = np.zeros(CLASSES, dtype=np.int64)
    for scene in scenes:
        image_id = f"2010_{scene.number + 1:06d}"
        splits[scene.split].append(image_id)
        splits["trainval"].append(image_id)
        _write_files(folder, image_id, scene)
        used += np.bincount(scene.label_map.ravel(), minlength=CLASSES)
    for split, image_ids in splits.items():
        for task in ("Main", "Segmentation"):
            write_lines(folder / _VOC / "ImageSets" / task / f"{split}.txt", image_ids)
    return int(np.count_nonzero(used[1:]))


def _write_files(folder: Path, image_id: str, scene: Scene) -> None:
    """Write one image as JPEG, its label map as .mat and its VOC classes as palette PNG."""
    write_jpeg(folder / _VOC / "JPEGImages" / f"{image_id}.jpg", scene.image)
    classes = Image.fromarray(_voc_classes(scene.label_map))
    classes.putpalette(voc_palette().tobytes())
    classes.save(folder / _VOC / "SegmentationClass" / f"{image_id}.png", "PNG", compress_level=6)
    mat = folder / "trainval" / f"{image_id}.mat"
    # Not compressed, since not every zlib makes the same bytes.
    savemat(str(mat), {"LabelMap": scene.label_map}, do_compression=False)
    with mat.open("r+b") as stream:  # SciPy puts the time of day into the header text
        stream.write(_MAT_HEADER)


def voc_palette() -> NDArray[np.uint8]:
    """Return the colours of the VOC development kit: red, green and blue of ids 0..255, [256, 3].

    The bits of an id go to red, green and blue in turn, to the high bits of each first.
    """
    ids = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= ((ids >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours


def _voc_classes(label_map: LabelMap) -> NDArray[np.uint8]:
    """Return the 21-class map [H, W]: 255 in a line 5 pixels wide around every object."""
    ids = {name: label for label, name in class_names("context460").items()}
    table = np.zeros(CLASSES, dtype=np.uint8)
    for number, name in class_names("voc21").items():
        table[ids.get("table" if name == "diningtable" else name, 0)] = number
    table[0] = _VOID
    classes = table[label_map]
    edge = np.zeros((classes.shape[0] + 4, classes.shape[1] + 4), dtype=np.bool_)
    edge[2:-2, 2:-3] |= classes[:, :-1] != classes[:, 1:]
    edge[2:-3, 2:-2] |= classes[:-1] != classes[1:]
    wide = sliding_window_view(edge, 5, axis=1).any(axis=-1)
    classes[sliding_window_view(wide, 5, axis=0).any(axis=-1)] = _VOID
    return classes
