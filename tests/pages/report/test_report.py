"""``vocprep report``: which paths make a page, where it is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.s3 import S3
from builders.versions import Built
from click.testing import CliRunner, Result

import vocprep
from vocprep.cli.main import main
from vocprep.errors import DataError, UsageError

pytestmark = pytest.mark.slow


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, words)])


def test_the_command_prints_the_file_and_its_size(crop_hdf5: Built, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    result = run(crop_hdf5.path, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"{out}, " in result.stdout
    assert "MB" in result.stdout
    assert out.read_text().startswith("<!DOCTYPE html>")


def test_json_of_the_command_and_result_of_the_library_agree(
    crop_hdf5: Built, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    printed = json.loads(run(crop_hdf5.path, "--out", out, "--json").stdout)
    before = out.read_bytes()
    result = vocprep.report(str(crop_hdf5.path), out)
    assert result.to_json() == printed
    assert printed["path"] == str(out)
    assert printed["bytes"] == out.stat().st_size
    assert printed["kind"] == "version"
    assert {"Overview", "Classes", "Void", "Recipe", "Identities"} <= set(printed["sections"])
    assert out.read_bytes() == before, "the same input gives the same file"


def test_a_report_does_not_depend_on_where_the_version_is(crop_hdf5: Built, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(crop_hdf5.path)
    for number, path in enumerate((crop_hdf5.path, tmp_path / "elsewhere")):
        vocprep.report(path, tmp_path / f"{number}.html")
    assert (tmp_path / "0.html").read_bytes() == (tmp_path / "1.html").read_bytes()


def test_a_version_in_an_object_store_has_the_same_report(
    crop_hdf5: Built, s3: S3, tmp_path: Path
) -> None:
    s3.put_folder(crop_hdf5.path, "voc")
    for name, place in (("url", s3.url("voc")), ("folder", crop_hdf5.path)):
        vocprep.report(place, tmp_path / f"{name}.html")
    assert (tmp_path / "url.html").read_bytes() == (tmp_path / "folder.html").read_bytes()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("dataset.json", "expected the name of an HTML file, such as dataset.html"),
        ("folder.html", "expected a file, found a folder"),
        ("file/page.html", "expected a folder, found the file"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_at_once(
    out: str, words: str, crop_hdf5: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vocprep.shards.reader.ShardDataset.open", None)  # before any work
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=words):
        vocprep.report(crop_hdf5.path, tmp_path / out)


def test_no_page_is_put_among_the_files_of_a_version(crop_hdf5: Built) -> None:
    with pytest.raises(UsageError, match="found a dataset version; choose another"):
        vocprep.report(crop_hdf5.path, crop_hdf5.path / "page.html")
    assert not (crop_hdf5.path / "page.html").exists()


def test_paths_that_make_no_page_are_refused(crop_hdf5: Built, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    with pytest.raises(DataError, match="expected a run or a dataset version, found nothing"):
        vocprep.report(tmp_path / "none", out)
    with pytest.raises(UsageError, match="expected one or two dataset versions, found 3"):
        vocprep.report([crop_hdf5.path] * 3, out)
    with pytest.raises(UsageError, match="expected one or two dataset versions, found 0"):
        vocprep.report([], out)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    with pytest.raises(UsageError, match=r"is a run, whose report needs the dataset version"):
        vocprep.report(tmp_path / "run", out)
    assert not out.exists()


def test_an_audit_goes_with_one_version_alone(crop_hdf5: Built, tmp_path: Path) -> None:
    paths = [crop_hdf5.path, crop_hdf5.path]
    options = vocprep.ReportOptions(audit=tmp_path / "audit.json")
    with pytest.raises(UsageError, match="found one of two versions; leave it out"):
        vocprep.report(paths, tmp_path / "page.html", options)


def test_a_failed_report_leaves_the_file_that_was_there(crop_hdf5: Built, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    out.write_text("before")
    result = run(crop_hdf5.path, "--data-dir", tmp_path / "none", "--out", out)
    assert result.exit_code == 2
    assert "found no such folder; give the data dir of the build" in result.stderr
    assert out.read_text() == "before"
