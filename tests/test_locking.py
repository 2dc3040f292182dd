"""File locks between processes, and file systems that have none."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vocprep.errors import UsageError
from vocprep.locking import file_lock

HOLDER = """
import sys
from pathlib import Path
from vocprep.locking import file_lock

with file_lock(Path(sys.argv[1]), busy="busy", note=print):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock in a child until its standard input is closed."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child


def test_a_second_process_is_refused_at_once(tmp_path: Path) -> None:
    notes: list[str] = []
    path = tmp_path / "folder" / ".lock"
    with (
        held_by_another(path),
        pytest.raises(UsageError, match=r"^folder: another one writes there$"),
        file_lock(path, busy="folder: another one writes there", note=notes.append),
    ):
        pass
    with file_lock(path, busy="busy", note=notes.append):
        pass
    assert notes == []


def test_a_second_holder_in_the_same_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with (
        file_lock(path, busy="busy", note=print),
        pytest.raises(UsageError, match="busy"),
        file_lock(path, busy="busy", note=print),
    ):
        pass


def test_what_waits_says_so_and_goes_on_when_the_other_ends(tmp_path: Path) -> None:
    path, events = tmp_path / ".lock", []
    with held_by_another(path) as child:
        assert child.stdin is not None

        def note(text: str) -> None:
            events.append(text)
            child.stdin.close()  # the other one ends

        with file_lock(path, busy="waiting for another one", note=note, wait=True):
            events.append("held")
    assert events == ["waiting for another one", "held"]


def test_a_killed_holder_leaves_nothing_that_refuses_the_next(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with held_by_another(path) as child:
        child.kill()
    with file_lock(path, busy="busy", note=print):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.parametrize("wait", [False, True])
def test_without_locks_the_work_goes_on_with_one_note(
    number: int, wait: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(fcntl, "flock", flock)
    notes: list[str] = []
    with file_lock(tmp_path / ".lock", busy="busy", note=notes.append, wait=wait):
        assert list(tmp_path.iterdir()) == []
    assert notes == [
        f"{tmp_path}: this file system has no file locks, so nothing keeps a second process from "
        "writing there at the same time"
    ]


def test_other_errors_of_the_lock_are_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(errno.EIO, "refused")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(OSError, match="refused"),
        file_lock(tmp_path / ".lock", busy="busy", note=print),
    ):
        pass


def test_threads_take_turns(tmp_path: Path) -> None:
    path, inside, most = tmp_path / ".lock", [], []

    def work() -> None:
        with file_lock(path, busy="busy", note=lambda _: None, wait=True):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4
