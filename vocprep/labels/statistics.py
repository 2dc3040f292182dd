"""Counts over label maps: images and pixels of each class, classes of each image, void.

Also the tables of areas that authors of datasets logged, to compare label maps with.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.drawing.charts import bars_png
from vocprep.errors import ManifestError
from vocprep.files.reading import read_file
from vocprep.formats.npy import read_npy
from vocprep.labels.label_space import LabelSpace
from vocprep.manifests import manifests_dir
from vocprep.validation import explain

_COLUMNS = {"image_ids": "|S", "counts": "<u2", "labels": "<u2", "pixels": "<u4"}
"""Columns of a table of label areas, and how the name of each one's type begins."""
_MAX_TABLE = 64 << 20
"""Bytes of a table and of each of its columns; that of Pascal Context has 530 kB."""

_MOST_VALUES = 5
"""Label ids that a warning shows."""


@dataclass
class LabelStatistics:
    """Counts of any number of label maps of one label space."""

    space: LabelSpace
    images: int = 0
    pixels: int = 0
    void_pixels: int = 0
    images_of: Counter[int] = field(default_factory=Counter)
    """Class id → images that hold it, void not counted."""
    pixels_of: Counter[int] = field(default_factory=Counter)
    """Class id → pixels, void not counted."""
    images_by_classes: Counter[int] = field(default_factory=Counter)
    """Number of classes → images that hold so many."""

    def __repr__(self) -> str:
        return (
            f"LabelStatistics({self.space.name}: {self.images:,} images, {self.pixels:,} pixels, "
            f"{len(self.pixels_of)} of {len(self.space.names)} classes)"
        )

    def add(self, label_map: NDArray[np.uint16]) -> None:
        """Count one label map [H, W] of the label space."""
        areas = label_areas(label_map)
        self.images += 1
        self.pixels += label_map.size
        self.void_pixels += areas.pop(self.space.void, 0)
        self.images_of.update(areas.keys())
        self.pixels_of.update(areas)
        self.images_by_classes[len(areas)] += 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd about the label maps as a whole, in words."""
        return label_notes(self.space, self.pixels_of, self.void_pixels)

    @property
    def unused(self) -> list[int]:
        """Class ids that no image holds."""
        return sorted(set(self.space.names) - set(self.images_of))

    @property
    def mean_classes(self) -> float:
        """Mean number of classes per image."""
        return sum(self.images_of.values()) / max(self.images, 1)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: the content of labels.json."""
        return {
            "schema": self.space.name,
            "void": self.space.void,
            "images": self.images,
            "pixels": self.pixels,
            "void_pixels": self.void_pixels,
            "mean_classes_per_image": self.mean_classes,
            "classes_per_image": [
                {"classes": count, "images": images}
                for count, images in sorted(self.images_by_classes.items())
            ],
            "classes": [
                {
                    "id": class_id,
                    "name": self.space.names[class_id],
                    "images": images,
                    "pixels": self.pixels_of[class_id],
                }
                for class_id, images in sorted(self.images_of.items())
            ],
            "unused": self.unused,
        }


def label_notes(
    space: LabelSpace, pixels_of: Mapping[int, int], void_pixels: int
) -> tuple[str, ...]:
    """Return a warning where most pixels are void, or all others of one class.

    ``pixels_of`` are the pixels of each class over all label maps, void not counted.

    >>> space = LabelSpace.of_classes(name="pets", void=255, names={0: "background", 1: "cat"})
    >>> label_notes(space, {0: 900, 1: 50}, void_pixels=50)
    ()
    >>> print(label_notes(space, {0: 900}, void_pixels=100)[0])  # doctest: +ELLIPSIS
    label maps hold one class only in label space pets: found 0 (background) in 90.0 % of the \
pixels, 255 (void) in 10.0 %; void is neither learnt nor scored: if 255 marks a class...
    """
    classes = {class_id: count for class_id, count in pixels_of.items() if count}
    total = sum(classes.values()) + void_pixels
    problems = []
    if total and len(classes) <= 1:
        problems.append("hold one class only" if classes else "hold no class")
    if 2 * void_pixels > total:
        problems.append("are void for the most part")
    if not problems:
        return ()
    largest = sorted(classes.items(), key=lambda item: -item[1])[:_MOST_VALUES]
    found = [(f"{label} ({space.names.get(label, '?')})", count) for label, count in largest]
    if void_pixels:
        found.append((f"{space.void} (void)", void_pixels))
    shown = [f"{name} in {100 * count / total:.1f} %" for name, count in found]
    shown[0] += " of the pixels"
    advice = (
        f"void is neither learnt nor scored: if {space.void} marks a class in these masks, use a "
        "label space of your own with another void id (docs/guides/manifests.md)"
        if void_pixels
        else "check that the label maps are those of this label space"
    )
    return (
        f"label maps {' and '.join(problems)} in label space {space.name}: found "
        f"{', '.join(shown)}; {advice}",
    )


def draw_label_chart(statistics: LabelStatistics, most: int = 40) -> bytes:
    """Return a bar chart (PNG) of the classes with the most pixels, the largest on top."""
    top = statistics.pixels_of.most_common(most)
    return bars_png(
        [statistics.space.names[class_id] for class_id, _ in top],
        [100 * pixels / max(statistics.pixels, 1) for _, pixels in top],
        f"share of pixels (%), {statistics.images:,} images, {statistics.space.name}",
    )


def label_areas(label_map: NDArray[np.uint16]) -> dict[int, int]:
    """Return the number of pixels of each label id that occurs in a label map [H, W].

    >>> label_areas(np.array([[3, 3], [0, 3]], dtype=np.uint16))
    {0: 1, 3: 3}
    """
    counts = np.bincount(label_map.ravel())
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}


def load_label_areas(name: str) -> dict[str, dict[int, int]]:
    """Return the label areas of every image that a dataset's authors logged, by image id.

    The table is an ``.npz`` in ``manifests/label_areas``; its README has the origin of each. Areas
    are pixels by raw label id; ids that do not occur are absent. ManifestError when unreadable.
    """
    path = manifests_dir() / "label_areas" / f"{name}.npz"
    try:
        columns = _read_columns(read_file(path, _MAX_TABLE))
        image_ids = [item.decode("ascii") for item in columns["image_ids"].tolist()]
    except FileNotFoundError as error:
        known = ", ".join(sorted(table.stem for table in path.parent.glob("*.npz")))
        raise ManifestError(
            f"label_areas {name!r}: no such table, expected one of {known}; leave it out of the "
            "manifest"
        ) from error
    except (OSError, ValueError) as error:
        raise ManifestError(
            f"{path}: cannot be read as a table of label areas: {explain(error)}; install vocprep "
            "again"
        ) from error
    counts, labels, pixels = columns["counts"], columns["labels"], columns["pixels"]
    ends = np.cumsum(counts, dtype=np.int64)
    if not len(labels) == len(pixels) == counts.sum() or len(image_ids) != len(counts):
        raise ManifestError(f"{path}: its columns have different lengths; install vocprep again")
    pairs = list(zip(labels.tolist(), pixels.tolist(), strict=True))
    return {
        image_id: dict(pairs[end - count : end])
        for image_id, count, end in zip(image_ids, counts.tolist(), ends.tolist(), strict=True)
    }


def _read_columns(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the columns [N] of a table's file; ValueError when it is none."""
    columns = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name, dtype in _COLUMNS.items():
                member = archive.getinfo(f"{name}.npy")
                if member.file_size > _MAX_TABLE:
                    raise ValueError(f"column {name} has {member.file_size:,} bytes")
                column = read_npy(np.frombuffer(archive.read(member), dtype=np.uint8))
                if column.ndim != 1 or column.dtype.str[: len(dtype)] != dtype:
                    raise ValueError(f"column {name} is {column.dtype} {column.shape}")
                columns[name] = column
    # What zipfile raises for damaged archives, encrypted ones and unknown compressions.
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError, OSError) as error:
        raise ValueError(str(error)) from error
    return columns
