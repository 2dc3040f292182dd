"""``--to fiftyone``, read back by FiftyOne where it is installed, and as its files are defined."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import fiftyone_reader
from builders.records import record_of
from builders.versions import Built, write_splits
from numpy.typing import NDArray
from PIL import Image

import vocprep
from vocprep.labels.label_space import LabelSpace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(
    crop_hdf5: Built, sample_tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> vocprep.ExportResult:
    options = vocprep.ExportOptions(data_dir=sample_tree)
    return vocprep.export(crop_hdf5.path, "fiftyone", tmp_path_factory.mktemp("fo"), options)


def documents(folder: Path) -> dict[str, Any]:
    samples = json.loads((folder / "samples.json").read_text())["samples"]
    return {sample["record_id"]: sample for sample in samples}


def vector(value: dict[str, Any]) -> NDArray[Any]:
    found: NDArray[Any] = np.load(
        io.BytesIO(zlib.decompress(base64.b64decode(value["$binary"]["base64"])))
    )
    return found


def test_a_sample_has_label_map_split_classes_and_mean_embedding(
    exported: vocprep.ExportResult, crop_hdf5: Built
) -> None:
    samples, space = documents(exported.path), crop_hdf5.dataset.label_space
    assert [*samples] == [*crop_hdf5.records]
    for record_id, record in crop_hdf5.records.items():
        sample = samples[record_id]
        assert sample["tags"] == [record.split]
        mask = np.asarray(Image.open(exported.path / sample["ground_truth"]["mask_path"]))
        np.testing.assert_array_equal(mask, record.label_map)
        photograph = np.asarray(Image.open(exported.path / sample["filepath"]))
        assert photograph.shape == (*mask.shape, 3)
        present = [each for each in np.unique(record.label_map).tolist() if each != space.void]
        assert sample["classes"] == [space.names[each] for each in present]
        mean = record.embeddings.astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(vector(sample["embedding"]), mean, rtol=1e-5, atol=1e-6)


def test_ids_are_of_mongodb_and_the_same_in_every_export(
    exported: vocprep.ExportResult, crop_tar: Built, sample_tree: Path, tmp_path: Path
) -> None:
    ids = {sample["_id"]["$oid"] for sample in documents(exported.path).values()}
    ids |= {sample["ground_truth"]["_id"]["$oid"] for sample in documents(exported.path).values()}
    assert len(ids) == 2 * len(documents(exported.path))
    assert all(len(bytes.fromhex(each)) == 12 for each in ids)
    options = vocprep.ExportOptions(data_dir=sample_tree)
    assert vocprep.export(crop_tar.path, "fiftyone", tmp_path, options).files == exported.files


def test_small_ids_have_masks_of_eight_bits_and_void_has_a_name(tmp_path: Path) -> None:
    label_map = np.array([[0, 1], [255, 1]], dtype=np.uint16).repeat(16, 0).repeat(16, 1)
    names = {0: "ground", 1: "cat"}
    space = LabelSpace.of_classes(name="pets", void=255, names=names).with_colours({1: "#102030"})
    write_splits(
        tmp_path / "version", {"val": [record_of("a/b", label_map, split="val")]}, space=space
    )
    options = vocprep.ExportOptions(photographs="none")
    vocprep.export(tmp_path / "version", "fiftyone", tmp_path / "out", options)
    (sample,) = documents(tmp_path / "out").values()
    mask = np.asarray(Image.open(tmp_path / "out" / sample["ground_truth"]["mask_path"]))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, label_map)
    assert sample["filepath"] == "data/val/a%2Fb.png"
    metadata = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert metadata["default_mask_targets"] == {"0": "ground", "1": "cat", "255": "void"}
    colours = metadata["app_config"]["color_scheme"]["default_mask_targets_colors"]
    assert {"intTarget": 1, "color": "#102030"} in colours


@pytest.mark.skipif(
    importlib.util.find_spec("fiftyone") is None,
    reason="FiftyOne is not installed: it takes an environment of its own (CONTRIBUTING.md)",
)
def test_fiftyone_imports_the_folder(
    exported: vocprep.ExportResult, crop_hdf5: Built, tmp_path: Path
) -> None:
    subprocess.run(
        [sys.executable, "-P", fiftyone_reader.__file__, exported.path, tmp_path],
        env={**os.environ, "HOME": str(tmp_path), "FIFTYONE_DO_NOT_TRACK": "1"},
        capture_output=True,
        check=True,
        timeout=200,
    )
    found = json.loads((tmp_path / "dataset.json").read_text())
    records, space = crop_hdf5.records, crop_hdf5.dataset.label_space
    assert [sample["record_id"] for sample in found["samples"]] == [*records]
    with np.load(tmp_path / "masks.npz") as label_maps:
        for sample in found["samples"]:
            record = records[sample["record_id"]]
            assert (sample["tags"], sample["view"]) == ([record.split], "identity")
            assert sample["size"] == [*record.label_map.shape]
            np.testing.assert_array_equal(label_maps[record.image_id], record.label_map)
            mean = record.embeddings.astype(np.float64).mean(axis=0)
            np.testing.assert_allclose(sample["embedding"], mean, rtol=1e-5, atol=1e-6)
            assert Path(sample["filepath"]).is_file()
    assert found["val"] == sum(record.split == "val" for record in records.values())
    assert set(found["classes"]) <= {*space.names.values()}
    names = {int(label): name for label, name in found["mask_targets"].items()}
    assert names == {**space.names, space.void: "void"}
    assert found["content_id"] == crop_hdf5.index.content_id
    assert len(found["colours"]) == len(space.names)
