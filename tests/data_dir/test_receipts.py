from __future__ import annotations

from pathlib import Path

import pytest

from vocprep.data_dir.receipts import (
    Receipt,
    UnpackedArchive,
    UnpackedFile,
    read_all_unpacked,
    read_receipts,
    records_dir,
    write_receipt,
    write_unpacked,
)

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
