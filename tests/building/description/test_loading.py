"""The code of a version's card, run as it is: all values are those of the version.

The bytes of cards are part of finished versions, so what they import has to stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from builders.records import make_record
from builders.versions import Built, write_splits

from vocprep.options import Layout
from vocprep.shards.record import Record

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("stock_webdataset"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # webdataset's own
]


def blocks(folder: Path) -> dict[str, str]:
    """The blocks of code of a card, by the library that reads."""
    code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    libraries = ("vocprep", "h5py", "webdataset", "datasets")
    found = {
        library: block.replace("path/to/this/folder", str(folder))
        for block in code
        for library in libraries
        if re.search(rf"^(import|from) {library}\b", block, re.MULTILINE)
    }
    assert len(found) == len(code)
    return found


def run(code: str) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    exec(code, variables)
    return variables


def assert_has(values: Mapping[str, Any], record: Record) -> None:
    """The arrays under the names of fields have the bits and the types of the record."""
    for name in ("embeddings", "slot_labels", "label_map"):
        assert values[name].dtype == getattr(record, name).dtype
        np.testing.assert_array_equal(values[name], getattr(record, name))


@pytest.mark.parametrize("name", ["crop_hdf5", "native_tar"])
def test_vocprep_reads_batches(name: str, request: pytest.FixtureRequest) -> None:
    built: Built = request.getfixturevalue(name)
    assert run(blocks(built.path)["vocprep"])["batch"].embeddings.ndim == 3


@pytest.mark.parametrize("name", ["crop_hdf5", "native_hdf5"])
def test_h5py_reads_each_record(name: str, request: pytest.FixtureRequest) -> None:
    built: Built = request.getfixturevalue(name)
    code = blocks(built.path)["h5py"]
    shard = built.index.shards[0]
    for row, record in enumerate(built.dataset.read_shard(shard.name, all_views=True)):
        values = run(code.replace("row = 0", f"row = {row}"))
        assert values["record_id"] == record.image_id
        assert_has(values, record)
    assert row == shard.records - 1


@pytest.mark.parametrize("name", ["crop_tar", "native_tar"])
def test_stock_webdataset_reads_each_record(name: str, request: pytest.FixtureRequest) -> None:
    built: Built = request.getfixturevalue(name)
    code = blocks(built.path)["webdataset"]
    keep = "    kept.append((record_id, sample, label_map))\n"
    kept = run(f"kept = []\n{code}{keep}")["kept"]
    records = {key: each for key, each in built.records.items() if each.split == "train"}
    assert [record_id for record_id, _, _ in kept] == [*records]
    for record_id, sample, label_map in kept:
        record = records[record_id]
        for field in ("embeddings", "slot_labels", "slot_pixels", "label_count", "slot_planes"):
            np.testing.assert_array_equal(sample[f"{field}.npy"], getattr(record, field))
            assert sample[f"{field}.npy"].dtype == getattr(record, field).dtype
        np.testing.assert_array_equal(label_map, record.label_map)


@pytest.mark.parametrize("name", ["crop_tar", "native_tar"])
def test_datasets_reads_each_record(
    name: str, datasets: ModuleType, request: pytest.FixtureRequest
) -> None:
    built: Built = request.getfixturevalue(name)
    values = run(blocks(built.path)["datasets"])
    records = [each for each in built.records.values() if each.split == "train"]
    assert_has(values, records[0])
    rows = values["dataset"]["train"]
    assert [row["json"]["image_id"] for row in rows] == [each.image_id for each in records]
    for row, record in zip(rows, records, strict=True):
        assert row["label_map.png16"] == record.label_png
        for field in ("embeddings", "slot_labels", "slot_pixels", "label_count", "slot_planes"):
            stored = getattr(record, field)
            np.testing.assert_array_equal(np.array(row[f"{field}.npy"], stored.dtype), stored)


def test_names_of_splits_may_be_any(datasets: ModuleType, tmp_path: Path) -> None:

    record = make_record("a", split="part [1]")
    layout = Layout(format="webdataset")
    write_splits(tmp_path / "out", {"part [1]": [record]}, layout)
    code = blocks(tmp_path / "out")
    assert run(code["webdataset"])["record_id"] == "a"
    assert_has(run(code["datasets"]), record)
