"""``--to coco-panoptic``, read back by ``vocprep init``, by Datumaro and as COCO defines it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.exported_runs import run_block
from builders.records import record_of
from builders.versions import Built, write_splits
from numpy.typing import NDArray
from PIL import Image

import vocprep
from vocprep.analysis.photographs import Photographs
from vocprep.labels.label_space import LabelSpace

pytestmark = pytest.mark.slow

GROUND = LabelSpace.of_classes(name="pets", void=255, names={0: "ground", 1: "cat", 300: "dog"})
"""Ids whose categories differ from them, and have more than eight bits."""


@pytest.fixture(scope="module")
def exported(
    crop_hdf5: Built, sample_tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> vocprep.ExportResult:
    options = vocprep.ExportOptions(data_dir=sample_tree)
    return vocprep.export(crop_hdf5.path, "coco-panoptic", tmp_path_factory.mktemp("coco"), options)


@pytest.fixture(scope="module")
def without_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a picture of three classes and void."""
    folder = tmp_path_factory.mktemp("pets")
    label_map = np.zeros((32, 64), dtype=np.uint16)
    label_map[4:9, 10:40], label_map[20:, :3], label_map[0, 63] = 300, 1, 255
    splits = {"my val": [record_of("a/b", label_map, split="my val")]}
    write_splits(folder / "version", splits, space=GROUND)
    options = vocprep.ExportOptions(photographs="none")
    return vocprep.export(folder / "version", "coco-panoptic", folder / "out", options).path


def segments(folder: Path, split: str) -> dict[str, tuple[NDArray[np.int64], dict[str, Any]]]:
    """The segment ids of each picture's pixels and its annotation, by record id, as COCO reads."""
    document = json.loads((folder / f"annotations/panoptic_{split}.json").read_text())
    images = {image["id"]: image for image in document["images"]}
    found = {}
    for annotation in document["annotations"]:
        path = folder / f"annotations/panoptic_{split}" / annotation["file_name"]
        red, green, blue = np.moveaxis(np.asarray(Image.open(path)).astype(np.int64), 2, 0)
        pixels = red + 256 * green + 256**2 * blue
        image = images.pop(annotation["image_id"])
        assert pixels.shape == (image["height"], image["width"])
        found[image["record_id"]] = pixels, annotation
    assert not images
    return found


def test_each_class_of_a_picture_is_a_segment(without_photographs: Path) -> None:
    ((pixels, annotation),) = segments(without_photographs, "my val").values()
    assert annotation["file_name"] == "a%2Fb.png"
    assert pixels[0, 63] == 0
    areas = {1: 32 * 64 - 1 - 5 * 30 - 12 * 3, 2: 12 * 3, 301: 5 * 30}
    boxes = {1: [0, 0, 64, 32], 2: [0, 20, 3, 12], 301: [10, 4, 30, 5]}
    assert annotation["segments_info"] == [
        {"id": key, "category_id": key, "area": areas[key], "bbox": boxes[key], "iscrowd": 0}
        for key in (1, 2, 301)
    ]
    assert {int(key): int((pixels == key).sum()) for key in np.unique(pixels) if key} == areas
    document = json.loads((without_photographs / "annotations/panoptic_my val.json").read_text())
    categories = {each["id"]: each for each in document["categories"]}
    assert {key: each["name"] for key, each in categories.items()} == {
        **{1: "ground", 2: "cat", 301: "dog"}
    }
    assert [each["class_id"] for each in document["categories"]] == [0, 1, 300]
    assert not any(each["isthing"] for each in document["categories"])
    assert not (without_photographs / "images").exists()


def test_label_maps_and_photographs_are_those_of_the_records(
    exported: vocprep.ExportResult, crop_hdf5: Built, sample_tree: Path
) -> None:
    photographs = Photographs.of(crop_hdf5.dataset, sample_tree)
    seen = {}
    for split in ("train", "val"):
        for record_id, (pixels, annotation) in segments(exported.path, split).items():
            record = seen[record_id] = crop_hdf5.records[record_id]
            np.testing.assert_array_equal(pixels, record.label_map)  # void is 0 here
            listed = {each["id"]: each["area"] for each in annotation["segments_info"]}
            assert listed == {key: n for key, n in record.label_pixels.items() if key}
            image = Image.open(exported.path / "images" / split / annotation["file_name"])
            expected = photographs.read(record_id, record.image_sha256)
            np.testing.assert_array_equal(np.asarray(image), expected)
    assert seen.keys() == crop_hdf5.records.keys()


def test_init_recognises_the_folder_and_decodes_the_same_label_maps(
    exported: vocprep.ExportResult, crop_hdf5: Built, tmp_path: Path
) -> None:
    vocprep.init(exported.path, out=tmp_path / "manifests")
    vocprep.decode(
        tmp_path / "manifests/dataset.toml", out=tmp_path / "decoded", data_dir=exported.path
    )
    for record_id, record in crop_hdf5.records.items():
        found = np.asarray(Image.open(tmp_path / "decoded" / f"{record.split}%2F{record_id}.png"))
        np.testing.assert_array_equal(found, record.label_map)


def test_the_same_records_give_the_same_bytes(
    exported: vocprep.ExportResult, crop_tar: Built, sample_tree: Path, tmp_path: Path
) -> None:
    options = vocprep.ExportOptions(data_dir=sample_tree)
    assert vocprep.export(crop_tar.path, "coco-panoptic", tmp_path, options).files == exported.files


def test_the_guide_s_lines_read_a_picture(
    exported: vocprep.ExportResult,
    crop_hdf5: Built,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "voc-coco").symlink_to(exported.path)
    monkeypatch.chdir(tmp_path)
    found = run_block("panoptic_val.json")
    record = next(each for each in crop_hdf5.records.values() if each.split == "val")
    np.testing.assert_array_equal(found["segments"], record.label_map)
    assert found["areas"] == {key: n for key, n in record.label_pixels.items() if key}


def test_datumaro_imports_the_folder(exported: vocprep.ExportResult, crop_hdf5: Built) -> None:
    datumaro = pytest.importorskip(
        "datumaro",
        reason="Datumaro is not installed: it takes an environment of its own (CONTRIBUTING.md)",
    )
    dataset = datumaro.Dataset.import_from(str(exported.path), "coco_panoptic")
    classes = dataset.categories()[datumaro.AnnotationType.label]
    space, seen = crop_hdf5.dataset.label_space, set()
    for item in dataset:
        record = crop_hdf5.records[item.id]
        found = np.full(record.label_map.shape, space.void)
        for segment in item.annotations:
            label = next(
                key for key, name in space.names.items() if name == classes[segment.label].name
            )
            found[segment.image.astype(bool)] = label
        np.testing.assert_array_equal(found, record.label_map)
        assert item.subset == record.split
        assert item.media.data.shape[:2] == record.label_map.shape
        seen.add(item.id)
    assert seen == crop_hdf5.records.keys()
