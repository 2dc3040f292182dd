"""File locks: one process at a time in a folder or at a file, where the file system has locks.

A lock is one of the kernel's (``flock``), held by an open file: it ends with its process, however
that ends, and leaves nothing to clean up.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vocprep.errors import UsageError

LOCK = ".lock"
"""Name of the lock file in a folder that one process writes."""
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)
"""What file systems without locks answer, such as some that lie on a network; EBADF for a folder
on NFS, where only files that are open for writing can be locked."""
_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def file_lock(
    path: Path,
    *,
    busy: str,
    note: Callable[[str], None],
    wait: bool = False,
    shared: bool = False,
) -> Iterator[None]:
    """Hold the lock of a folder, or of a lock file, which is made and stays there.

    Several may hold it ``shared`` at once, while nobody holds it alone.

    While another process, or another thread, holds it: UsageError with the text ``busy`` and the
    process, at once; with ``wait`` the same is noted and the lock waited for. On a file system
    without locks the work goes on without one, with a note. Raises OSError where no lock file can
    be made.
    """
    descriptor = _open(path)
    try:
        held = try_lock(descriptor, shared=shared)
        if held is None:
            note(_no_locks(path))
        elif not held:
            text = f"{busy} (the lock is held by {_holder(descriptor)})"
            if not wait:
                raise UsageError(text)
            note(text)
            fcntl.flock(descriptor, _kind(shared=shared))
        yield
    finally:
        os.close(descriptor)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder's lock for moments, while files are written that belong together.

    Waits for another process that does so, and needs no note where there are no locks.
    """
    with file_lock(folder, busy=str(folder), note=lambda _: None, wait=True):
        yield


def try_lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Lock an open file without waiting; None where its file system has no locks."""
    try:
        fcntl.flock(descriptor, _kind(shared=shared) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        if error.errno in _HELD:
            return False
        raise
    return True


def _kind(*, shared: bool) -> int:
    return fcntl.LOCK_SH if shared else fcntl.LOCK_EX


def _open(path: Path) -> int:
    """Open a folder, or a file that is made if there is none; a link to a file is not followed."""
    if path.is_dir():
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:
        if not path.is_file():
            raise
        return os.open(path, os.O_RDONLY | flags)  # another user's can be locked too


def _no_locks(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    return (
        f"{folder}: this file system has no file locks, so nothing keeps a second process from "
        "writing there at the same time"
    )


def _holder(descriptor: int) -> str:
    """Return the process that holds the lock of an open file, in words."""
    facts = os.fstat(descriptor)
    place = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        lines = []
    for line in lines:
        words = line.split()
        if words[1:2] == ["FLOCK"] and place in words and words[4].isdigit():
            return f"process {words[4]}"
    return "another process"
