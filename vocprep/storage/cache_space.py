"""The room that the cache takes: its limit, what it holds, and what goes when it is full.

How much it holds is a number in a file, changed under a file lock, so that keeping one more file
does not look at all others. They are looked at when the limit is reached, and those that were used
least recently go, until a tenth of the limit is free.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Final, NamedTuple

from vocprep.errors import UsageError
from vocprep.files.locking import try_lock
from vocprep.files.names import TEMPORARY_PREFIX
from vocprep.files.reading import not_regular
from vocprep.validation import printable

SIZE_VARIABLE: Final = "VOCPREP_CACHE_SIZE"
DEFAULT_SIZE: Final = "20%"
"""Of the disk that the cache is on."""
OBJECTS: Final = "objects"
_USED: Final = "used"
_FREED: Final = 0.1
"""Part of the limit that is made free at once."""
_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?(%|[kKMGT]i?B?|B)?")
_UNITS: Final = {"k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
_NAME: Final = re.compile(r"[0-9a-f]{64}")
now = time.time


class _Kept(NamedTuple):
    """A file of the cache; the first to go is the smallest of them."""

    used: float
    path: Path
    size: int


def limit(folder: Path) -> int:
    """Return how many bytes the cache may hold, by ``$VOCPREP_CACHE_SIZE``.

    A number of bytes, such as 50GB or 8 GiB, or a part of the disk, such as 20%; UsageError for
    anything else.
    """
    text = os.environ.get(SIZE_VARIABLE) or DEFAULT_SIZE
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[2] == "%" and float(match[1]) > 100):
        raise UsageError(
            f"{SIZE_VARIABLE} {printable(text, 60)!r}: expected a size such as 50GB, or a part of "
            "the disk such as 20%"
        )
    number, unit = float(match[1]), match[2] or "B"
    if unit == "%":
        return int(shutil.disk_usage(folder).total * number / 100)
    return int(number * (1024 if "i" in unit else 1000) ** _UNITS.get(unit[0], 0))


def make_folder(folder: Path, cache: Path) -> None:
    """Make a folder of the cache; what is new of it is the user's alone."""
    if not folder.is_dir():
        cache.parent.mkdir(parents=True, exist_ok=True)
        for path in (cache, cache / OBJECTS, folder):
            path.mkdir(mode=0o700, exist_ok=True)


def reserve(cache: Path, size: int) -> bool:
    """Make room for a file that is to be written; False where it is larger than the limit."""
    most = limit(cache)
    if size > most:
        return False
    with _used(cache) as used:
        if used.bytes + size > most:
            used.bytes = _shrink(cache, int(most * (1 - _FREED)) - size)
        used.bytes += size
    return True


def release(cache: Path, size: int) -> None:
    """Take back what was reserved for a file that was not written."""
    with _used(cache) as used:
        used.bytes = max(0, used.bytes - size)


def free(cache: Path, size: int) -> bool:
    """Remove files for want of room on the disk, whatever the limit; return whether there were."""
    with _used(cache) as used:
        before = sum(kept.size for kept in _kept(cache))
        used.bytes = _shrink(cache, before - size)
        return used.bytes < before


@contextmanager
def locked(path: Path) -> Iterator[FileIO]:
    """Open a file, which is made where there is none, when no other process has it locked.

    Unlocked before it is closed: a process that is forked meanwhile has it open too.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with FileIO(os.open(path, flags, 0o600), "r+b") as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise not_regular(mode, path)
        has_locks = try_lock(stream.fileno())
        if has_locks is False:
            fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield stream
        finally:
            if has_locks is not None:
                fcntl.flock(stream, fcntl.LOCK_UN)


class _Used:
    """How many bytes the cache holds."""

    def __init__(self, count: int) -> None:
        self.bytes = count


@contextmanager
def _used(cache: Path) -> Iterator[_Used]:
    """Yield the number of bytes that are kept, which other processes wait to read and change."""
    with locked(cache / _USED) as stream:
        text = stream.read(32)
        used = _Used(int(text) if text.isdigit() else sum(kept.size for kept in _kept(cache)))
        yield used
        stream.seek(0)
        stream.truncate(0)
        stream.write(str(used.bytes).encode())


def _shrink(cache: Path, target: int) -> int:
    """Remove the files that were used least recently; return the bytes that are left.

    A reader that has a file open keeps it. Files that are being written have another name.
    """
    files = sorted(_kept(cache))
    left = sum(kept.size for kept in files)
    for kept in files:
        if left <= target:
            break
        kept.path.unlink(missing_ok=True)
        left -= kept.size
    return left


def _kept(cache: Path) -> Iterator[_Kept]:
    """Yield the files of the cache, and remove what killed processes left."""
    for folder in _entries(cache / OBJECTS):
        if not folder.is_dir(follow_symlinks=False):
            continue
        for entry in _entries(Path(folder.path)):
            if entry.name.startswith(TEMPORARY_PREFIX):
                _remove_unfinished(Path(entry.path))
            elif _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                found = entry.stat(follow_symlinks=False)
                yield _Kept(found.st_mtime, Path(entry.path), found.st_size)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _remove_unfinished(path: Path) -> None:
    """Remove a file that was not finished, unless a process is writing it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if try_lock(descriptor) is not False:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
