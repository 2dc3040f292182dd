"""File locks between processes, and file systems that have none."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from builders.versions import Built

from vocprep.errors import UsageError
from vocprep.files.locking import alone_in, file_lock
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record

HOLDER = """
import sys
from pathlib import Path
from vocprep.files.locking import file_lock

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
        held_by_another(path) as child,
        pytest.raises(UsageError, match=r"^folder: another one writes there") as caught,
        file_lock(path, busy="folder: another one writes there", note=notes.append),
    ):
        pass
    assert f"held by process {child.pid}" in str(caught.value)
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


def test_several_share_a_lock_that_nobody_holds_alone(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with (
        file_lock(path, busy="busy", note=print, shared=True),
        file_lock(path, busy="busy", note=print, shared=True),
        pytest.raises(UsageError, match="busy"),
        file_lock(path, busy="busy", note=print),
    ):
        pass
    with (
        held_by_another(path),
        pytest.raises(UsageError, match="busy"),
        file_lock(path, busy="busy", note=print, shared=True),
    ):
        pass
    with file_lock(path, busy="busy", note=print):
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
    assert events == [
        f"waiting for another one (the lock is held by process {child.pid})",
        "held",
    ]


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
        pass
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


def test_files_that_belong_together_are_written_alone(tmp_path: Path) -> None:
    reached = threading.Event()

    def other() -> None:
        with alone_in(tmp_path):
            reached.set()

    with alone_in(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        assert not reached.wait(0.05)
    thread.join()
    assert reached.is_set()
    assert list(tmp_path.iterdir()) == []


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


def test_lock_of_a_folder_leaves_nothing_in_it(tmp_path: Path) -> None:
    with (
        file_lock(tmp_path, busy="busy", note=print),
        pytest.raises(UsageError, match="busy"),
        file_lock(tmp_path, busy="busy", note=print),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(OSError, match="symbolic"),
        file_lock(tmp_path / "lock", busy="busy", note=print),
    ):
        pass
    assert not (tmp_path / "elsewhere").exists()


WITHOUT_LOCKS = """
import fcntl, os, sys

def flock(*_):
    raise OSError(int(sys.argv[1]), os.strerror(int(sys.argv[1])))

fcntl.flock = flock
from vocprep.cli import main
main(sys.argv[2:])
"""


def without_locks(number: int, *words: object) -> subprocess.CompletedProcess[str]:
    """Run the program in a process whose file systems have no locks."""
    command = [sys.executable, "-c", WITHOUT_LOCKS, str(number), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_builds_and_downloads_go_on_with_one_note(sample_tree: Path, tmp_path: Path) -> None:
    number, out, data = errno.ENOLCK, tmp_path / "out", tmp_path / "data"
    built = without_locks(
        *(number, "build-shards", "pascal-context", "--data-dir", sample_tree, "--out", out),
        *("--weights", "random:0", "--limit-per-split", 1, "--device", "cpu"),
    )
    assert built.returncode == 0, built.stderr
    assert built.stderr.count("has no file locks") == 1
    assert without_locks(number, "verify", out).returncode == 0
    fetched = without_locks(number, "download", "voc2012", "--offline", "--data-dir", data)
    assert fetched.returncode == 4
    assert fetched.stderr.count("has no file locks") == 1


@pytest.mark.slow
def test_shard_that_another_process_has_locked_is_read(crop_hdf5: Built) -> None:
    """The HDF5 library refuses such a file, as it would where there are no locks."""
    with ExitStack() as stack:
        for shard in crop_hdf5.index.shards:
            stream = stack.enter_context((crop_hdf5.path / shard.name).open("rb"))
            fcntl.flock(stream, fcntl.LOCK_EX)
        dataset = ShardDataset.open(crop_hdf5.path)
        read = [record.image_id for name in dataset.splits for record in records(dataset, name)]
    assert sorted(read) == [sample.id for sample in dataset.samples]


def records(dataset: ShardDataset, split: str) -> Iterator[Record]:
    for name in dataset.shard_names(split):
        yield from dataset.read_shard(name)
