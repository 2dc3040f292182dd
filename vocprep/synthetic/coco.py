"""The generated scenes as files of COCO: images, panoptic segments, stuff label maps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import find_objects
from scipy.ndimage import label as connected_regions

from vocprep.files.writing import canonical_json
from vocprep.synthetic.scene import CLASSES, Scene, class_names, write_jpeg

_SPLITS: Final = ("train", "val")
_UNLABELLED: Final = 255


class _Category(NamedTuple):
    """A class of the scenes in COCO's two numberings."""

    source: str
    id: int
    """In the panoptic annotations."""
    name: str
    stuff_id: int
    """In COCO-Stuff, whose label maps hold this less one."""
    supercategory: str

    @property
    def is_thing(self) -> bool:
        return self.id <= 90


_CATEGORIES: Final = (
    _Category("person", 1, "person", 1, "person"),
    _Category("bicycle", 2, "bicycle", 2, "vehicle"),
    _Category("car", 3, "car", 3, "vehicle"),
    _Category("motorbike", 4, "motorcycle", 4, "vehicle"),
    _Category("aeroplane", 5, "airplane", 5, "vehicle"),
    _Category("bus", 6, "bus", 6, "vehicle"),
    _Category("train", 7, "train", 7, "vehicle"),
    _Category("bird", 16, "bird", 16, "animal"),
    _Category("cat", 17, "cat", 17, "animal"),
    _Category("dog", 18, "dog", 18, "animal"),
    _Category("horse", 19, "horse", 19, "animal"),
    _Category("sheep", 20, "sheep", 20, "animal"),
    _Category("chair", 62, "chair", 62, "furniture"),
    _Category("platform", 144, "platform", 144, "ground"),
    _Category("track", 147, "railroad", 147, "ground"),
    _Category("road", 149, "road", 149, "ground"),
    _Category("sand", 154, "sand", 154, "ground"),
    _Category("snow", 159, "snow", 159, "ground"),
    _Category("water", 178, "water-other", 178, "water"),
    _Category("window", 181, "window-other", 181, "window"),
    _Category("tree", 184, "tree-merged", 169, "plant"),
    _Category("fence", 185, "fence-merged", 113, "structural"),
    _Category("ceiling", 186, "ceiling-merged", 103, "ceiling"),
    _Category("sky", 187, "sky-other-merged", 157, "sky"),
    _Category("floor", 190, "floor-other-merged", 115, "floor"),
    _Category("sidewalk", 191, "pavement-merged", 140, "ground"),
    _Category("mountain", 192, "mountain-merged", 135, "solid"),
    _Category("grass", 193, "grass-merged", 124, "plant"),
    _Category("building", 197, "building-other-merged", 96, "building"),
    _Category("rock", 198, "rock-merged", 150, "solid"),
    _Category("wall", 199, "wall-other-merged", 173, "wall"),
)


def write_coco(folder: Path, scenes: Iterable[Scene]) -> int:
    """Write images, panoptic and stuff label maps of two splits; return how many classes occur."""
    ids, values = _tables()
    documents = {split: _new_document() for split in _SPLITS}
    for split in _SPLITS:
        for place in (f"{split}2017", f"panoptic_{split}2017", f"stuffthingmaps/{split}2017"):
            (folder / place).mkdir(parents=True)
    for scene in scenes:
        place, number = f"{scene.split}2017", scene.number + 1
        write_jpeg(folder / place / f"{number:012d}.jpg", scene.image)
        label_file = Path("stuffthingmaps", place, f"{number:012d}.png")
        Image.fromarray(values[scene.label_map]).save(folder / label_file)
        segments, infos = _segments(ids[scene.label_map])
        rgb = np.stack([segments >> shift & 255 for shift in (0, 8, 16)], axis=-1)
        panoptic = f"{number:012d}.png"
        Image.fromarray(rgb.astype(np.uint8)).save(folder / f"panoptic_{place}" / panoptic)
        height, width = scene.label_map.shape
        image = {"id": number, "file_name": f"{number:012d}.jpg", "height": height, "width": width}
        documents[scene.split]["images"].append(image)
        documents[scene.split]["annotations"].append(
            {"image_id": number, "file_name": panoptic, "segments_info": infos}
        )
    (folder / "annotations").mkdir()
    for split, document in documents.items():
        path = folder / "annotations" / f"panoptic_{split}2017.json"
        path.write_bytes(canonical_json(document))
    return len({category for document in documents.values() for category in _used(document)})


def _tables() -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the panoptic category and the stuff value of each id of context460."""
    labels = {name: label for label, name in class_names("context460").items()}
    ids = np.zeros(CLASSES, dtype=np.int64)
    values = np.full(CLASSES, _UNLABELLED, dtype=np.uint8)
    for category in _CATEGORIES:
        ids[labels[category.source]] = category.id
        values[labels[category.source]] = category.stuff_id - 1
    return ids, values


def _new_document() -> dict[str, list[Any]]:
    categories = [
        {
            "id": category.id,
            "name": category.name,
            "supercategory": category.supercategory,
            "isthing": int(category.is_thing),
        }
        for category in _CATEGORIES
    ]
    return {"images": [], "annotations": [], "categories": categories}


def _segments(categories: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[dict[str, Any]]]:
    """Return the segment id of each pixel [H, W] and what is known of each segment.

    Stuff is one segment per class, a thing one per connected region. Ids have 24 bits.
    """
    segments, infos = np.zeros(categories.shape, dtype=np.int64), []
    things = {category.id for category in _CATEGORIES if category.is_thing}
    for category in np.unique(categories[categories > 0]).tolist():
        inside = categories == category
        regions = connected_regions(inside)[0] if category in things else inside.astype(np.int32)
        for region, (rows, columns) in enumerate(find_objects(regions), start=1):
            segment = (category << 16) + 97 * region
            pixels = regions == region
            segments[pixels] = segment
            box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
            infos.append(
                {
                    "id": segment,
                    "category_id": category,
                    "area": int(np.count_nonzero(pixels)),
                    "bbox": box,
                    "iscrowd": 0,
                }
            )
    return segments, infos


def _used(document: dict[str, list[Any]]) -> set[int]:
    """Return the categories of all segments."""
    return {
        segment["category_id"]
        for annotation in document["annotations"]
        for segment in annotation["segments_info"]
    }
