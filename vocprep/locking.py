"""File locks: one process at a time in a folder or at a file, where the file system has locks."""

from __future__ import annotations

import errno
import fcntl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vocprep.errors import UsageError
from vocprep.files import TEMPORARY_PREFIX

LOCK = ".lock"
"""Name of the lock file in a folder that one process writes."""
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
"""What file systems without locks answer, such as some that lie on a network."""


@contextmanager
def file_lock(
    path: Path, *, busy: str, note: Callable[[str], None], wait: bool = False
) -> Iterator[None]:
    """Hold the lock file ``path``, which is made where there is none and stays there.

    While another process, or another thread, holds it: UsageError with the text ``busy``, at once;
    with ``wait`` the text is noted and the lock waited for. On a file system without locks the work
    goes on without one, with a note. Raises OSError where no lock file can be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not has_locks(path.parent):
        note(
            f"{path.parent}: this file system has no file locks, so nothing keeps a second "
            "process from writing there at the same time"
        )
        yield
        return
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        if not wait:
            raise UsageError(busy) from error
        note(busy)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def has_locks(folder: Path) -> bool:
    """Return whether the file system of a folder has file locks; OSError where it is not writable.

    Tried on an unnamed file, which no other process can hold.
    """
    with tempfile.TemporaryFile(dir=folder, prefix=TEMPORARY_PREFIX) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return False
            raise
    return True
