from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from vocprep.data_dir.receipts import (
    Receipt,
    UnpackedArchive,
    UnpackedFile,
    read_all_unpacked,
    read_receipt,
    read_receipts,
    read_unpacked,
    records_dir,
    write_receipt,
    write_unpacked,
)
from vocprep.errors import DataError

RECEIPT = Receipt(
    path="downloads/a.tar", size=3, mtime_ns=1, digests={"sha256": "00" * 32}, mirror="http://a/"
)
ARCHIVE = UnpackedArchive(
    archive="downloads/a.tar",
    archive_sha256="00" * 32,
    files=(UnpackedFile(path="a/b.jpg", size=1, sha256="11" * 32),),
)


@pytest.mark.parametrize("left", ["", "{}", "whole"])
def test_what_a_killed_process_left_is_no_record(left: str, tmp_path: Path) -> None:
    """It is deleted when the same record is written again."""
    write_receipt(tmp_path, RECEIPT)
    write_unpacked(tmp_path, ARCHIVE)
    records = [path for path in records_dir(tmp_path).rglob("*a.tar.json*") if path.is_file()]
    assert len(records) == 2
    unfinished = [path.with_name(f".tmp-0123abcd-{path.name}") for path in records]
    for path, record in zip(unfinished, records, strict=True):
        path.write_bytes(record.read_bytes() if left == "whole" else left.encode())
    assert list(read_receipts(tmp_path)) == [RECEIPT]
    assert list(read_all_unpacked(tmp_path)) == [ARCHIVE]
    write_receipt(tmp_path, RECEIPT)
    write_unpacked(tmp_path, ARCHIVE)
    assert not [path for path in unfinished if path.exists()]


def test_only_the_unfinished_record_of_the_same_file_is_deleted(tmp_path: Path) -> None:
    """Another process may be writing that of another file."""
    write_receipt(tmp_path, RECEIPT)
    folder = records_dir(tmp_path) / "receipts"
    others = [folder / ".tmp-0123abcd-downloads%2Fb-downloads%2Fa.tar.json", folder / ".tmp-x"]
    for path in others:
        path.write_bytes(b"")
    write_receipt(tmp_path, RECEIPT)
    assert all(path.exists() for path in others)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """The record of an archive, to be damaged."""
    write_unpacked(tmp_path, ARCHIVE)
    return next((records_dir(tmp_path) / "trees").iterdir())


def assert_damaged(data_dir: Path, record: Path, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read_unpacked(data_dir, ARCHIVE.archive)
    assert str(caught.value).startswith(f"{record}: this record of vocprep's own is damaged (")
    assert len(str(caught.value)) < 600


HEAD = {"archive": "downloads/a.tar", "archive_sha256": "00", "count": 1}
FILE = {"path": "a/b.jpg", "size": 1, "sha256": "11"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "not JSON"),
        ([HEAD], "number of lines"),
        ([HEAD, FILE, FILE], "number of lines"),
        ([{**HEAD, "count": "1"}, FILE], "count '1': expected a whole number"),
        ([{**HEAD, "count": -1}, FILE], "count -1: expected 0 or more"),
        ([HEAD, {**FILE, "size": 1.5}], r"size 1\.5: expected a whole number"),
        ([HEAD, {**FILE, "path": "/etc/passwd"}], "must be a relative path"),
        ([HEAD, {**FILE, "path": "a/../../b"}], "must be a relative path"),
        ([HEAD, {**FILE, "path": "a\0b"}], "must be a relative path"),
        ([HEAD, {**FILE, "sha256": "none"}], "expected text of the form"),
        ([HEAD, "[" * 60_000], "not JSON"),
        ([HEAD, "[" * 100_000], "unpacks to more"),
        ([HEAD, '{"path": "\\ud800", "size": 1, "sha256": "11"}'], "JSON"),
        ([HEAD, '{"path": "a", "size": NaN, "sha256": "11"}'], "JSON|whole number"),
        ([HEAD, []], "expected a table"),
    ],
)
def test_records_of_archives_that_do_not_fit_are_refused(
    tmp_path: Path, record: Path, lines: list[Any], said: str
) -> None:
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    record.write_bytes(gzip.compress(text.encode()))
    assert_damaged(tmp_path, record, said)


@pytest.mark.parametrize("block", [b"\n" * (1 << 20), b" " * (1 << 20)])
def test_a_gzip_bomb_is_given_up_at_the_bound(
    tmp_path: Path, record: Path, block: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = json.dumps(HEAD).encode() + b"\n"
    record.write_bytes(gzip.compress(head + block * 20))
    monkeypatch.setattr("vocprep.data_dir.receipts._MAX_RECORD_FILES", 1000)
    assert_damaged(tmp_path, record, "unpacks to more|JSON")


def test_the_files_of_a_record_are_bounded(
    tmp_path: Path, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"{json.dumps(line)}\n" for line in [{**HEAD, "count": 9}, *[FILE] * 9])
    record.write_bytes(gzip.compress(text.encode()))
    monkeypatch.setattr("vocprep.data_dir.receipts._MAX_RECORD_FILES", 5)
    assert_damaged(tmp_path, record, "unpacks to more than the record of an archive")


def test_the_bytes_of_a_record_are_bounded(
    tmp_path: Path, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vocprep.data_dir.receipts._MAX_RECORD_BYTES", 100)
    assert_damaged(tmp_path, record, "unpacks to more than the record of an archive")


@pytest.mark.parametrize(
    "damage", [lambda _: b"", lambda data: data[:-9], lambda data: b"x" + data[1:]]
)
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, record: Path, damage: Any) -> None:
    record.write_bytes(damage(record.read_bytes()))
    assert_damaged(tmp_path, record, "damaged")


def test_a_pipe_in_the_place_of_a_record_is_not_waited_for(tmp_path: Path, record: Path) -> None:
    record.unlink()
    os.mkfifo(record)
    with pytest.raises(DataError, match="a pipe, no regular file"):
        list(read_all_unpacked(tmp_path))


def test_files_that_macos_leaves_are_no_records(tmp_path: Path, record: Path) -> None:
    record.with_name(f"._{record.name}").write_bytes(b"\0\5\x16\7")
    assert list(read_all_unpacked(tmp_path)) == [ARCHIVE]


def test_a_folder_of_records_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    records_dir(tmp_path).mkdir()
    (records_dir(tmp_path) / "receipts").symlink_to("receipts")
    with pytest.raises(DataError, match="receipts: cannot be read: Too many levels of symbolic"):
        list(read_receipts(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_record_without_permission_is_not_called_damaged(tmp_path: Path, record: Path) -> None:
    record.chmod(0)
    with pytest.raises(DataError, match="cannot be read: Permission denied; make it readable"):
        read_unpacked(tmp_path, ARCHIVE.archive)


@pytest.mark.parametrize(
    ("field", "value"),
    [("digests", {}), ("digests", {"sha256": "x"}), ("path", "../a"), ("size", "3"), ("size", -1)],
)
def test_receipts_that_do_not_fit_prove_nothing(tmp_path: Path, field: str, value: Any) -> None:
    write_receipt(tmp_path, RECEIPT)
    path = next((records_dir(tmp_path) / "receipts").iterdir())
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    assert read_receipt(tmp_path, RECEIPT.path) is None
    with pytest.raises(DataError, match=f"is damaged \\({field}"):
        list(read_receipts(tmp_path))
