"""``--to coco-panoptic``: label maps as COCO's panoptic annotations, beside photographs.

Labels are of classes and tell no objects apart: a picture has one segment per class, and all
categories are stuff. The colour of a pixel is the id of its segment, red + 256·green + 65536·blue,
which is that of the category. 0 belongs to none and stands for void.

Shape legend: h, w = 32·ny, 32·nx pixels of a record.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from vocprep.drawing.png import png_bytes
from vocprep.exporting.pictures import Picture, Pictures, write_file, write_json_lists
from vocprep.exporting.version_source import VersionSource
from vocprep.files.writing import canonical_json
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.statistics import label_areas

_ANNOTATIONS = "annotations"


def write_coco_panoptic(source: VersionSource, folder: Path) -> None:
    """Write ``annotations/panoptic_SPLIT.json``, and of each picture two PNG.

    They are ``annotations/panoptic_SPLIT/ID.png``, its segments, and ``images/SPLIT/ID.png``.
    """
    pictures, numbers = Pictures(source), count(1)
    (folder / _ANNOTATIONS).mkdir()
    write = partial(_write_picture, folder, source.label_space)
    values = {
        "info": {"description": _described(source), "vocprep": source.about},
        "licenses": [],
        "categories": _categories(source.label_space),
    }
    for split in source.splits:
        images, annotations = [], []
        for (image, segments), number in zip(pictures.map(split, write), numbers, strict=False):
            images.append(canonical_json({"id": number, **image}))
            told = {"image_id": number, "file_name": image["file_name"], "segments_info": segments}
            annotations.append(canonical_json(told))
        lists = {"images": images, "annotations": annotations}
        write_json_lists(folder / _ANNOTATIONS / f"panoptic_{split}.json", values, lists)


def category_ids(label_map: NDArray[np.uint16], space: LabelSpace) -> NDArray[np.uint16]:
    """Return the category of each pixel [h, w]: its class id, or one more; 0 for void.

    >>> pets = LabelSpace.of_classes(name="pets", void=255, names={0: "ground", 1: "cat"})
    >>> category_ids(np.array([[0, 1, 255]], dtype=np.uint16), pets).tolist()
    [[1, 2, 0]]
    """
    categories = label_map + np.uint16(_first_category(space))
    categories[label_map == space.void] = 0
    return categories


def segments_info(categories: NDArray[np.uint16]) -> list[dict[str, Any]]:
    """Return id, area and box (left, top, width, height) of each category but 0.

    >>> segments_info(np.array([[0, 7, 7]], dtype=np.uint16))[0]["bbox"]
    [1, 0, 2, 1]
    """
    boxes, areas = find_objects(categories.astype(np.int32)), label_areas(categories)
    areas.pop(0, None)
    return [
        {
            "id": each,
            "category_id": each,
            "area": area,
            "bbox": _box(*boxes[each - 1]),
            "iscrowd": 0,
        }
        for each, area in areas.items()
    ]


def _box(rows: slice, columns: slice) -> list[int]:
    return [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]


def _write_picture(
    folder: Path, space: LabelSpace, picture: Picture
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write the files of a picture; return its entry among the images, and its segments."""
    record, name = picture.record, picture.file_name
    categories = category_ids(picture.label_map, space)
    segments = folder / _ANNOTATIONS / f"panoptic_{record.split}" / name
    write_file(segments, png_bytes(_colours(categories)))
    if picture.photograph is not None:
        write_file(folder / "images" / record.split / name, png_bytes(picture.photograph))
    height, width = categories.shape
    image = {
        **{"file_name": name, "height": height, "width": width},
        **{"record_id": record.image_id, "image_sha256": record.image_sha256},
    }
    return image, segments_info(categories)


def _colours(categories: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Return ids [h, w] as colours [h, w, 3]; they have 16 bits, so that blue is 0."""
    low, high = categories & 0xFF, categories >> 8
    return np.stack([low, high, np.zeros_like(low)], axis=-1).astype(np.uint8)


def _categories(space: LabelSpace) -> list[dict[str, Any]]:
    first = _first_category(space)
    return [
        {
            **{"id": label + first, "name": name, "supercategory": name, "isthing": 0},
            **{"color": list(space.style.colour(label)), "class_id": label},
        }
        for label, name in sorted(space.names.items())
    ]


def _first_category(space: LabelSpace) -> int:
    """Return the category of class 0: 1 where there is such a class, since 0 stands for void."""
    return 1 if 0 in space.names else 0


def _described(source: VersionSource) -> str:
    recipe, index = source.dataset.index.recipe, source.dataset.index
    return f"{recipe.dataset} with label space {recipe.schema.name}, version {index.short_id}"
