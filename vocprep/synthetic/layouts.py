"""The generated scenes in the layouts of annotation tools and of other public datasets.

Files, names, modes and values are those that the tools write, so that ``vocprep init`` and the
guide docs/guides/own-data.md can be tried without a download. Only the most common classes of the
scenes occur in them; everything else is background, or void where a layout has no background.

=======  ===========================================================================================
labelme  labelme2voc.py of today: palette PNG in SegmentationClass, arrays with -1 beside them
camvid   CamVid as the SegNet tutorial has it: a folder per split, grey PNG, lists of path pairs
cvat     an export "Segmentation mask 1.1" with images: colours, and their classes in labelmap.txt
coco     COCO's panoptic and stuff label maps of two splits
plain    images/ and masks/, grey PNG; neither names nor splits
=======  ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import label as connected_regions

from vocprep.synthetic.coco import write_coco
from vocprep.synthetic.scene import CLASSES, Scene, class_names, write_jpeg, write_lines
from vocprep.synthetic.voc import voc_palette, write_voc

SampleLayout = Literal["voc", "labelme", "camvid", "cvat", "coco", "plain"]

_VOID: Final = 255
_COMMON: Final = (
    *("sky", "wall", "tree", "building", "mountain", "floor", "road", "grass", "person"),
    *("sidewalk", "snow", "sand", "water", "ceiling", "bird", "dog", "ground", "horse"),
    *("track", "window"),
)
"""The most common classes of the scenes, the largest first."""

_CAMVID: Final = (  # CamVid's classes 0 to 10, and the classes of the scenes that stand for them
    "sky",
    "building wall ceiling window door curtain",
    "bottle pottedplant",  # pole
    "road track floor",
    "sidewalk platform ground sand snow",  # pavement
    "tree grass mountain",
    "sign",
    "fence",
    "car bus train motorbike",
    "person",
    "bicycle",
)
_CAMVID_VOID: Final = 11

_CVAT: Final = {  # labels of an annotation project, with the colours of CVAT's own choice
    "sky": "33ddff",
    "wall": "fafa37",
    "tree": "3df53d",
    "building": "ff6037",
    "mountain": "8c78f0",
    "floor": "cc9933",
    "road": "b83df5",
    "grass": "66ff66",
    "person": "fa3253",
    "sidewalk": "733380",
    "water": "2a7dd1",
    "dog": "ff007c",
}


def _write_labelme(folder: Path, scenes: Iterable[Scene]) -> int:
    """Write what labelme2voc.py writes; ``__ignore__`` is 255 in the PNGs and -1 in the arrays."""
    table = _table(_COMMON, first=1, other=0, void=_VOID)
    used = np.zeros(256, dtype=np.int64)
    for scene in scenes:
        name, classes = f"IMG_{scene.number + 1:04d}", table[scene.label_map]
        write_jpeg(_at(folder, "JPEGImages", f"{name}.jpg"), scene.image)
        _write_palette(_at(folder, "SegmentationClass", f"{name}.png"), classes)
        array = classes.astype(np.int32)
        array[classes == _VOID] = -1
        np.save(_at(folder, "SegmentationClassNpy", f"{name}.npy"), array)
        drawn = (scene.image // 2) + (voc_palette()[classes] // 2)
        write_jpeg(_at(folder, "SegmentationClassVisualization", f"{name}.jpg"), drawn)
        used += np.bincount(classes.ravel(), minlength=256)
    (folder / "class_names.txt").write_bytes("\n".join(["_background_", *_COMMON]).encode())
    return int(np.count_nonzero(used[1:_VOID]))


def _write_camvid(folder: Path, scenes: Iterable[Scene]) -> int:
    """Write a folder of PNG images and one of label maps per split, and lists of their paths."""
    table = np.full(CLASSES, _CAMVID_VOID, dtype=np.uint8)
    for number, names in enumerate(_CAMVID):
        table[_ids(names.split())] = number
    lists: dict[str, list[str]] = {"train": [], "val": []}
    used = np.zeros(_CAMVID_VOID + 1, dtype=np.int64)
    for split in lists:
        for name in (split, f"{split}annot"):
            (folder / name).mkdir()
    for scene in scenes:
        name, classes = f"0001TP_{6690 + 30 * scene.number:06d}.png", table[scene.label_map]
        Image.fromarray(scene.image).save(folder / scene.split / name)
        Image.fromarray(classes).save(folder / f"{scene.split}annot" / name)
        paths = (f"/SegNet/CamVid/{part}/{name}" for part in (scene.split, f"{scene.split}annot"))
        lists[scene.split].append(" ".join(paths))
        used += np.bincount(classes.ravel(), minlength=len(used))
    for split, lines in lists.items():
        write_lines(folder / f"{split}.txt", lines)
    return int(np.count_nonzero(used[:_CAMVID_VOID]))


def _write_cvat(folder: Path, scenes: Iterable[Scene]) -> int:
    """Write RGB label maps, the colours of regions, one list of all images, and labelmap.txt."""
    table = _table(list(_CVAT), first=1, other=0, void=0)
    colours = np.array([(0, 0, 0), *(tuple(bytes.fromhex(text)) for text in _CVAT.values())])
    names: list[str] = []
    used = np.zeros(len(colours), dtype=np.int64)
    for scene in scenes:
        name, classes = f"frame_{scene.number:06d}", table[scene.label_map]
        names.append(name)
        write_jpeg(_at(folder, "JPEGImages", f"{name}.jpg"), scene.image)
        for part, drawn in (
            ("SegmentationClass", colours[classes].astype(np.uint8)),
            ("SegmentationObject", voc_palette()[_regions(classes)]),
        ):
            Image.fromarray(drawn).save(_at(folder, part, f"{name}.png"))
        used += np.bincount(classes.ravel(), minlength=len(used))
    write_lines(folder / "ImageSets" / "Segmentation" / "default.txt", names)
    lines = [
        f"{name}:{','.join(map(str, colour))}::"
        for name, colour in zip(["background", *_CVAT], colours.tolist(), strict=True)
    ]
    write_lines(folder / "labelmap.txt", ["# label:color_rgb:parts:actions", *lines])
    return int(np.count_nonzero(used[1:]))


def _write_plain(folder: Path, scenes: Iterable[Scene]) -> int:
    """Write images and grey label maps only; 255 is what has no label."""
    table = _table(_COMMON, first=1, other=0, void=_VOID)
    used = np.zeros(256, dtype=np.int64)
    for scene in scenes:
        name, classes = f"{scene.number + 1:04d}", table[scene.label_map]
        write_jpeg(_at(folder, "images", f"{name}.jpg"), scene.image)
        Image.fromarray(classes).save(_at(folder, "masks", f"{name}.png"))
        used += np.bincount(classes.ravel(), minlength=256)
    return int(np.count_nonzero(used[1:_VOID]))


def _table(names: Sequence[str], first: int, other: int, void: int) -> NDArray[np.uint8]:
    """Return the value of each id of context460: from ``first`` on in the order of the names."""
    table = np.full(CLASSES, other, dtype=np.uint8)
    table[_ids(names)] = np.arange(first, first + len(names))
    table[0] = void
    return table


def _ids(names: Sequence[str]) -> list[int]:
    ids = {name: label for label, name in class_names("context460").items()}
    return [ids[name] for name in names]


def _regions(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Number the connected regions of every class but 0 from 1 on; beyond 255, from 1 again."""
    numbers, count = np.zeros(classes.shape, dtype=np.int64), 0
    for value in np.unique(classes[classes > 0]):
        regions, found = connected_regions(classes == value)
        numbers[regions > 0] = regions[regions > 0] + count
        count += found
    return np.where(numbers > 0, (numbers - 1) % 255 + 1, 0).astype(np.uint8)


def _at(folder: Path, part: str, name: str) -> Path:
    """Return the path of a file in a folder that is made when it is first used."""
    (folder / part).mkdir(exist_ok=True)
    return folder / part / name


def _write_palette(path: Path, classes: NDArray[np.uint8]) -> None:
    image = Image.fromarray(classes)
    image.putpalette(voc_palette().tobytes())
    image.save(path)


@dataclass(frozen=True)
class _LayoutFiles:
    """How the scenes become files."""

    write: Callable[[Path, Iterable[Scene]], int]
    """Write all files below a folder; return how many classes occur."""
    holds: tuple[str, ...]
    """What is in the folder then."""
    has_splits: bool = True
    """Whether the files tell the splits apart."""


LAYOUTS: Final[Mapping[SampleLayout, _LayoutFiles]] = {
    "voc": _LayoutFiles(write_voc, ("trainval", "labels.txt", "VOCdevkit")),
    "labelme": _LayoutFiles(
        _write_labelme,
        (
            *("JPEGImages", "SegmentationClass", "SegmentationClassNpy"),
            *("SegmentationClassVisualization", "class_names.txt"),
        ),
        has_splits=False,
    ),
    "camvid": _LayoutFiles(
        _write_camvid, ("train", "trainannot", "train.txt", "val", "valannot", "val.txt")
    ),
    "cvat": _LayoutFiles(
        _write_cvat,
        ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets", "labelmap.txt"),
        has_splits=False,
    ),
    "coco": _LayoutFiles(
        write_coco,
        (
            *("annotations", "train2017", "val2017"),
            *("panoptic_train2017", "panoptic_val2017", "stuffthingmaps"),
        ),
    ),
    "plain": _LayoutFiles(_write_plain, ("images", "masks"), has_splits=False),
}
