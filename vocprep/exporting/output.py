"""The output folder of an export: all files of it appear together, or what was there stays.

``export.json`` gets its name last. It lists every other file with its digest, so that an export can
be checked, and tells which files the next export into the same folder may replace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from vocprep.errors import DataError, UsageError
from vocprep.files.locking import LOCK
from vocprep.files.names import TEMPORARY_PREFIX, found_at, is_clutter
from vocprep.files.reading import open_regular
from vocprep.files.replacing import Replacement, empty_staging, locked_output
from vocprep.files.writing import disk_advice, refuse_in_version, write_json
from vocprep.shards.samples import Count, Entry, Sha256
from vocprep.storage.reading import read_json_at

EXPORT_FILE = "export.json"
_STAGING = f"{TEMPORARY_PREFIX}export"


class ExportedFile(Entry):
    """A file of an export, by its path below the output folder."""

    name: str = Field(min_length=1, max_length=4096)
    bytes: Count
    sha256: Sha256


class ExportIndex(Entry):
    """The content of export.json: the same for the same input, so it has no times in it."""

    format: Literal["vocprep-export"] = "vocprep-export"
    format_version: Literal[1] = 1
    to: str
    """Name of the format."""
    source: Mapping[str, Any]
    """What was exported: the identities of the version, or those of the run."""
    versions: Mapping[str, str] = {}
    """Versions of the libraries that decide the bytes, beside the format itself."""
    files: tuple[ExportedFile, ...]
    """All files but this one, by name."""

    @property
    def names(self) -> frozenset[str]:
        """The names directly below the output folder."""
        return frozenset(file.name.partition("/")[0] for file in self.files)


@contextmanager
def export_folder(
    out: Path,
    to: str,
    source: Mapping[str, Any],
    versions: Mapping[str, str],
    note: Callable[[str], None],
) -> Iterator[Path]:
    """Yield an empty folder to write an export in; at the end its files replace those in ``out``.

    Raises UsageError where ``out`` holds anything but an earlier export or lies in a dataset
    version, DataError where files cannot be written.
    """
    refuse_in_version(out)
    staged = out / _STAGING
    exchange = Replacement(
        folder=out, staged=staged, marker=EXPORT_FILE, is_own=lambda name: name in _own(out, staged)
    )
    try:
        with locked_output(out, note):
            exchange.restore()
            _refuse_foreign_files(out)
            with empty_staging(staged) as folder:
                yield folder
                files = tuple(_described(folder))
                index = ExportIndex(to=to, source=source, versions=versions, files=files)
                write_json(folder / EXPORT_FILE, index.model_dump(mode="json"))
                exchange.commit(index.names | {EXPORT_FILE})
    except OSError as error:
        raise DataError(
            f"{out}: an export cannot be written there: {error.strerror or error}; "
            f"{disk_advice(error)}, or choose another --out, then run the same command again"
        ) from error


def _described(folder: Path) -> Iterator[ExportedFile]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open_regular(path) as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                size = stream.tell()
            yield ExportedFile(name=path.relative_to(folder).as_posix(), bytes=size, sha256=digest)


def _own(out: Path, staged: Path) -> frozenset[str]:
    """Return the names of the export in the folder and of the one that waits beside it."""
    names = {EXPORT_FILE}
    for folder in (out, staged):
        if (folder / EXPORT_FILE).is_file():
            names |= read_export(folder).names
    return frozenset(names)


def read_export(folder: Path) -> ExportIndex:
    """Read the export.json of a folder; DataError where it is none."""
    path = folder / EXPORT_FILE
    try:
        return ExportIndex.model_validate(read_json_at(path))
    except ValueError as error:
        raise DataError(
            f"{path}: expected what vocprep export writes, found something else; choose another "
            "--out, or delete the folder"
        ) from error


def _refuse_foreign_files(out: Path) -> None:
    own = _own(out, out / _STAGING)
    for path in sorted(out.iterdir()):
        is_passed_over = path.name.startswith(TEMPORARY_PREFIX) or is_clutter(path.name)
        if not is_passed_over and path.name not in own and path.name != LOCK:
            raise UsageError(
                f"{out}: expected an empty folder or an earlier export, found {found_at(out)}, "
                f"with {path.name!r}; choose an empty --out"
            )
