"""Compare the files of a data dir with the records of the downloads that filled it.

This is ``verify --level files`` of a data dir; ``vocprep.checks.data_content`` decodes its images
and label maps.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial as bind
from pathlib import Path

from vocprep.checks.report import Difference, Report, changed
from vocprep.data_dir.digests import hash_file
from vocprep.data_dir.receipts import Receipt, UnpackedArchive, read_all_unpacked, read_receipts
from vocprep.data_dir.source_digests import read_source_digests
from vocprep.errors import DataDirError
from vocprep.files.names import is_clutter
from vocprep.files.reading import open_regular
from vocprep.parallel import map_ordered
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.validation import explain


@dataclass(frozen=True, kw_only=True)
class _ExpectedFile:
    """A file with every content that an archive or a download gave it."""

    path: str
    versions: tuple[tuple[int, str], ...]
    """Sizes and sha256: several archives may hold a file of the same path."""
    recorded: str | None = None
    """The sha256 in sources.lock.json."""


def has_download_records(data_dir: Path) -> bool:
    """Return whether vocprep filled a data dir, wholly or partly."""
    return any(True for _ in read_receipts(data_dir)) or any(
        True for _ in read_all_unpacked(data_dir)
    )


def verify_data_files(
    data_dir: Path, workers: int, progress: Progress = NO_PROGRESS, *, partial: bool = False
) -> Report:
    """Hash every recorded file in ``workers`` threads and look for files that no archive holds.

    An archive that was deleted after unpacking is not missing; with ``partial`` no file is. Raises
    DataDirError when vocprep recorded nothing here, DataError when its records are damaged.
    """
    archives, receipts = list(read_all_unpacked(data_dir)), list(read_receipts(data_dir))
    if not archives and not receipts:
        raise DataDirError(
            f"{data_dir}: holds no record of a download, so there is nothing to compare with; run "
            "vocprep download with --from FOLDER on the archives that you have, or check the "
            "images and label maps themselves with --level content"
        )
    expected = _expected_files(data_dir, archives, receipts)
    found = list(_compare(data_dir, expected, workers, progress))
    reported = [item for item in found if not (partial and item.state == "missing")]
    extra = _extra(data_dir, archives, {item.path for item in expected})
    return Report.of(
        "files",
        matching=len(expected) - len(found),
        differences=[*reported, *extra],
        allowed_missing=len(found) - len(reported),
    )


def _expected_files(
    data_dir: Path, archives: Sequence[UnpackedArchive], receipts: Sequence[Receipt]
) -> list[_ExpectedFile]:
    """Return the files that must be there, in path order."""
    versions: dict[str, list[tuple[int, str]]] = {}
    for archive in archives:
        for file in archive.files:
            versions.setdefault(file.path, []).append((file.size, file.sha256))
    unpacked, recorded = {archive.archive for archive in archives}, read_source_digests(data_dir)
    for receipt in receipts:
        if receipt.path in unpacked and not (data_dir / receipt.path).exists():
            continue
        versions.setdefault(receipt.path, []).append((receipt.size, receipt.digests["sha256"]))
    return [
        _ExpectedFile(path=path, versions=tuple(known), recorded=recorded.get(path))
        for path, known in sorted(versions.items())
    ]


def _compare(
    data_dir: Path, expected: Sequence[_ExpectedFile], workers: int, progress: Progress
) -> Iterator[Difference]:
    """Yield how files differ from their records; progress is reported from this thread only."""
    progress.begin("files", sum(item.versions[0][0] for item in expected), 0)
    try:
        differences = map_ordered(bind(_check_file, data_dir), expected, workers)
        for item, difference in zip(expected, differences, strict=True):
            progress.advance(item.versions[0][0])
            if difference is not None:
                yield difference
    finally:
        progress.end()


def _check_file(data_dir: Path, item: _ExpectedFile) -> Difference | None:
    """Compare one file with its record."""
    sizes = {size for size, _ in item.versions}
    try:
        with open_regular(data_dir / item.path) as stream:
            size = os.fstat(stream.fileno()).st_size
        if size not in sizes:
            expected = " or ".join(str(each) for each in sorted(sizes))
            return changed(item.path, f"expected {expected} bytes, found {size}")
        found = hash_file(data_dir / item.path)
    except FileNotFoundError:
        return Difference(path=item.path, state="missing", detail="expected a file, found none")
    except OSError as error:
        return changed(item.path, f"expected a file, found what cannot be read: {explain(error)}")
    if (found.size, found.sha256) not in item.versions:
        size, sha256 = item.versions[0]
        detail = f"expected {size} bytes of sha256 {sha256}, found {found.size} of {found.sha256}"
        return changed(item.path, detail)
    if item.recorded not in (None, found.sha256):
        detail = f"expected sha256 {item.recorded} (sources.lock.json), found {found.sha256}"
        return changed(item.path, detail)
    return None


def _extra(
    data_dir: Path, archives: Iterable[UnpackedArchive], known: set[str]
) -> Iterator[Difference]:
    """Yield the files that lie among unpacked ones and are from no archive."""
    folders = {file.path.rpartition("/")[0] for archive in archives for file in archive.files} - {
        ""
    }
    for folder in sorted(folders):
        try:
            entries = list(os.scandir(data_dir / folder))
        except OSError:
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if path not in known and entry.is_file() and not is_clutter(entry.name):
                detail = "expected no file of this name, found one that is in no archive"
                yield Difference(path=path, state="extra", detail=detail)
