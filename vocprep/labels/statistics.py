"""Counts over label maps: images and pixels of each label, labels of each image, void."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.drawing.charts import bars_png
from vocprep.labels.label_space import LabelSpace


@dataclass
class LabelStatistics:
    """Counts of any number of label maps under one schema."""

    schema: LabelSpace
    images: int = 0
    pixels: int = 0
    void_pixels: int = 0
    images_of: Counter[int] = field(default_factory=Counter)
    """Label id → images that hold it, void not counted."""
    pixels_of: Counter[int] = field(default_factory=Counter)
    """Label id → pixels, void not counted."""
    labels_an_image: Counter[int] = field(default_factory=Counter)
    """Number of labels → images that hold so many."""

    def add(self, label_map: NDArray[np.uint16]) -> None:
        """Count one label map [H, W] of the schema."""
        areas = label_areas(label_map)
        self.images += 1
        self.pixels += label_map.size
        self.void_pixels += areas.pop(self.schema.void, 0)
        self.images_of.update(areas.keys())
        self.pixels_of.update(areas)
        self.labels_an_image[len(areas)] += 1

    @property
    def unused(self) -> list[int]:
        """Class ids that no image holds."""
        return sorted(set(self.schema.names) - set(self.images_of))

    @property
    def mean_labels(self) -> float:
        """Mean number of labels an image."""
        return sum(self.images_of.values()) / max(self.images, 1)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: the content of labels.json."""
        return {
            "schema": self.schema.name,
            "void": self.schema.void,
            "images": self.images,
            "pixels": self.pixels,
            "void_pixels": self.void_pixels,
            "mean_labels_an_image": self.mean_labels,
            "labels_an_image": {
                str(count): self.labels_an_image[count] for count in sorted(self.labels_an_image)
            },
            "labels": [
                {
                    "id": label,
                    "name": self.schema.names[label],
                    "images": self.images_of[label],
                    "pixels": self.pixels_of[label],
                }
                for label in sorted(self.images_of)
            ],
            "unused": self.unused,
        }


def draw_label_chart(statistics: LabelStatistics, most: int = 40) -> bytes:
    """Return the labels with the most pixels as bars, the largest first, as PNG."""
    top = statistics.pixels_of.most_common(most)
    return bars_png(
        [statistics.schema.names[label] for label, _ in top],
        [100 * pixels / max(statistics.pixels, 1) for _, pixels in top],
        f"share of pixels (%), {statistics.images:,} images, {statistics.schema.name}",
    )


def label_areas(label_map: NDArray[np.uint16]) -> dict[int, int]:
    """Return the pixels of each label that a map [H, W] holds."""
    counts = np.bincount(label_map.ravel())
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}
