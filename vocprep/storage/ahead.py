"""Fetching files into the cache ahead of their readers, in threads."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from pathlib import Path
from typing import Final

from vocprep.errors import UsageError
from vocprep.storage import cache_space
from vocprep.storage.cache import CannotKeepError, cache_folder, fetch, is_cached
from vocprep.storage.store import StorePath

THREADS: Final = 4
_SHARE: Final = 0.5
"""Part of the cache that files may take which nobody has read yet, so that none of them goes."""


class _Ahead:
    """What one process fetches ahead."""

    def __init__(self) -> None:
        self._queue: deque[tuple[StorePath, str, int]] = deque()
        self._unread: dict[str, int] = {}
        self._lock = threading.Lock()
        self._threads = 0

    def add(self, path: StorePath, sha256: str, size: int) -> bool:
        """Begin to fetch a file; False where there is no room for one more unread one."""
        share = _SHARE / _processes()
        with self._lock:
            if sha256 in self._unread or is_cached(sha256):
                return True
            if sum(self._unread.values()) + size > share * cache_space.limit(_existing()):
                return False
            self._unread[sha256] = size
            self._queue.append((path, sha256, size))
            if self._threads < THREADS:
                self._threads += 1
                threading.Thread(target=self._work, name="fetch-ahead", daemon=True).start()
        return True

    def taken(self, sha256: str) -> None:
        """Note that a file is read."""
        with self._lock:
            self._unread.pop(sha256, None)

    def _work(self) -> None:
        while (item := self._next()) is not None:
            try:
                fetch(*item)
            except (OSError, CannotKeepError, UsageError):
                self.taken(item[1])  # its reader meets the same, and says so

    def _next(self) -> tuple[StorePath, str, int] | None:
        """Return the next file that nobody has read meanwhile; None, for a thread's end."""
        with self._lock:
            while self._queue:
                item = self._queue.popleft()
                if item[1] in self._unread:
                    return item
            self._threads -= 1
            return None


_state = {"ahead": _Ahead()}
os.register_at_fork(after_in_child=lambda: _state.update(ahead=_Ahead()))


def fetch_ahead(path: StorePath, sha256: str, size: int) -> bool:
    """Begin to fetch a file that is read soon, and return at once.

    False where nothing is done, since files that nobody has read yet fill the cache already: fetch
    it ahead when some of them were read.
    """
    try:
        return _state["ahead"].add(path, sha256, size)
    except OSError:
        return False  # of the cache; the reader meets the same, and says so


def taken(sha256: str) -> None:
    """Note that a file is read, so that its room is free for another one ahead."""
    _state["ahead"].taken(sha256)


def _processes() -> int:
    """Return how many processes of this machine read at once, as torchrun says it; 1 else."""
    text = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(text)) if re.fullmatch("[0-9]{1,9}", text) else 1


def _existing() -> Path:
    """Return the cache folder, or the first above it that exists."""
    folder = cache_folder().absolute()
    while not os.path.isdir(folder) and folder != folder.parent:  # noqa: PTH112  # no errors
        folder = folder.parent
    return folder
