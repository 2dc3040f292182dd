"""``--to hugging-face``, read back by ``datasets``."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from builders.records import record_of
from builders.versions import Built, write_splits

import vocprep
from vocprep.errors import ShardError, UsageError
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.png import encode_png
from vocprep.shards.record import Record

pytestmark = pytest.mark.slow

PATCHES = vocprep.ExportOptions(rows="patches")


def run_card(folder: Path) -> dict[str, Any]:
    """Run the code of a card as it is, but for the folder; return its variables."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    variables: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(folder)), variables)
    return variables


def as_record(row: dict[str, Any], dtype: str) -> Record:
    """The record of a row, its label map encoded again from the pixels that were read."""
    patches = row["ny"] * row["nx"]
    assert row["label_map"].mode == "I;16"
    return Record(
        image_id=row["record_id"],
        split=row["split"],
        grid=(row["ny"], row["nx"]),
        embeddings=np.array(row["embeddings"], dtype=dtype).reshape(patches, -1),
        slot_labels=np.array(row["slot_labels"], dtype=np.int16),
        slot_pixels=np.array(row["slot_pixels"], dtype=np.uint16),
        label_count=np.array(row["label_count"], dtype=np.uint8),
        slot_planes=np.frombuffer(row["slot_planes"], np.uint8).reshape(patches, 3, 128),
        label_png=encode_png(np.array(row["label_map"])),
        image_sha256=row["image_sha256"],
        label_sha256=row["label_sha256"],
    )


@pytest.mark.parametrize("name", ["crop_tar", "native_hdf5"])
def test_all_values_are_read_back_by_the_code_of_the_card(
    name: str, datasets: ModuleType, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    built: Built = request.getfixturevalue(name)
    vocprep.export(built.path, "hugging-face", tmp_path / "out")
    found = run_card(tmp_path / "out")
    first = built.records[found["row"]["record_id"]]
    np.testing.assert_array_equal(found["embeddings"], first.embeddings)
    assert found["embeddings"].dtype == first.embeddings.dtype
    np.testing.assert_array_equal(found["slot_labels"], first.slot_labels)
    np.testing.assert_array_equal(found["slot_planes"], first.slot_planes)
    np.testing.assert_array_equal(found["label_map"], first.label_map)
    assert found["label_map"].dtype == np.uint16
    rows = {row["record_id"]: row for split in found["dataset"].values() for row in split}
    assert rows.keys() == built.records.keys()
    space = built.dataset.label_space
    for record_id, record in built.records.items():
        again = as_record(rows[record_id], str(record.embeddings.dtype))
        assert again.record_sha256 == record.record_sha256
    classes = found["dataset"]["val"].features["labels"].feature
    for row in found["dataset"]["val"]:
        assert classes.int2str(row["labels"]) == row["class_names"]
        assert row["class_names"] == [space.names[label] for label in row["labels"]]


def test_patches_are_rows_whose_class_has_a_name(
    datasets: ModuleType, crop_hdf5: Built, tmp_path: Path
) -> None:
    vocprep.export(crop_hdf5.path, "hugging-face", tmp_path / "out", PATCHES)
    found = run_card(tmp_path / "out")
    rows, records = found["dataset"]["train"], crop_hdf5.records
    assert len(rows) == sum(math.prod(r.grid) for r in records.values() if r.split == "train")
    first = records[rows[0]["record_id"]]
    np.testing.assert_array_equal(found["embeddings"][:49], first.embeddings)
    np.testing.assert_array_equal(found["labels"][:49], first.slot_labels[:, 0])
    label = rows.features["label"]
    assert label.int2str(rows[0]["label"]) == rows[0]["class_name"]


def test_front_matter_names_files_and_counts(
    datasets: ModuleType, crop_hdf5: Built, tmp_path: Path
) -> None:
    vocprep.export(crop_hdf5.path, "hugging-face", tmp_path / "out")
    from huggingface_hub import DatasetCard  # noqa: PLC0415

    card = DatasetCard.load(tmp_path / "out" / "README.md")
    (config,) = card.data.configs
    assert [each["path"] for each in config["data_files"]] == ["data/train-*", "data/val-*"]
    counts = {each["name"]: each["num_examples"] for each in card.data.dataset_info["splits"]}
    splits = [record.split for record in crop_hdf5.records.values()]
    assert counts == {split: splits.count(split) for split in ("train", "val")}
    own = (crop_hdf5.path / "README.md").read_text().partition("## Terms of use")[2].strip()
    assert own
    assert own in card.text
    assert crop_hdf5.index.content_id in card.text
    told = json.loads((tmp_path / "out/export.json").read_text())["versions"]
    assert told["datasets"] == datasets.__version__


def test_the_same_version_gives_the_same_bytes(
    datasets: ModuleType, crop_hdf5: Built, crop_tar: Built, tmp_path: Path
) -> None:
    once = vocprep.export(crop_hdf5.path, "hugging-face", tmp_path / "a")
    assert vocprep.export(crop_hdf5.path, "hugging-face", tmp_path / "b").files == once.files
    other = vocprep.export(crop_tar.path, "hugging-face", tmp_path / "c").files
    assert {each.sha256 for each in once.files} == {each.sha256 for each in other}


def test_ids_that_have_no_names_stay_numbers(datasets: ModuleType, tmp_path: Path) -> None:
    label_map = np.full((32, 32), 30000, dtype=np.uint16)
    space = LabelSpace.of_classes(name="far", void=0, names={30000: "far"})
    splits = {"my split": [record_of("a b/c", label_map, split="my split")]}
    write_splits(tmp_path / "version", splits, space=space)
    vocprep.export(tmp_path / "version", "hugging-face", tmp_path / "out")
    (row,) = run_card(tmp_path / "out")["dataset"]["my_split"]
    assert (row["record_id"], row["split"]) == ("a b/c", "my split")
    assert (row["labels"], row["class_names"]) == ([30000], ["far"])
    assert np.unique(np.array(row["label_map"])).tolist() == [30000]


def test_splits_that_would_have_one_name_are_refused(datasets: ModuleType, tmp_path: Path) -> None:
    label_map = np.ones((32, 32), dtype=np.uint16)
    splits = {name: [record_of(name, label_map, split=name)] for name in ("a-b", "a_b")}
    write_splits(tmp_path / "version", splits)
    with pytest.raises(UsageError, match="splits a-b, a_b: expected names that differ"):
        vocprep.export(tmp_path / "version", "hugging-face", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_shard_leaves_nothing(
    datasets: ModuleType, built_copy: Built, tmp_path: Path
) -> None:
    shard = built_copy.path / built_copy.index.shards[-1].name
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(ShardError, match=shard.name):
        vocprep.export(built_copy.path, "hugging-face", tmp_path / "out")
    assert not (tmp_path / "out").exists()
