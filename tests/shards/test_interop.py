"""Shards read by the libraries that others have, in processes that cannot import vocprep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders.versions import Built

from vocprep.shards.record import Record

pytestmark = pytest.mark.slow

ARRAYS = ("embeddings", "slot_labels", "slot_pixels", "label_count", "slot_planes")
TEXTS = ("image_id", "split", "image_sha256", "label_sha256")

HIDE_VOCPREP = """
import sys
sys.modules["vocprep"] = None  # makes any import of it fail
"""
SAVE = """
import numpy as np
def save(out, row, record):
    np.savez(f"{out}/{row:03d}.npz", **record)
"""
READ_HDF5 = """
import io, pathlib
import h5py
from PIL import Image
shards, out = sys.argv[1:]
row = 0
for path in sorted(pathlib.Path(shards).glob("*.h5")):
    with h5py.File(path, "r") as file:
        offsets, pngs = file["offsets"][:], file["label_map_offsets"][:]
        for k in range(len(file["image_id"])):
            patches = slice(offsets[k], offsets[k + 1])
            record = {name: file[name][patches] for name in (
                "embeddings", "slot_labels", "slot_pixels", "label_count", "slot_planes")}
            png = file["label_map"][pngs[k]:pngs[k + 1]].tobytes()
            save(out, row, dict(
                record,
                grid=file["grid"][k],
                image_id=file["image_id"][k].decode(),
                split=file.attrs["split"],
                image_sha256=file["image_sha256"][k].decode(),
                label_sha256=file["label_sha256"][k].decode(),
                label_map=np.asarray(Image.open(io.BytesIO(png))),
            ))
            row += 1
"""
READ_TAR = """
import io, pathlib
import webdataset as wds
from PIL import Image
shards, out = sys.argv[1:]
row = 0
for path in sorted(pathlib.Path(shards).glob("*.tar")):
    for sample in wds.WebDataset(str(path), shardshuffle=False):
        assert "/" not in sample["__key__"]
    for sample in wds.WebDataset(str(path), shardshuffle=False).decode():
        info = sample["json"]
        assert info["image_id"] == sample["__key__"]
        record = {name: sample[f"{name}.npy"] for name in (
            "embeddings", "slot_labels", "slot_pixels", "label_count", "slot_planes")}
        png = np.asarray(Image.open(io.BytesIO(sample["label_map.png16"])))
        save(out, row, dict(
            record,
            grid=np.array(info["grid"]),
            label_map=png,
            **{name: info[name] for name in ("image_id", "split", "image_sha256", "label_sha256")},
        ))
        row += 1
"""


def read_elsewhere(script: str, shards: Path, out: Path) -> list[dict[str, np.ndarray]]:
    """Run a script of another program on a dataset's shards; return what it saved, in row order."""
    done = subprocess.run(
        [sys.executable, "-c", HIDE_VOCPREP + SAVE + script, str(shards), str(out)],
        capture_output=True,
        text=True,
        check=False,
        cwd=out,
    )
    assert done.returncode == 0, done.stderr
    return [dict(np.load(path)) for path in sorted(out.glob("*.npz"))]


def assert_same(found: list[dict[str, np.ndarray]], expected: dict[str, Record]) -> None:
    assert [str(record["image_id"]) for record in found] == list(expected)
    for record in found:
        own = expected[str(record["image_id"])]
        for name in ARRAYS:
            assert record[name].dtype == getattr(own, name).dtype
            np.testing.assert_array_equal(record[name], getattr(own, name))
        for name in TEXTS:
            assert str(record[name]) == getattr(own, name)
        assert tuple(record["grid"]) == own.grid
        np.testing.assert_array_equal(record["label_map"], own.label_map)


@pytest.mark.parametrize("name", ["crop_hdf5", "native_hdf5"])
def test_plain_h5py_reads_the_documented_layout(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    built: Built = request.getfixturevalue(name)
    assert_same(read_elsewhere(READ_HDF5, built.path, tmp_path), built.records)


@pytest.mark.parametrize("name", ["crop_tar", "native_tar"])
def test_stock_webdataset_reads_the_tars(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pytest.importorskip("webdataset")
    built: Built = request.getfixturevalue(name)
    assert_same(read_elsewhere(READ_TAR, built.path, tmp_path), built.records)
