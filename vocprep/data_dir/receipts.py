"""What vocprep records about a data dir, under ``.vocprep/``: receipts and unpacked archives.

``trees/ARCHIVE.jsonl.gz`` lists the files that an archive unpacked to; it is written last, so its
presence shows that the unpacking was completed. ``receipts/FILE.json`` holds the digests that a
downloaded file had, with the size and time of change that it had then.
"""

from __future__ import annotations

import errno
import glob
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import quote

from pydantic import AfterValidator, TypeAdapter, model_validator

from vocprep.errors import DataError
from vocprep.files.names import TEMPORARY_PREFIX, names_in
from vocprep.files.reading import open_regular, parse_json, read_json
from vocprep.files.writing import write_atomic, write_json
from vocprep.manifest_paths import relative_path
from vocprep.manifests import Hex
from vocprep.validation import NotNegative, checked, explain, from_json, to_json

_MAX_RECORD_BYTES = 256 << 20
"""Of one record, unpacked: two million files of an archive."""
_MAX_RECORD_LINE = 64 << 10
_MAX_RECORD_FILES = 2_000_000
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
"""System errors after which a record may be sound."""
RecordedPath = Annotated[str, AfterValidator(relative_path)]


@checked
class UnpackedFile:
    """One unpacked file."""

    path: RecordedPath
    """Below the data dir, with ``/``."""
    size: NotNegative
    sha256: Hex


@checked
class UnpackedArchive:
    """What one archive unpacked to."""

    archive: RecordedPath
    """The archive's path below the data dir."""
    archive_sha256: Hex
    files: tuple[UnpackedFile, ...]


@checked
class Receipt:
    """The record of a file below the data dir whose digests agreed."""

    path: RecordedPath
    size: NotNegative
    mtime_ns: int
    digests: dict[str, Hex]
    mirror: str
    """Where it came from: a URL, or a path for ``--from``."""
    tensors_sha256: str | None = None
    """The tensor digest of weights, where it was checked."""

    @model_validator(mode="after")
    def _has_a_sha256(self) -> Self:
        if "sha256" not in self.digests:
            raise ValueError("digests: expected a sha256 among them")
        return self

    @classmethod
    def of(cls, data_dir: Path, path: str, digests: dict[str, str], mirror: str) -> Self:
        """Return the receipt of a file as it is on disk now."""
        facts = (data_dir / path).stat()
        return cls(
            path=path,
            size=facts.st_size,
            mtime_ns=facts.st_mtime_ns,
            digests=dict(digests),
            mirror=mirror,
        )

    def matches_disk(self, data_dir: Path) -> bool:
        """Return whether the file is there with the size and time of change that it had."""
        try:
            facts = (data_dir / self.path).stat()
        except OSError:
            return False
        return (facts.st_size, facts.st_mtime_ns) == (self.size, self.mtime_ns)


def records_dir(data_dir: Path) -> Path:
    """Return the folder of everything that vocprep records about a data dir."""
    return data_dir / ".vocprep"


def write_unpacked(data_dir: Path, unpacked: UnpackedArchive) -> None:
    """Record what an archive unpacked to: a head line, then a line per file, in path order."""
    head = {
        "archive": unpacked.archive,
        "archive_sha256": unpacked.archive_sha256,
        "count": len(unpacked.files),
    }
    lines = [head, *to_json(unpacked)["files"]]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    path = _unpacked_path(data_dir, unpacked.archive)
    _remove_unfinished(path)
    write_atomic(path, gzip.compress(text.encode(), 6, mtime=0))


def read_unpacked(data_dir: Path, archive: str) -> UnpackedArchive | None:
    """Return what an archive unpacked to, None when the unpacking was not completed.

    Raises DataError when the record is damaged.
    """
    path = _unpacked_path(data_dir, archive)
    return _read_unpacked(path) if path.is_file() else None


def read_all_unpacked(data_dir: Path) -> Iterator[UnpackedArchive]:
    """Yield what each archive of a data dir unpacked to, in the order of their names."""
    for path in _records(data_dir, "trees", ".jsonl.gz"):
        yield _read_unpacked(path)


def write_receipt(data_dir: Path, receipt: Receipt) -> None:
    """Record a file whose digests agreed."""
    path = _receipt_path(data_dir, receipt.path)
    _remove_unfinished(path)
    write_json(path, to_json(receipt))


def read_receipt(data_dir: Path, path: str) -> Receipt | None:
    """Return the receipt of a file, None when there is none that can be read."""
    try:
        return from_json(Receipt, read_json(_receipt_path(data_dir, path)))
    except (OSError, ValueError):
        return None


def read_receipts(data_dir: Path) -> Iterator[Receipt]:
    """Yield the receipts of a data dir, in the order of their names."""
    for path in _records(data_dir, "receipts", ".json"):
        try:
            yield from_json(Receipt, read_json(path))
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error


def is_unpacked(data_dir: Path, unpacked: UnpackedArchive) -> bool:
    """Return whether every file of an archive is there with its size. Reads no bytes."""
    try:
        return all((data_dir / file.path).stat().st_size == file.size for file in unpacked.files)
    except OSError:
        return False


@checked
class _Head:
    """The first line of the record of an archive."""

    archive: RecordedPath
    archive_sha256: Hex
    count: NotNegative


_FILE_LINE = TypeAdapter(UnpackedFile)


def _read_unpacked(path: Path) -> UnpackedArchive:
    try:
        with open_regular(path) as packed, gzip.open(packed) as stream:
            lines = _bounded_lines(stream)
            head = from_json(_Head, parse_json(next(lines, b"")))
            files = tuple(_FILE_LINE.validate_json(line, strict=True) for line in lines)
        if len(files) != head.count:
            raise ValueError("its number of lines is not the one in its head")
        return UnpackedArchive(
            archive=head.archive, archive_sha256=head.archive_sha256, files=files
        )
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise _damaged(path, error) from error


def _bounded_lines(stream: gzip.GzipFile) -> Iterator[bytes]:
    """Yield the lines of a record; ValueError where it unpacks to more than any record has."""
    size = count = 0
    while line := stream.readline(_MAX_RECORD_LINE + 1):
        size, count = size + len(line), count + 1
        if len(line) > _MAX_RECORD_LINE or size > _MAX_RECORD_BYTES or count > _MAX_RECORD_FILES:
            raise ValueError("it unpacks to more than the record of an archive")
        yield line


def _damaged(path: Path, error: Exception) -> DataError:
    """Return the error for a record that cannot be used, or not be read."""
    if isinstance(error, OSError) and error.errno in _UNREADABLE:
        return DataError(
            f"{path}: this record of vocprep's own cannot be read: {explain(error)}; make it "
            "readable and run the same command again"
        )
    return DataError(
        f"{path}: this record of vocprep's own is damaged ({explain(error)}); delete it and run "
        "vocprep download again"
    )


def _records(data_dir: Path, kind: str, suffix: str) -> list[Path]:
    """Return the records of one kind, without those that are being written or never were whole."""
    folder = records_dir(data_dir) / kind
    try:
        names = names_in(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {explain(error)}") from error
    return [
        folder / name
        for name in sorted(names)
        if name.endswith(suffix) and not name.startswith(TEMPORARY_PREFIX)
    ]


def _remove_unfinished(record: Path) -> None:
    """Delete what a killed process left of a record, whose file lock the caller holds."""
    name = glob.escape(record.name)
    for path in record.parent.glob(f"{TEMPORARY_PREFIX}{'?' * 8}-{name}"):
        path.unlink(missing_ok=True)


def _unpacked_path(data_dir: Path, archive: str) -> Path:
    return records_dir(data_dir) / "trees" / f"{quote(archive, safe='')}.jsonl.gz"


def _receipt_path(data_dir: Path, path: str) -> Path:
    return records_dir(data_dir) / "receipts" / f"{quote(path, safe='')}.json"
