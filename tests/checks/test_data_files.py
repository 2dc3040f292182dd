"""A data dir against its records: right, missing, changed, extra."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from builders.mirror import Mirror
from builders.packed import FILES, IMAGES, LABELS, NAMES, context, tar_of, voc
from builders.progress import RecordedProgress

from vocprep.checks.data_files import has_download_records, verify_data_files
from vocprep.checks.report import Report
from vocprep.data_dir.receipts import Receipt, read_all_unpacked, read_receipts, write_receipt
from vocprep.data_dir.source_digests import SOURCE_DIGESTS_FILE
from vocprep.downloading.archive import unpack
from vocprep.downloading.download import download
from vocprep.downloading.members import Archive
from vocprep.errors import DataDirError, DataError
from vocprep.manifests import Unpack
from vocprep.progress import NO_PROGRESS

PICTURE = next(iter(IMAGES))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    with Mirror(FILES) as mirror:
        sources = [voc(mirror.url()), context(mirror.url())]
        download(sources, folder)
    return folder


def check(data: Path, **options: bool) -> Report:
    return verify_data_files(data, 2, NO_PROGRESS, **options)


def found(report: Report) -> list[tuple[str, str]]:
    return [(item.state, item.path) for item in report.differences]


def test_all_is_right_after_a_download(data: Path):
    report = check(data)
    assert report.ok
    assert report.matching == len(IMAGES) + len(LABELS) + len(FILES)
    assert has_download_records(data)


def test_progress_is_reported_from_one_thread(data: Path):
    progress = RecordedProgress()
    verify_data_files(data, 2, progress)
    assert progress.threads == {threading.get_ident()}
    assert progress.shown == progress.begun[0][1] > 0


def test_a_deleted_archive_is_not_missed(data: Path):
    (data / "downloads/VOCtrainval.tar").unlink()
    assert check(data).ok


def test_a_missing_file_is_missed(data: Path):
    (data / PICTURE).unlink()
    (data / "labels.txt").unlink()
    report = check(data)
    assert found(report) == [("missing", PICTURE), ("missing", "labels.txt")]
    assert check(data, partial=True).ok
    assert check(data, partial=True).allowed_missing == 2


def test_a_changed_file_of_the_same_size_is_found(data: Path):
    (data / PICTURE).write_bytes(IMAGES[PICTURE].swapcase())
    report = check(data, partial=True)
    assert found(report) == [("changed", PICTURE)]
    assert "expected 6 bytes of sha256 " in report.differences[0].detail


def test_a_changed_archive_is_found(data: Path):
    with (data / "downloads/trainval.tar.gz").open("ab") as stream:
        stream.write(b"more")
    assert found(check(data)) == [("changed", "downloads/trainval.tar.gz")]


def test_a_folder_in_place_of_a_file_is_found(data: Path):
    (data / PICTURE).unlink()
    (data / PICTURE).mkdir()
    assert found(check(data)) == [("changed", PICTURE)]


def test_an_extra_file_is_found_where_archives_unpack_to(data: Path):
    (data / "trainval/2008_999999.mat").write_bytes(b"mine")
    (data / "my-notes.txt").write_bytes(b"beside the tree: nobody's business")
    report = check(data, partial=True)
    assert found(report) == [("extra", "trainval/2008_999999.mat")]
    assert report.count("extra") == 1


@pytest.mark.parametrize("name", ["._2008_000001.mat", ".DS_Store", "Thumbs.db", "a.mat~"])
def test_files_of_systems_and_editors_are_not_extra(data: Path, name: str):
    (data / "trainval" / name).write_bytes(b"not ours")
    assert check(data).ok


def test_a_pipe_or_a_huge_file_in_place_of_a_file_is_found_at_once(data: Path):
    labels = sorted(LABELS)
    for path in (PICTURE, labels[0]):
        (data / path).unlink()
    os.mkfifo(data / PICTURE)
    with (data / labels[0]).open("wb") as stream:
        stream.truncate(1 << 40)
    details = {item.path: item.detail for item in check(data).differences}
    assert "a pipe, no regular file" in details[PICTURE]
    assert f"bytes, found {1 << 40}" in details[labels[0]]


def test_a_file_that_two_archives_bring_may_be_either(data: Path, tmp_path: Path):
    path = tmp_path / "second.tar"
    path.write_bytes(tar_of({PICTURE: b"another edition", "trainval/new.mat": b"new"}))
    archive = Archive(
        name="second.tar", path=path, sha256="0" * 64, unpack=Unpack(max_bytes=1 << 20)
    )
    unpack(archive, data)
    assert check(data).ok
    (data / PICTURE).write_bytes(IMAGES[PICTURE])
    assert check(data).ok
    (data / PICTURE).write_bytes(b"a third one")
    assert found(check(data)) == [("changed", PICTURE)]


def test_the_lock_file_has_a_say(data: Path):
    lock = data / SOURCE_DIGESTS_FILE
    lock.write_text(lock.read_text().replace('"sha256": "', '"sha256": "00'))
    report = check(data)
    assert found(report) == [("changed", "downloads/trainval.tar.gz")]
    assert SOURCE_DIGESTS_FILE in report.differences[0].detail


def test_a_folder_that_vocprep_did_not_fill_has_nothing_to_compare(tmp_path: Path):
    (tmp_path / "labels.txt").write_bytes(NAMES)
    assert not has_download_records(tmp_path)
    with pytest.raises(DataDirError, match=r"no record of a download.*--from"):
        check(tmp_path)


def test_a_damaged_record_is_named(data: Path):
    receipt = next((data / ".vocprep/receipts").iterdir())
    receipt.write_bytes(b"{")
    with pytest.raises(DataError, match=r"receipts.*delete it and run vocprep download"):
        check(data)


def test_records_are_read_back_as_written(data: Path):
    assert [tree.archive for tree in read_all_unpacked(data)] == [
        "downloads/VOCtrainval.tar",
        "downloads/trainval.tar.gz",
    ]
    receipt = Receipt.of(data, "labels.txt", {"sha256": "00"}, "somewhere")
    write_receipt(data, receipt)
    assert receipt in list(read_receipts(data))
    assert receipt.matches_disk(data)
    (data / "labels.txt").unlink()
    assert not receipt.matches_disk(data)


def test_a_report_is_plain_json(data: Path):
    (data / PICTURE).unlink()
    value = check(data).to_json()
    assert value["ok"] is False
    assert value["level"] == "files"
    assert value["differences"] == [
        {"path": PICTURE, "state": "missing", "detail": "expected a file, found none"},
    ]
