"""Counts over the records of a split, beside counts made pixel by pixel."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from builders.records import VOID, record_of
from builders.versions import Built, write_records

from vocprep.analysis.statistics import SplitStatistics, count_split
from vocprep.geometry import PATCH
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record


@pytest.mark.parametrize("split", ["train", "val"])
def test_counts_are_those_of_the_pixels(crop_hdf5: Built, split: str) -> None:
    dataset = crop_hdf5.dataset
    found = count_split(dataset, split)
    records = [record for record in crop_hdf5.records.values() if record.split == split]
    void = dataset.label_space.void
    pixels = Counter(int(p) for record in records for p in record.label_map.ravel())
    pictures = Counter(int(p) for record in records for p in np.unique(record.label_map))
    labels, left_out = Counter[int](), Counter[int]()
    for record in records:
        for patch in patches_of(record.label_map):
            inside = Counter(int(p) for p in patch.ravel() if p != void)
            labels[len(inside)] += 1
            for label, count in sorted(inside.items(), key=lambda item: (-item[1], item[0]))[4:]:
                left_out[label] += count
    assert (found.pictures, found.patches) == (len(records), sum(labels.values()))
    assert (found.pixels, found.void_pixels) == (sum(pixels.values()), pixels.pop(void, 0))
    pictures.pop(void, 0)
    assert found.pixels_of == pixels
    assert found.pictures_of == pictures
    assert found.patches_by_labels == labels
    assert found.left_out_of == left_out
    assert found.left_out > 0
    assert found.crowded_patches == sum(n for count, n in labels.items() if count > 4)


def test_counts_agree_with_those_of_the_build(crop_hdf5: Built) -> None:
    for split, facts in crop_hdf5.index.statistics["splits"].items():
        found = count_split(crop_hdf5.dataset, split)
        assert facts == {
            "records": found.pictures,
            "patches": found.patches,
            "pixels": found.pixels,
            "void_pixels": found.void_pixels,
            "other_pixels": found.left_out,
            "patches_without_label": found.patches_by_labels[0],
            "patches_with_more_labels": found.crowded_patches,
        }


def test_mirrored_views_are_not_counted(native_hdf5: Built) -> None:
    found = count_split(native_hdf5.dataset, "train")
    plain = [key for key, r in native_hdf5.records.items() if "#" not in key and r.split == "train"]
    assert found.pictures == len(plain) < len(native_hdf5.records)


def test_the_most_void_pictures_are_listed_first_and_ties_by_id() -> None:
    found = SplitStatistics(split="train", void=VOID)
    for image_id, columns in (("b", 8), ("c", 16), ("a", 8), ("none", 0)):
        found.add(record_with_void(image_id, columns))
    assert found.most_void == [("c", 0.5), ("a", 0.25), ("b", 0.25)]
    assert list(found.void_shares) == [0.25, 0.5, 0.25, 0.0]


def test_of_many_pictures_the_most_void_and_the_first_ids_are_kept() -> None:
    found = SplitStatistics(split="train", void=VOID)
    for number in range(60):
        found.add(record_with_void(f"{number:03d}", 8 if number % 2 else 16))
    assert [image_id for image_id, _ in found.most_void] == [
        *(f"{number:03d}" for number in range(0, 60, 2)),
        *(f"{number:03d}" for number in range(1, 41, 2)),
    ]


def test_records_that_are_all_void_are_counted(tmp_path: Path) -> None:
    path = write_records(tmp_path / "out", [record_with_void("a", PATCH)])
    found = count_split(ShardDataset.open(path), "train")
    assert (found.labelled_pixels, found.left_out) == (0, 0)
    assert found.patches_by_labels == {0: 1}


def record_with_void(image_id: str, columns: int) -> Record:
    """A record of one patch whose first columns are void."""
    label_map = np.full((PATCH, PATCH), 7, dtype=np.uint16)
    label_map[:, :columns] = VOID
    return record_of(image_id, label_map)


def patches_of(label_map: np.ndarray) -> list[np.ndarray]:
    height, width = label_map.shape
    return [
        label_map[y : y + PATCH, x : x + PATCH]
        for y in range(0, height, PATCH)
        for x in range(0, width, PATCH)
    ]
