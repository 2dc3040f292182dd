"""``vocprep export``: what is chosen, where it is written, what is refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from builders.exported_runs import SMALL, small_run
from builders.processes import end_all, forked
from builders.s3 import S3
from builders.versions import Built
from click.testing import CliRunner, Result

import vocprep
from vocprep.cli.main import main
from vocprep.errors import DataError, UsageError
from vocprep.exporting.options import ExportFormat
from vocprep.exporting.output import EXPORT_FILE


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, words)])


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_command_and_library_write_and_report_the_same(crop_hdf5: Built, tmp_path: Path) -> None:
    printed = run(crop_hdf5.path, "--to", "npy", "--out", tmp_path / "a", "--json")
    assert printed.exit_code == 0, printed.output
    result = vocprep.export(str(crop_hdf5.path), "npy", tmp_path / "b")
    told = json.loads(printed.stdout)
    assert {**told, "path": None} == {**result.to_json(), "path": None}
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    words = run(crop_hdf5.path, "--to", "npy", "--out", tmp_path / "a").stdout
    assert words == f"{tmp_path / 'a'}: {len(result.files)} files, {result.bytes / 1e6:,.1f} MB\n"


def test_export_json_lists_every_file_with_its_digest(crop_hdf5: Built, tmp_path: Path) -> None:
    vocprep.export(crop_hdf5.path, "npy", tmp_path)
    index = json.loads((tmp_path / EXPORT_FILE).read_text())
    files = contents(tmp_path)
    del files[EXPORT_FILE]
    assert {file["name"]: file["sha256"] for file in index["files"]} == {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items()
    }
    assert index["source"]["content_id"] == crop_hdf5.index.content_id


def test_one_split_without_the_other_views(crop_hdf5: Built, tmp_path: Path) -> None:
    options = vocprep.ExportOptions(splits=("val",), views="plain")
    vocprep.export(crop_hdf5.path, "npy", tmp_path, options)
    records = crop_hdf5.records.values()
    expected = [
        each.image_id for each in records if each.split == "val" and "#" not in each.image_id
    ]
    assert (tmp_path / "val" / "ids.txt").read_text().split() == expected
    assert not (tmp_path / "train").exists()


def test_another_export_takes_the_place_of_an_earlier_one(crop_hdf5: Built, tmp_path: Path) -> None:
    vocprep.export(crop_hdf5.path, "npy", tmp_path)
    vocprep.export(crop_hdf5.path, "npy", tmp_path, vocprep.ExportOptions(splits=("val",)))
    assert not (tmp_path / "train").exists()
    assert (tmp_path / "val" / "embeddings.npy").is_file()


def test_files_of_others_are_never_replaced(crop_hdf5: Built, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(UsageError, match=r"thesis\.tex.*choose an empty --out"):
        vocprep.export(crop_hdf5.path, "npy", tmp_path)
    with pytest.raises(UsageError, match="a dataset version"):
        vocprep.export(crop_hdf5.path, "npy", crop_hdf5.path)
    with pytest.raises(UsageError, match="files of one's own, found a dataset version"):
        vocprep.export(crop_hdf5.path, "npy", crop_hdf5.path / "new" / "arrays")
    assert not (crop_hdf5.path / "new").exists()
    assert (tmp_path / "thesis.tex").read_text() == "all of it"


def export_and_die(version: Path, out: Path, renames: int) -> None:
    """Export the val split; the process ends when it is about to rename once more."""
    whole, left = Path.rename, [renames]

    def rename(path: Path, target: Path) -> Path:
        if left[0] == 0:
            os._exit(9)
        left[0] -= 1
        return whole(path, target)

    Path.rename = rename  # type: ignore[method-assign]
    vocprep.export(version, "npy", out, vocprep.ExportOptions(splits=("val",)))


@pytest.mark.slow
@pytest.mark.parametrize("renames", [1, 4, 5, 6, 7])
def test_an_export_that_is_killed_while_files_are_exchanged_leaves_one_whole(
    crop_hdf5: Built, tmp_path: Path, renames: int
) -> None:
    vocprep.export(crop_hdf5.path, "npy", tmp_path)
    before = contents(tmp_path)
    assert end_all([forked(export_and_die, crop_hdf5.path, tmp_path, renames)], 60) == [9]
    with pytest.raises(UsageError, match="no split 'nosplit'"):
        vocprep.export(crop_hdf5.path, "npy", tmp_path, vocprep.ExportOptions(splits=("nosplit",)))
    vocprep.export(crop_hdf5.path, "npy", tmp_path)
    assert contents(tmp_path) == before


def test_a_damaged_shard_leaves_the_earlier_export(built_copy: Built, tmp_path: Path) -> None:
    out = tmp_path / "export"
    vocprep.export(built_copy.path, "npy", out)
    before = contents(out)
    shard = built_copy.path / built_copy.index.shards[-1].name
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    result = run(built_copy.path, "--to", "npy", "--out", out)
    assert result.exit_code == 3, result.output
    assert shard.name in result.stderr
    assert contents(out) == before


def test_what_is_no_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing"):
        vocprep.export(tmp_path / "nowhere", "npy", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="--to 'xml': expected one of npy"):
        vocprep.export(tmp_path, "xml", tmp_path / "out")  # type: ignore[arg-type]


def test_a_format_that_does_not_fit_names_those_that_do(crop_hdf5: Built, tmp_path: Path) -> None:
    trained = small_run(tmp_path / "run", {**SMALL, "encoder": "none"}).path
    out = tmp_path / "out"
    for path, to, told in (
        (crop_hdf5.path, "onnx", "is a dataset version, which is exported to npy or parquet"),
        (trained, "npy", "is a run, which is exported to onnx or torch-export"),
        (tmp_path, "onnx", "expected a run or a dataset version"),
    ):
        result = run(path, "--to", to, "--out", out)
        assert result.exit_code in {2, 3}
        assert told in result.stderr
    assert not out.exists()


def test_options_of_other_formats_are_refused(crop_hdf5: Built, tmp_path: Path) -> None:
    trained = small_run(tmp_path / "run", {**SMALL, "encoder": "none"}).path
    for path, to, option, formats in (
        (crop_hdf5.path, "npy", ("--rows", "patches"), "parquet or hugging-face"),
        (crop_hdf5.path, "npy", ("--photographs", "none"), "fiftyone or coco-panoptic"),
        (crop_hdf5.path, "fiftyone", ("--rows", "patches"), "parquet or hugging-face"),
        (crop_hdf5.path, "npy", ("--prior-power", "0.5"), "onnx or torch-export"),
        (crop_hdf5.path, "npy", ("--parts", "heads"), "onnx or torch-export"),
        (trained, "onnx", ("--views", "plain"), "npy or parquet"),
        (trained, "onnx", ("--splits", "val"), "npy or parquet"),
    ):
        result = run(path, "--to", to, *option, "--out", tmp_path / "out")
        assert result.exit_code == 2, result.output
        assert f"{option[0]}: is for --to {formats}" in result.stderr
        assert f"leave it out with --to {to}" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_whose_weights_are_not_found_is_told_before_anything_is_traced(
    tmp_path: Path,
) -> None:
    trained = small_run(tmp_path / "run", {**SMALL, "encoder": "none"}).path
    result = run(trained, "--to", "onnx", "--out", tmp_path / "out", "--data-dir", tmp_path)
    assert result.exit_code == 4
    assert "expected the weights that its shards were built with" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("to", ["parquet", "hugging-face", "npy"])
def test_a_version_in_an_object_store_gives_the_same_files(
    crop_hdf5: Built, s3: S3, tmp_path: Path, to: ExportFormat
) -> None:
    s3.put_folder(crop_hdf5.path, "version")
    found = run(s3.url("version"), "--to", to, "--out", tmp_path / "a")
    assert found.exit_code == 0, found.output
    vocprep.export(crop_hdf5.path, to, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_exports_are_written_to_folders_of_this_machine_only(
    crop_hdf5: Built, tmp_path: Path
) -> None:
    result = run(crop_hdf5.path, "--to", "npy", "--out", "s3://bucket/arrays")
    assert result.exit_code == 2
    assert "--out s3://bucket/arrays: expected a path of this machine, found a URL" in result.stderr
    with pytest.raises(UsageError, match="s3://bucket/arrays: expected a path of this machine"):
        vocprep.export(crop_hdf5.path, "npy", "s3://bucket/arrays")
