"""What vocprep remembers about a data dir: tree manifests and receipts, under ``.vocprep/``.

``trees/ARCHIVE.jsonl.gz`` lists the files that an archive unpacked to; it is written last, so its
presence says that the unpacking came to its end. ``receipts/FILE.json`` says which digests a
downloaded file had and what its size and time of change were when they were seen.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from vocprep.errors import DataError
from vocprep.files import write_atomic, write_json


@dataclass(frozen=True, kw_only=True)
class UnpackedFile:
    """One unpacked file."""

    path: str
    """Below the data dir, with ``/``."""
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class UnpackedArchive:
    """What one archive unpacked to."""

    archive: str
    """The archive's path below the data dir."""
    archive_sha256: str
    files: tuple[UnpackedFile, ...]


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """A file below the data dir whose bytes were hashed and found right."""

    path: str
    size: int
    mtime_ns: int
    digests: dict[str, str]
    mirror: str
    """Where it came from: a URL, or a path for ``--from``."""
    tensors_sha256: str | None = None
    """The tensor digest of weights, where it was checked."""

    @classmethod
    def of(cls, data_dir: Path, path: str, digests: dict[str, str], mirror: str) -> Self:
        """Describe a file as it lies on disk now."""
        facts = (data_dir / path).stat()
        return cls(
            path=path,
            size=facts.st_size,
            mtime_ns=facts.st_mtime_ns,
            digests=dict(digests),
            mirror=mirror,
        )

    def matches_disk(self, data_dir: Path) -> bool:
        """Tell whether the file is there with the size and time of change it had."""
        try:
            facts = (data_dir / self.path).stat()
        except OSError:
            return False
        return (facts.st_size, facts.st_mtime_ns) == (self.size, self.mtime_ns)


def records_dir(data_dir: Path) -> Path:
    """Return the folder of everything that vocprep remembers about a data dir."""
    return data_dir / ".vocprep"


def write_unpacked(data_dir: Path, tree: UnpackedArchive) -> None:
    """Record what an archive unpacked to: a head line, then a line a file, in path order."""
    head = {
        "archive": tree.archive,
        "archive_sha256": tree.archive_sha256,
        "count": len(tree.files),
    }
    lines = [json.dumps(head), *(json.dumps(asdict(file)) for file in tree.files)]
    text = "".join(f"{line}\n" for line in lines)
    write_atomic(_unpacked_path(data_dir, tree.archive), gzip.compress(text.encode(), 6, mtime=0))


def read_unpacked(data_dir: Path, archive: str) -> UnpackedArchive | None:
    """Return what an archive unpacked to, None when it was not unpacked to the end.

    Raises DataError when the tree manifest is damaged.
    """
    path = _unpacked_path(data_dir, archive)
    return _read_unpacked(path) if path.is_file() else None


def read_all_unpacked(data_dir: Path) -> Iterator[UnpackedArchive]:
    """Yield every tree manifest of a data dir, in the order of their names."""
    for path in sorted((records_dir(data_dir) / "trees").glob("*.jsonl.gz")):
        yield _read_unpacked(path)


def write_receipt(data_dir: Path, receipt: Receipt) -> None:
    """Record that a file is right."""
    write_json(_receipt_path(data_dir, receipt.path), asdict(receipt))


def read_receipt(data_dir: Path, path: str) -> Receipt | None:
    """Return what was recorded of a file; None when nothing readable was."""
    try:
        return Receipt(**json.loads(_receipt_path(data_dir, path).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def read_receipts(data_dir: Path) -> Iterator[Receipt]:
    """Yield the receipts of a data dir, in the order of their names."""
    for path in sorted((records_dir(data_dir) / "receipts").glob("*.json")):
        try:
            yield Receipt(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise _damaged(path, error) from error


def is_unpacked(data_dir: Path, tree: UnpackedArchive) -> bool:
    """Tell whether every file of a tree is there with its size. Reads no bytes."""
    try:
        return all((data_dir / file.path).stat().st_size == file.size for file in tree.files)
    except OSError:
        return False


def _read_unpacked(path: Path) -> UnpackedArchive:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            head: dict[str, Any] = json.loads(next(stream))
            files = tuple(UnpackedFile(**json.loads(line)) for line in stream)
        if len(files) != head["count"]:
            raise ValueError(f"{len(files)} of {head['count']} lines")
        return UnpackedArchive(
            archive=head["archive"], archive_sha256=head["archive_sha256"], files=files
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: this record of vocprep's own is damaged ({error}); delete it and run "
        "vocprep download again"
    )


def _unpacked_path(data_dir: Path, archive: str) -> Path:
    return records_dir(data_dir) / "trees" / f"{quote(archive, safe='')}.jsonl.gz"


def _receipt_path(data_dir: Path, path: str) -> Path:
    return records_dir(data_dir) / "receipts" / f"{quote(path, safe='')}.json"
