"""A disk on which one call fails: the nth one that changes something below a folder."""

from __future__ import annotations

import errno
import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ERRORS = {
    "open": (errno.EACCES, errno.ENOSPC, errno.EIO),
    "write": (errno.ENOSPC, errno.EIO),
    "fsync": (errno.EIO, errno.ENOSPC),
    "rename": (errno.EIO, errno.EACCES, errno.ENOSPC),
    "mkdir": (errno.ENOSPC, errno.EACCES),
    "unlink": (errno.EACCES, errno.EIO),
    "rmdir": (errno.EACCES, errno.EIO),
    "link": (errno.EPERM, errno.EMLINK),
    "truncate": (errno.EIO,),
}
"""What each kind of call fails with, in turn."""


class DiskFaults:
    """Counts the calls that change what is below a folder, and lets one of them fail.

    With ``kill`` the process is killed before that call.
    """

    def __init__(self, folder: Path, nth: int = 0, *, kill: bool = False) -> None:
        self.calls: list[str] = []
        self._folder = str(folder.resolve())
        self._nth = nth
        self._kill = kill
        self._lock = threading.Lock()

    def step(self, kind: str, *paths: object) -> None:
        """Count a call; raise OSError where it is the one that fails."""
        if not any(self._is_below(path) for path in paths):
            return
        with self._lock:
            self.calls.append(kind)
            if len(self.calls) != self._nth:
                return
        if self._kill:
            os.kill(os.getpid(), signal.SIGKILL)
        number = ERRORS[kind][self._nth % len(ERRORS[kind])]
        names = [None if isinstance(path, int) else os.fsdecode(path) for path in paths]
        two = (names[0], None, names[1]) if len(names) == 2 else (names[0],)
        raise OSError(number, os.strerror(number), *two)

    def _is_below(self, path: Any) -> bool:
        if isinstance(path, int):
            path = Path(f"/proc/self/fd/{path}").readlink()
        return os.path.realpath(os.fsdecode(path)).startswith(f"{self._folder}/")

    def open_file(  # noqa: PLR0917  # as open has them
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        """Open a file as ``open`` does, one whose writes can fail where it is written below."""
        if not set(mode) & set("wax+") or not self._is_below(file):
            return REAL_OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if not isinstance(file, int):
            self.step("open", file)
        raw = _Raw(file, mode.replace("t", "").replace("b", ""), closefd, opener)
        raw.faults = self
        if buffering == 0:
            return raw
        both = "+" in mode
        stream = io.BufferedRandom(raw) if both else io.BufferedWriter(raw)
        if "b" in mode:
            return stream
        return io.TextIOWrapper(stream, encoding or "utf-8", errors, newline)


class _Raw(io.FileIO):
    """A file whose writes are counted; a failing one has written half of its bytes."""

    faults: DiskFaults

    def write(self, data: Any) -> int:
        try:
            self.faults.step("write", self.fileno())
        except OSError:
            super().write(memoryview(data)[: len(data) // 2])
            raise
        return super().write(data)


REAL_OPEN = io.open  # the function that is replaced


@contextmanager
def disk_faults(folder: Path, nth: int = 0, *, kill: bool = False) -> Iterator[DiskFaults]:
    """Let the nth call below a folder fail while the block runs; 0 only counts."""
    faults = DiskFaults(folder, nth, kill=kill)

    def counted(kind: str, original: Callable[..., Any], *, paths: int = 1) -> Callable[..., Any]:
        def call(*arguments: Any, **words: Any) -> Any:
            places = arguments[:paths]
            if words.get("dir_fd") is not None:
                places = (words["dir_fd"],)
            faults.step(kind, *places)
            return original(*arguments, **words)

        return call

    real_open = os.open

    def os_open(path: Any, flags: int, *arguments: Any, **words: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            faults.step("open", path)
        return real_open(path, flags, *arguments, **words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("io.open", faults.open_file)
        patch.setattr("builtins.open", faults.open_file)
        patch.setattr(os, "open", os_open)
        for name, kind, paths in (
            *(("replace", "rename", 2), ("rename", "rename", 2), ("link", "link", 2)),
            *(("mkdir", "mkdir", 1), ("unlink", "unlink", 1), ("remove", "unlink", 1)),
            *(("rmdir", "rmdir", 1), ("fsync", "fsync", 1), ("ftruncate", "truncate", 1)),
            *(("write", "write", 1), ("pwrite", "write", 1)),
        ):
            patch.setattr(os, name, counted(kind, getattr(os, name), paths=paths))
        yield faults
