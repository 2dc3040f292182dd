"""The cache of what is read from object stores: whole files, named by the sha256 of their bytes.

A file is hashed while it streams in, and gets its name when all of it is there and has the digest.
Several processes may fill one cache: each file is fetched by one of them, under a file lock. Where
nothing can be kept, files are read from memory, with one note.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Final

from vocprep.errors import UsageError
from vocprep.files.names import TEMPORARY_PREFIX
from vocprep.files.writing import disk_advice
from vocprep.storage import cache_space
from vocprep.storage.cache_space import OBJECTS, SIZE_VARIABLE
from vocprep.storage.places import url_scheme
from vocprep.storage.store import StorePath
from vocprep.validation import explain

CACHE_VARIABLE: Final = "VOCPREP_CACHE"
_SECONDS_BETWEEN_STAMPS: Final = 600
"""Of a file's time of use: a file with other times is digested again."""
_proved: dict[str, tuple[int, ...]] = {}
"""By digest, of files that this process has hashed when it wrote them: by what they are known."""
_damaged: set[Path] = set()
"""Damaged files that this process could not remove."""
_noted: set[tuple[Path, int | None]] = set()
"""Cache folders, and numbers of the errors in them, that a note has told of."""
_log = logging.getLogger(__name__)


class DigestMismatchError(OSError):
    """An object whose bytes are not those that were expected."""

    def __init__(self, size: int, sha256: str) -> None:
        super().__init__(f"{size:,} bytes of sha256 {sha256}")
        self.size, self.sha256 = size, sha256

    def __reduce__(self) -> tuple[type[DigestMismatchError], tuple[int, str]]:
        return DigestMismatchError, (self.size, self.sha256)


def cache_folder() -> Path:
    """Return ``$VOCPREP_CACHE``, else vocprep's folder in the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen and url_scheme(chosen) is not None:
        raise UsageError(f"{CACHE_VARIABLE}: expected a folder of this machine, found a URL")
    if chosen:
        return Path(chosen)
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:  # a user without a home folder
        raise UsageError(
            f"no home folder to cache files in; name one by ${CACHE_VARIABLE}"
        ) from error
    return base / "vocprep"


def cached_path(sha256: str) -> Path:
    """Return where the file with a digest is kept."""
    return cache_folder() / OBJECTS / sha256[:2] / sha256


def open_cached(path: StorePath, sha256: str, size: int) -> BufferedReader:
    """Open the file with a digest, fetched from a store unless the cache holds it.

    What the cache holds already is not digested again: the caller does that. Raises
    DigestMismatchError when the object has other bytes, OSError when it cannot be fetched.
    """
    final = cached_path(sha256)
    if final in _damaged:
        return _open_unnamed(path, sha256, size)
    stream = _open_kept(final)
    if stream is not None:
        return stream
    for may_free in (True, False):
        try:
            fetch(path, sha256, size)
        except CannotKeepError as error:
            if not (may_free and error.is_full and cache_space.free(cache_folder(), 2 * size)):
                _note(error)
                break
        else:
            stream = _open_kept(final)
            break
    return stream or _open_unnamed(path, sha256, size)


def is_cached(sha256: str) -> bool:
    """Return whether the file with a digest is kept, damaged perhaps."""
    return os.path.exists(cached_path(sha256))  # noqa: PTH110  # False where it cannot be told


def is_proved(descriptor: int, sha256: str) -> bool:
    """Return whether an open file is one that this process has hashed when it fetched it."""
    return _proved.get(sha256) == _known_by(descriptor)


def discard(sha256: str) -> None:
    """Remove the file with a digest, which was found damaged; it is not read again."""
    path = cached_path(sha256)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # another user's, or of a file system that is not written to
        _damaged.add(path)
        reason = f"a damaged file in it cannot be removed: {explain(error)}"
        _note(CannotKeepError(reason, error.errno))


def fetch(path: StorePath, sha256: str, size: int) -> None:
    """Fetch an object into the cache, unless it is there or another process fetches it meanwhile.

    Raises CannotKeepError where the cache cannot keep it.
    """
    final = cached_path(sha256)
    with _keeping(), _partial(final) as stream:
        if final.exists():
            return
        if not cache_space.reserve(cache_folder(), size):
            raise TooLargeError(size)
        try:
            _fill(stream, path, sha256, size)
            _partial_of(final).rename(final)
            _proved[sha256] = _known_by(stream.fileno())
        except BaseException:
            cache_space.release(cache_folder(), size)
            raise


def _fill(stream: FileIO, path: StorePath, sha256: str, size: int) -> None:
    """Write an object's bytes into a file, and compare their digest."""
    digest, count = hashlib.sha256(), 0
    for chunk in path.chunks():
        count += len(chunk)
        if count > size:
            break
        digest.update(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[stream.write(rest) :]
    if count != size or digest.hexdigest() != sha256:
        raise DigestMismatchError(count, digest.hexdigest())


class CannotKeepError(Exception):
    """The cache cannot keep a file; the message says why."""

    def __init__(self, words: str, number: int | None = None) -> None:
        super().__init__(words, number)
        self.number = number
        self.is_full = number in (errno.ENOSPC, errno.EDQUOT)

    def __str__(self) -> str:
        return str(self.args[0])


class TooLargeError(CannotKeepError):
    """A file is larger than all that the cache may hold."""

    def __init__(self, size: int) -> None:
        words = f"a file of {size:,} bytes is larger than all that it may hold by ${SIZE_VARIABLE}"
        super().__init__(words)
        self.size = size

    def __reduce__(self) -> tuple[type[TooLargeError], tuple[int]]:
        return TooLargeError, (self.size,)


@contextmanager
def _keeping() -> Iterator[None]:
    """Turn what keeps files from being kept into one error; those of the store stay."""
    try:
        yield
    except DigestMismatchError:
        raise
    except OSError as error:
        if "://" in str(error.filename):  # of the store
            raise
        raise CannotKeepError(_reason(error), error.errno) from error


def _reason(error: OSError) -> str:
    """Return in words why a file cannot be kept."""
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        path = Path(error.filename)
        there = next(filter(os.path.lexists, (path, *path.parents)))
        return f"{there} is no folder"
    if error.errno == errno.EINVAL and error.filename:
        return f"{error.filename} is {error.strerror}"
    return explain(error)


def _open_kept(final: Path) -> BufferedReader | None:
    """Open a file of the cache, and remember that it is used; None where there is none.

    What is no file of its own, as a link or a pipe, is removed.
    """
    try:
        descriptor = os.open(final, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            _remove(final)
        return None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        _remove(final)
        return None
    if abs(cache_space.now() - found.st_mtime) > _SECONDS_BETWEEN_STAMPS:  # a clock may go back
        try:
            os.utime(descriptor)
        except OSError:
            """Another user's, or a file system that is not written to."""
    return os.fdopen(descriptor, "rb")


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        """A folder, which nothing of vocprep's is; files are then read from memory."""


@contextmanager
def _partial(final: Path) -> Iterator[FileIO]:
    """Yield the file that is filled before it gets its name; one process at a time has it.

    It is removed unless it has got its name.
    """
    path = _partial_of(final)
    cache_space.make_folder(final.parent, cache_folder())
    while True:
        with cache_space.locked(path) as stream:
            if not _is_at(stream.fileno(), path):
                continue  # another process has renamed or removed it meanwhile
            try:
                stream.truncate(0)
                yield stream
            finally:
                if _is_at(stream.fileno(), path):
                    path.unlink(missing_ok=True)
            return


def _partial_of(final: Path) -> Path:
    return final.with_name(f"{TEMPORARY_PREFIX}{final.name}")


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _open_unnamed(path: StorePath, sha256: str, size: int) -> BufferedReader:
    """Fetch an object into a file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("vocprep")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    stream = FileIO(descriptor, "r+b")
    try:
        _fill(stream, path, sha256, size)
    except BaseException:
        stream.close()
        raise
    stream.seek(0)
    _proved[sha256] = _known_by(descriptor)
    return BufferedReader(stream)


def _known_by(descriptor: int) -> tuple[int, ...]:
    found = os.fstat(descriptor)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _note(error: CannotKeepError) -> None:
    """Say that files are not kept, unless none are to be: once per process and kind of error."""
    folder, is_large = cache_folder(), isinstance(error, TooLargeError)
    seen = (folder, None if is_large else error.number)
    if seen in _noted or (is_large and cache_space.limit(folder) == 0):
        return
    _noted.add(seen)
    _log.warning(
        "note: the cache %s keeps %s: %s; %s read from memory, each time anew; %s or name another "
        "folder by $%s",
        *(folder, "smaller files only" if is_large else "nothing", error),
        "larger ones are" if is_large else "files are",
        f"raise ${SIZE_VARIABLE}" if is_large else _advice(error.number),
        CACHE_VARIABLE,
    )


def _advice(number: int | None) -> str:
    """Return what lets the cache keep files again, by the number of the error."""
    if number in (errno.EEXIST, errno.ENOTDIR, errno.EINVAL):
        return "move that away"
    return disk_advice(OSError(number or 0, ""))
