"""The cache of what is read from object stores: whole files, named by the sha256 of their bytes.

A file is hashed while it streams in, and gets its name when all of it is there and has the digest.
Several processes may fill one cache: each file is fetched by one of them, under a file lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Final

from vocprep.files.names import TEMPORARY_PREFIX
from vocprep.files.reading import open_regular
from vocprep.storage.store import StorePath

CACHE_VARIABLE: Final = "VOCPREP_CACHE"


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
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vocprep"


def open_cached(path: StorePath, sha256: str, size: int) -> BufferedReader:
    """Open the file with a digest, fetched from a store unless the cache holds it.

    What the cache holds already is not digested again: the caller does that. Raises
    DigestMismatchError when the object has other bytes, OSError when it cannot be fetched or kept.
    """
    final = cached_path(sha256)
    try:
        stream = open_regular(final)
    except FileNotFoundError:
        fetch(path, sha256, size)
        stream = open_regular(final)
    os.utime(stream.fileno())
    return stream


def cached_path(sha256: str) -> Path:
    """Return where the file with a digest is kept."""
    return cache_folder() / "objects" / sha256[:2] / sha256


def discard(sha256: str) -> None:
    """Remove the file with a digest, which was found damaged."""
    cached_path(sha256).unlink(missing_ok=True)


def fetch(path: StorePath, sha256: str, size: int) -> None:
    """Fetch an object into the cache, unless another process has done so meanwhile."""
    final = cached_path(sha256)
    with _partial(final) as partial:
        if final.exists():
            return
        digest, count = hashlib.sha256(), 0
        with partial.open("r+b") as stream:
            stream.truncate(0)
            for chunk in path.chunks():
                count += len(chunk)
                if count > size:
                    break
                digest.update(chunk)
                stream.write(chunk)
        if count != size or digest.hexdigest() != sha256:
            partial.unlink()
            raise DigestMismatchError(count, digest.hexdigest())
        partial.rename(final)


@contextmanager
def _partial(final: Path) -> Iterator[Path]:
    """Yield the file that is filled before it gets its name; one process at a time has it."""
    path = final.with_name(f"{TEMPORARY_PREFIX}{final.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        path.touch()  # another process may have renamed it while this one waited
        yield path
    finally:
        os.close(descriptor)
