"""Compare a data dir with what was recorded when it was filled: archives, files, unpacked trees.

This is ``--level files``; ``vocprep.checks.data_content`` looks into the pictures and label maps.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial as bind
from pathlib import Path

from vocprep.checks.report import Difference, Report
from vocprep.data_dir.digests import hash_file
from vocprep.data_dir.receipts import Receipt, UnpackedArchive, read_all_unpacked, read_receipts
from vocprep.data_dir.source_digests import read_source_digests
from vocprep.errors import DataDirError
from vocprep.parallel import map_ordered
from vocprep.progress import Progress


@dataclass(frozen=True, kw_only=True)
class _Recorded:
    """A file with every version of it that an archive or a download brought."""

    path: str
    versions: tuple[tuple[int, str], ...]
    """Sizes and sha256: archives that fill the same folders may bring the same file."""
    locked: str | None = None
    """The sha256 that sources.lock.json demands."""


def has_records(data_dir: Path) -> bool:
    """Tell whether vocprep filled a data dir, wholly or partly."""
    return any(True for _ in read_receipts(data_dir)) or any(
        True for _ in read_all_unpacked(data_dir)
    )


def verify_files(
    data_dir: Path, workers: int, progress: Progress, *, partial: bool = False
) -> Report:
    """Hash every recorded file and look for files that no archive brought.

    An archive that was deleted after unpacking is not missed; with ``partial`` no file is. Raises
    DataDirError when vocprep recorded nothing here, DataError when its records are damaged.
    """
    trees, receipts = list(read_all_unpacked(data_dir)), list(read_receipts(data_dir))
    if not trees and not receipts:
        raise DataDirError(
            f"{data_dir}: holds no record of a download, so there is nothing to compare with; run "
            "vocprep download with --from FOLDER on the archives that you have, or look at the "
            "pictures and label maps themselves with --level content"
        )
    recorded = _recorded(data_dir, trees, receipts)
    progress.begin("files", sum(item.versions[0][0] for item in recorded), 0)
    try:
        found = list(_compare(data_dir, recorded, workers, progress))
    finally:
        progress.end()
    pardoned = sum(item.state == "missing" for item in found) if partial else 0
    kept = [item for item in found if not (partial and item.state == "missing")]
    extra = list(_extra(data_dir, trees, {item.path for item in recorded}))
    differences = sorted([*kept, *extra], key=lambda item: item.path)
    right = len(recorded) - len(found)
    return Report(level="files", right=right, differences=tuple(differences), pardoned=pardoned)


def _recorded(
    data_dir: Path, trees: Sequence[UnpackedArchive], receipts: Sequence[Receipt]
) -> list[_Recorded]:
    """Return what must be there, in path order."""
    versions: dict[str, list[tuple[int, str]]] = {}
    for tree in trees:
        for file in tree.files:
            versions.setdefault(file.path, []).append((file.size, file.sha256))
    unpacked, lock = {tree.archive for tree in trees}, read_source_digests(data_dir)
    for receipt in receipts:
        if receipt.path in unpacked and not (data_dir / receipt.path).exists():
            continue
        versions.setdefault(receipt.path, []).append((receipt.size, receipt.digests["sha256"]))
    return [
        _Recorded(path=path, versions=tuple(known), locked=lock.get(path))
        for path, known in sorted(versions.items())
    ]


def _compare(
    data_dir: Path, recorded: Sequence[_Recorded], workers: int, progress: Progress
) -> Iterator[Difference]:
    """Yield how files differ from their records; progress is reported from this thread only."""
    differences = map_ordered(bind(_check, data_dir), recorded, workers)
    for item, difference in zip(recorded, differences, strict=True):
        progress.advance(item.versions[0][0])
        if difference is not None:
            yield difference


def _check(data_dir: Path, item: _Recorded) -> Difference | None:
    """Compare one file with its record."""
    try:
        found = hash_file(data_dir / item.path)
    except FileNotFoundError:
        return Difference(path=item.path, state="missing", detail="expected a file, found none")
    except OSError as error:
        detail = f"expected a file, found what cannot be read: {error.strerror}"
        return Difference(path=item.path, state="changed", detail=detail)
    if (found.size, found.sha256) not in item.versions:
        size, sha256 = item.versions[0]
        detail = f"expected {size} bytes of sha256 {sha256}, found {found.size} of {found.sha256}"
        return Difference(path=item.path, state="changed", detail=detail)
    if item.locked not in (None, found.sha256):
        detail = f"expected sha256 {item.locked} (sources.lock.json), found {found.sha256}"
        return Difference(path=item.path, state="changed", detail=detail)
    return None


def _extra(
    data_dir: Path, trees: Iterable[UnpackedArchive], known: set[str]
) -> Iterable[Difference]:
    """Yield the files that lie among unpacked ones and came from no archive."""
    folders = {file.path.rpartition("/")[0] for tree in trees for file in tree.files} - {""}
    for folder in sorted(folders):
        try:
            entries = list(os.scandir(data_dir / folder))
        except OSError:
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if path not in known and entry.is_file():
                detail = "expected nothing of this name, found a file that no archive brought"
                yield Difference(path=path, state="extra", detail=detail)
