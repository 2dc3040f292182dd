"""The cache by digest: fetched once, never wrong under a final name, within its limit."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builders.s3 import S3, call_once, cut, slow

from vocprep.errors import UsageError
from vocprep.storage import cache_space
from vocprep.storage.ahead import fetch_ahead
from vocprep.storage.cache import DigestMismatchError, cached_path, discard
from vocprep.storage.places import parse_place
from vocprep.storage.reading import forget_damaged, is_proved, open_listed
from vocprep.storage.store import StorePath

SIZE = 1000
HOUR = 3600


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def content(number: int) -> bytes:
    return bytes([number]) * SIZE


def put(s3: S3, number: int) -> StorePath:
    s3.put(f"{number}.bin", content(number))
    path = parse_place(s3.url(f"{number}.bin"))
    assert isinstance(path, StorePath)
    return path


def read(path: StorePath, number: int) -> bytes:
    with open_listed(path, digest(content(number)), SIZE) as stream:
        return stream.read()


@pytest.fixture
def cache(tmp_path: Path, s3: S3) -> Path:
    """The folder of the cache, which is not there yet."""
    assert not (tmp_path / "cache").exists()
    return tmp_path / "cache"


def kept(cache: Path) -> set[int]:
    """Return the numbers of the files in the cache, each of which must be whole."""
    found = set()
    for path in (cache / "objects").glob("*/*"):
        data = path.read_bytes()
        assert path.name == digest(data)
        found.add(data[0])
    return found


def used(cache: Path) -> int:
    return int((cache / "used").read_text())


def test_a_file_is_fetched_once_and_is_the_users_alone(s3: S3, cache: Path) -> None:
    path = put(s3, 1)
    with s3.through_proxy() as proxy:
        for _ in range(3):
            assert read(path, 1) == content(1)
        assert proxy.requests.total() == 1
    final = cached_path(digest(content(1)))
    assert final.is_relative_to(cache)
    assert [oct(each.stat().st_mode & 0o777) for each in (cache, final.parent, final)] == [
        "0o700",
        "0o700",
        "0o600",
    ]
    assert used(cache) == SIZE


def test_what_was_digested_while_it_came_in_need_not_be_again(s3: S3, cache: Path) -> None:
    path, sha256 = put(s3, 1), digest(content(1))
    with open_listed(path, sha256, SIZE) as stream:
        assert is_proved(path, stream, sha256)
    with cached_path(sha256).open("r+b") as file:
        file.write(b"damage")
    with open_listed(path, sha256, SIZE) as stream:
        assert not is_proved(path, stream, sha256)
    discard(sha256)
    assert read(path, 1) == content(1)


@pytest.mark.parametrize("wrong", [b"", content(2), content(1)[:-1], content(1) + b"x"])
def test_other_bytes_get_no_name(s3: S3, cache: Path, wrong: bytes) -> None:
    path = put(s3, 1)
    s3.put("1.bin", wrong)
    with pytest.raises(DigestMismatchError):
        read(path, 1)
    assert list((cache / "objects").glob("*/*")) == []
    assert used(cache) == 0


def test_threads_fetch_a_file_once(s3: S3, cache: Path) -> None:
    path = put(s3, 1)
    with s3.through_proxy(slow(0.2)) as proxy, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: read(path, 1), range(8))) == [content(1)] * 8
        assert proxy.requests.total() == 1
    assert kept(cache) == {1}


READ = (
    "import sys; from vocprep.storage.store import StorePath; "
    "from vocprep.storage.reading import open_listed; "
    "print(len(open_listed(StorePath.parse(sys.argv[1]), sys.argv[2], int(sys.argv[3])).read()))"
)


def start(path: StorePath, data: bytes) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", READ, str(path), digest(data), str(len(data))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_processes_fetch_a_file_once(s3: S3, cache: Path) -> None:
    path = put(s3, 1)
    with s3.through_proxy(slow(1.0)) as proxy:
        children = [start(path, content(1)) for _ in range(2)]
        for child in children:
            with child:
                assert child.communicate()[0] == b"1000\n"
        assert proxy.requests.total() == 1


def test_a_process_killed_in_the_middle_leaves_nothing_wrong(s3: S3, cache: Path) -> None:
    data = bytes(10_000_000)
    s3.put("large.bin", data)
    path = StorePath.parse(s3.url("large.bin"))
    arrived = threading.Event()
    with s3.through_proxy(cut("large.bin", 6_000_000)) as proxy:
        proxy.faults.append(slow(0))
        proxy.faults.append(lambda exchange: arrived.set() if exchange.number else None)
        proxy.faults.append(lambda exchange: time.sleep(30) if exchange.number else None)
        with start(path, data) as child:
            assert arrived.wait(30)  # it has the first part, and waits for the second
            child.send_signal(signal.SIGKILL)
            child.communicate()
    left = list((cache / "objects").glob("*/.tmp-*"))
    assert [each.stat().st_size > 0 for each in left] == [True]
    assert list((cache / "objects").glob("*/[0-9a-f]*")) == []
    with open_listed(path, digest(data), len(data)) as stream:
        assert stream.read() == data
    assert list((cache / "objects").glob("*/.tmp-*")) == []


# Its limit


def fill(s3: S3, *numbers: int) -> None:
    """Read files, each of which is used an hour after the one before; the last one now."""
    for hours, number in enumerate(reversed(numbers)):
        read(put(s3, number), number)
        at = time.time() - HOUR * hours
        os.utime(cached_path(digest(content(number))), (at, at))


def test_the_least_recently_used_go_first(s3: S3, cache: Path) -> None:
    s3.environment.setenv("VOCPREP_CACHE_SIZE", "5kB")
    fill(s3, 1, 2, 3, 4, 5)
    assert read(put(s3, 1), 1) == content(1)  # which is used again
    assert read(put(s3, 6), 6) == content(6)
    assert kept(cache) == {1, 4, 5, 6}  # a tenth of the limit is free
    assert used(cache) == 4 * SIZE


def test_a_reader_keeps_what_goes(s3: S3, cache: Path) -> None:
    s3.environment.setenv("VOCPREP_CACHE_SIZE", "1500")
    path = put(s3, 1)
    with open_listed(path, digest(content(1)), SIZE) as stream:
        read(put(s3, 2), 2)
        assert kept(cache) == {2}
        assert stream.read() == content(1)


def test_what_is_written_and_what_is_not_vocpreps_stays(s3: S3, cache: Path) -> None:
    s3.environment.setenv("VOCPREP_CACHE_SIZE", "2500")
    fill(s3, 1, 2)
    folder = cache / "objects" / "aa"
    folder.mkdir(exist_ok=True)
    (folder / "notes.txt").write_text("mine")
    (folder / ("b" * 64)).symlink_to(folder / "notes.txt")
    (folder / ".tmp-killed").write_text("left")
    with cache_space.locked(folder / ".tmp-written"):
        read(put(s3, 3), 3)
        assert {each.name for each in folder.iterdir()} == {
            *("notes.txt", "b" * 64, ".tmp-written"),
        }


def test_keeping_a_file_does_not_look_at_the_others(
    s3: S3, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(s3, 1, 2)

    def fail(_: Path) -> list[os.DirEntry[str]]:
        raise AssertionError("looked at")

    monkeypatch.setattr(cache_space, "_entries", fail)
    read(put(s3, 3), 3)
    assert used(cache) == 3 * SIZE


@pytest.mark.parametrize("text", ["", "-1", "x", "5 kilo", "101%", "1e9", "NaN"])
def test_a_limit_that_is_none_is_refused(s3: S3, cache: Path, text: str) -> None:
    s3.environment.setenv("VOCPREP_CACHE_SIZE", text)
    path = put(s3, 1)
    if not text:
        assert read(path, 1) == content(1)
        return
    with pytest.raises(UsageError, match=rf"^VOCPREP_CACHE_SIZE '{text}': expected a size such as"):
        read(path, 1)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("50GB", 50 * 10**9),
        ("8 GiB", 8 << 30),
        ("1.5kB", 1500),
        ("12", 12),
        ("0", 0),
        ("2TB", 2e12),
    ],
)
def test_limits_in_bytes(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOCPREP_CACHE_SIZE", text)
    assert cache_space.limit(Path("/")) == size


def test_a_limit_in_parts_of_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.statvfs("/")
    monkeypatch.setenv("VOCPREP_CACHE_SIZE", "50%")
    assert cache_space.limit(Path("/")) == found.f_blocks * found.f_frsize // 2


# Where nothing can be kept


def _a_file(cache: Path) -> None:
    cache.write_text("a file")


def _a_file_within(cache: Path) -> None:
    cache.mkdir()
    (cache / "objects").write_text("a file")


def _a_link_to_nowhere(cache: Path) -> None:
    cache.symlink_to("nowhere")


def _a_pipe_as_its_number(cache: Path) -> None:
    cache.mkdir()
    os.mkfifo(cache / "used")


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (_a_file, "{} is no folder"),
        (_a_file_within, "{}/objects is no folder"),
        (_a_link_to_nowhere, "{} is no folder"),
        (_a_pipe_as_its_number, "{}/used is a pipe, no regular file"),
    ],
)
def test_a_cache_that_cannot_be_written_is_done_without(
    s3: S3,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    prepare: Callable[[Path], None],
    reason: str,
) -> None:
    prepare(cache)
    for number in (1, 2):
        assert read(put(s3, number), number) == content(number)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages[0] == (
        f"note: the cache {cache} keeps nothing: {reason.format(cache)}; files are read from "
        "memory, each time anew; move that away or name another folder by $VOCPREP_CACHE"
    )


def test_a_file_larger_than_the_limit_is_read_from_memory(
    s3: S3, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    s3.environment.setenv("VOCPREP_CACHE_SIZE", "999")
    path = put(s3, 1)
    with open_listed(path, digest(content(1)), SIZE) as stream:
        assert os.fstat(stream.fileno()).st_size == SIZE
        assert is_proved(path, stream, digest(content(1)))
        assert stream.read() == content(1)
    s3.put("3.bin", content(3) * 2)
    larger = parse_place(s3.url("3.bin"))
    assert isinstance(larger, StorePath)
    with open_listed(larger, digest(content(3) * 2), 2 * SIZE) as stream:
        assert stream.read() == content(3) * 2
    assert caplog.messages == [
        f"note: the cache {cache} keeps smaller files only: a file of 1,000 bytes is larger than "
        "all that it may hold by $VOCPREP_CACHE_SIZE; larger ones are read from memory, each time "
        "anew; raise $VOCPREP_CACHE_SIZE or name another folder by $VOCPREP_CACHE"
    ]
    assert list(cache.glob("objects/*/*")) == []
    with pytest.raises(DigestMismatchError):
        open_listed(path, digest(content(2)), SIZE)


def test_a_cache_of_no_size_is_chosen_and_not_noted(
    s3: S3, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    s3.environment.setenv("VOCPREP_CACHE_SIZE", "0")
    for number in (1, 2):
        assert read(put(s3, number), number) == content(number)
    assert caplog.messages == []
    assert list(cache.glob("objects/*/*")) == []


def test_a_full_disk_first_loses_what_was_used_least_recently(
    s3: S3, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(s3, 1, 2, 3)
    path = put(s3, 4)
    from vocprep.storage import cache as module  # noqa: PLC0415  # beside the fixture's name

    real, calls = module._fill, []

    def full(stream: object, *rest: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        real(stream, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_fill", full)
    assert read(path, 4) == content(4)
    assert kept(cache) == {3, 4}
    assert used(cache) == 2 * SIZE
    assert caplog.messages == []


def test_one_note_tells_of_all_files_that_are_too_large(
    s3: S3, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    s3.environment.setenv("VOCPREP_CACHE_SIZE", "1")
    for size in (2, 3, 4):
        s3.put("x", b"x" * size)
        path = parse_place(s3.url("x"))
        with open_listed(path, digest(b"x" * size), size) as stream:
            assert stream.read() == b"x" * size
    assert len(caplog.messages) == 1


def test_a_damaged_file_that_cannot_be_removed_is_not_read_again(
    s3: S3, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    path, sha256 = put(s3, 1), digest(content(1))
    assert read(path, 1) == content(1)
    cached_path(sha256).write_bytes(content(2))
    s3.environment.setattr(Path, "unlink", refuse)  # as in the folder of another user
    assert forget_damaged(path, sha256)
    assert [read(path, 1) for _ in range(2)] == [content(1)] * 2
    assert caplog.messages[0].startswith(
        f"note: the cache {cache} keeps nothing: a damaged file in it cannot be removed: Permission"
    )


def test_a_time_of_use_in_the_future_is_set_right(s3: S3, cache: Path) -> None:
    path, final = put(s3, 1), cached_path(digest(content(1)))
    read(path, 1)
    os.utime(final, (time.time() + HOUR,) * 2)
    read(path, 1)
    assert abs(final.stat().st_mtime - time.time()) < HOUR / 2


def test_a_write_that_the_system_refuses(s3: S3, cache: Path) -> None:
    program = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); {READ}"
    )
    path = put(s3, 1)
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), digest(content(1)), str(SIZE)],
        capture_output=True,
        check=False,
        timeout=60,
    )
    # The limit holds for files in memory too, so that it cannot be read at all: one error.
    assert b"File too large" in done.stderr
    assert list(cache.glob("objects/*/*")) == []


def test_a_url_as_cache_is_refused(s3: S3) -> None:
    path = put(s3, 1)
    s3.environment.setenv("VOCPREP_CACHE", "s3://bucket/cache")
    with pytest.raises(UsageError, match=r"^VOCPREP_CACHE: expected a folder of this machine"):
        read(path, 1)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_in_the_place_of_one(s3: S3, cache: Path, kind: str) -> None:
    path, final = put(s3, 1), cached_path(digest(content(1)))
    final.parent.mkdir(parents=True)
    if kind == "link":
        (cache / "secret").write_bytes(content(1))
        final.symlink_to(cache / "secret")
    elif kind == "pipe":
        os.mkfifo(final)
    else:
        final.mkdir()
    assert read(path, 1) == content(1)
    if kind != "folder":
        assert kept(cache) == {1}


# Ahead of the reader


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_files_are_fetched_ahead(s3: S3, cache: Path) -> None:
    paths = {number: put(s3, number) for number in range(6)}
    with s3.through_proxy() as proxy:
        for number, path in paths.items():
            assert fetch_ahead(path, digest(content(number)), SIZE)
        wait_for(lambda: len(list(cache.glob("objects/*/[0-9a-f]*"))) == 6)
        for number, path in paths.items():
            assert read(path, number) == content(number)
        assert proxy.requests.total() == 6


def test_files_ahead_never_push_out_what_nobody_has_read(s3: S3, cache: Path) -> None:
    s3.environment.setenv("VOCPREP_CACHE_SIZE", "4kB")
    paths = {number: put(s3, number) for number in range(4)}
    begun = [fetch_ahead(path, digest(content(number)), SIZE) for number, path in paths.items()]
    assert begun == [True, True, False, False]
    wait_for(lambda: len(list(cache.glob("objects/*/[0-9a-f]*"))) == 2)
    assert read(paths[0], 0) == content(0)
    assert fetch_ahead(paths[2], digest(content(2)), SIZE)
    for number in (1, 2):
        read(paths[number], number)


def test_a_cache_that_cannot_be_looked_at_is_no_matter_for_fetching_ahead(
    s3: S3, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    s3.environment.setenv("VOCPREP_CACHE", str(cache / ("x" * 300)))  # an error of any look at it
    path = put(s3, 1)
    fetch_ahead(path, digest(content(1)), SIZE)
    assert read(path, 1) == content(1)
    assert ["File name too long" in each for each in caplog.messages] == [True]


@pytest.mark.parametrize("text", ["many", "-1", "0", ""])
def test_a_number_of_processes_that_is_none_is_one(s3: S3, cache: Path, text: str) -> None:
    s3.environment.setenv("LOCAL_WORLD_SIZE", text)
    s3.environment.setenv("VOCPREP_CACHE_SIZE", "2kB")
    assert fetch_ahead(put(s3, 1), digest(content(1)), SIZE)
    assert read(put(s3, 1), 1) == content(1)


def test_a_failure_ahead_is_met_by_the_reader(s3: S3, cache: Path) -> None:
    path = put(s3, 1)
    s3.delete("1.bin")
    with s3.through_proxy() as proxy:
        assert fetch_ahead(path, digest(content(1)), SIZE)
        wait_for(lambda: proxy.requests.total() == 1)
        with pytest.raises(FileNotFoundError):
            read(path, 1)


@pytest.mark.slow
def test_a_server_killed_while_files_are_read(s3: S3, cache: Path) -> None:
    paths = {number: put(s3, number) for number in range(5)}
    with s3.through_proxy(call_once("2.bin", s3.server.kill_and_start)):
        for number, path in paths.items():
            assert read(path, number) == content(number)
    assert kept(cache) == set(range(5))
