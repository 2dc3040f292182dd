"""Processes that others started, by their ids."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path


def children(pid: int) -> list[int]:
    """The processes that a process has started, none where it is not there."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def are_gone(pids: Sequence[int]) -> bool:
    """Whether processes end, in whose place no other process comes to be so soon."""
    ends = time.monotonic() + 30
    while any(_is_there(pid) for pid in pids):
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
