"""``--to parquet``, read back by pyarrow."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.records import record_of
from builders.versions import Built, write_records
from click.testing import CliRunner
from PIL import Image

import vocprep
from vocprep.cli.main import main
from vocprep.errors import ShardError
from vocprep.exporting import parquet
from vocprep.shards.record import Record

pq = pytest.importorskip("pyarrow.parquet")

PATCHES = vocprep.ExportOptions(rows="patches")


def rows_of(folder: Path, split: str) -> list[dict[str, Any]]:
    """All rows of a split; lists of numbers stay Arrow's, so that their types can be told."""
    table = pq.read_table(folder / split)
    return [{name: table[name][row] for name in table.column_names} for row in range(len(table))]


def array(scalar: Any, *shape: int) -> np.ndarray[Any, Any]:
    """The numbers of a list of lists, in their stored type."""
    values = scalar.values
    while "list" in str(values.type):
        values = values.flatten()
    found: np.ndarray[Any, Any] = values.to_numpy().reshape(shape)
    return found


def test_a_row_per_picture_holds_the_record_as_it_is_stored(
    native_hdf5: Built, tmp_path: Path
) -> None:
    vocprep.export(native_hdf5.path, "parquet", tmp_path)
    records = list(native_hdf5.records.values())
    space = native_hdf5.dataset.label_space
    rows = [row for split in ("train", "val") for row in rows_of(tmp_path, split)]
    assert [row["record_id"].as_py() for row in rows] == [record.image_id for record in records]
    for row, record in zip(rows, records, strict=True):
        patches = math.prod(record.grid)
        again = Record(
            image_id=row["record_id"].as_py(),
            split=row["split"].as_py(),
            grid=(row["ny"].as_py(), row["nx"].as_py()),
            embeddings=array(row["embeddings"], patches, -1),
            slot_labels=array(row["slot_labels"], patches, 4),
            slot_pixels=array(row["slot_pixels"], patches, 4),
            label_count=array(row["label_count"], patches),
            slot_planes=np.frombuffer(row["slot_planes"].as_py(), np.uint8).reshape(-1, 3, 128),
            label_png=row["label_map"].as_py(),
            image_sha256=row["image_sha256"].as_py(),
            label_sha256=row["label_sha256"].as_py(),
        )
        assert again.record_sha256 == record.record_sha256
        pixels = np.asarray(Image.open(io.BytesIO(row["label_map"].as_py())))
        np.testing.assert_array_equal(pixels, record.label_map)
        image_id, _, view = record.image_id.partition("#")
        assert (row["image_id"].as_py(), row["view"].as_py()) == (image_id, view or "identity")
        areas = dict(zip(row["labels"].as_py(), row["label_pixels"].as_py(), strict=True))
        areas[space.void] = row["void_pixels"].as_py()
        values, counts = np.unique(record.label_map, return_counts=True)
        assert {key: n for key, n in areas.items() if n} == dict(zip(values, counts, strict=True))
        assert row["class_names"].as_py() == [space.names[key] for key in row["labels"].as_py()]
        falling = row["label_pixels"].as_py()
        assert falling == sorted(falling, reverse=True)


def test_a_row_per_patch_holds_its_part_of_the_record(crop_tar: Built, tmp_path: Path) -> None:
    vocprep.export(crop_tar.path, "parquet", tmp_path, PATCHES)
    rows = iter([row for split in ("train", "val") for row in rows_of(tmp_path, split)])
    names = crop_tar.dataset.label_space.names
    for record in crop_tar.records.values():
        for patch, row in zip(range(math.prod(record.grid)), rows, strict=False):
            y, x = divmod(patch, record.grid[1])
            place = ("record_id", "patch", "patch_row", "patch_column")
            assert [row[name].as_py() for name in place] == [record.image_id, patch, y, x]
            embedding = row["embedding"].values.to_numpy()
            assert embedding.dtype == np.float16
            np.testing.assert_array_equal(embedding, record.embeddings[patch])
            for name in ("slot_labels", "slot_pixels"):
                np.testing.assert_array_equal(row[name].as_py(), getattr(record, name)[patch])
            assert row["label_count"].as_py() == record.label_count[patch]
            assert row["slot_planes"].as_py() == record.slot_planes[patch].tobytes()
            tile = np.frombuffer(row["label_map"].as_py(), "<u2").reshape(32, 32)
            ys, xs = slice(32 * y, 32 * y + 32), slice(32 * x, 32 * x + 32)
            np.testing.assert_array_equal(tile, record.label_map[ys, xs])
            label = int(record.slot_labels[patch, 0])
            expected = (label, names[label]) if label >= 0 else (None, None)
            assert (row["label"].as_py(), row["class_name"].as_py()) == expected
    assert next(rows, None) is None


def test_patches_of_void_alone_have_no_class(tmp_path: Path) -> None:
    record = record_of("a", np.zeros((32, 64), dtype=np.uint16))
    write_records(tmp_path / "version", [record])
    vocprep.export(tmp_path / "version", "parquet", tmp_path / "out", PATCHES)
    rows = rows_of(tmp_path / "out", "train")
    assert [(row["label"].as_py(), row["class_name"].as_py()) for row in rows] == [(None, None)] * 2


@pytest.mark.parametrize("options", [vocprep.ExportOptions(), PATCHES], ids=["pictures", "patches"])
def test_bytes_follow_from_the_records_alone(
    options: vocprep.ExportOptions, crop_hdf5: Built, crop_tar: Built, tmp_path: Path
) -> None:
    once = vocprep.export(crop_hdf5.path, "parquet", tmp_path / "a", options)
    again = vocprep.export(crop_hdf5.path, "parquet", tmp_path / "b", options)
    other = vocprep.export(crop_tar.path, "parquet", tmp_path / "c", options)
    assert once.files == again.files == other.files
    index = json.loads((tmp_path / "a/export.json").read_text())
    assert index["versions"] == {"pyarrow": sys.modules["pyarrow"].__version__}


def test_schema_tells_the_version_and_its_label_space(crop_hdf5: Built, tmp_path: Path) -> None:
    vocprep.export(crop_hdf5.path, "parquet", tmp_path)
    told = json.loads(
        pq.read_schema(tmp_path / "val/val-00000-of-00001.parquet").metadata[b"vocprep"]
    )
    assert told["content_id"] == crop_hdf5.index.content_id
    assert told["recipe"] == crop_hdf5.index.recipe.to_json()
    assert told["label_space"] == json.loads((tmp_path / "labels.json").read_text())


def test_row_groups_and_files_end_after_so_many_patches(
    crop_hdf5: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "GROUP_PATCHES", 60)
    monkeypatch.setattr(parquet, "FILE_PATCHES", 190)
    vocprep.export(crop_hdf5.path, "parquet", tmp_path)
    files = sorted((tmp_path / "train").iterdir())
    assert [path.name for path in files] == [f"train-{n:05d}-of-00003.parquet" for n in range(3)]
    sizes = [
        [found.row_group(number).num_rows for number in range(found.num_row_groups)]
        for found in map(pq.read_metadata, files)
    ]
    assert sizes == [[2, 2], [2, 2], [2]]
    column = pq.read_metadata(files[0]).row_group(1).column(0)
    ids = sorted(each.image_id for each in crop_hdf5.records.values() if each.split == "train")
    assert column.statistics.min == ids[2]
    assert column.compression == "ZSTD"


def test_a_missing_library_is_named_before_anything_is_done(
    crop_hdf5: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    words = ["export", str(crop_hdf5.path), "--to", "parquet", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "pyarrow, which cannot be found: run pip install 'vocprep[export]'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_library_that_cannot_be_loaded_is_named(
    crop_hdf5: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "site" / "pyarrow.py"
    broken.parent.mkdir()
    broken.write_text("raise ImportError('libarrow.so: no such file')")
    monkeypatch.delitem(sys.modules, "pyarrow")
    monkeypatch.syspath_prepend(broken.parent)
    words = ["export", str(crop_hdf5.path), "--to", "parquet", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "pyarrow is installed and cannot be loaded: libarrow.so: no such file" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_shard_leaves_nothing(built_copy: Built, tmp_path: Path) -> None:
    shard = built_copy.path / built_copy.index.shards[-1].name
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ShardError, match=shard.name):
        vocprep.export(built_copy.path, "parquet", tmp_path / "out")
    left = [path.name for path in (tmp_path / "out").rglob("*") if path.name != ".lock"]
    assert left == []
