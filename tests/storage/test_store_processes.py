"""Object stores read by threads, forks and other processes, and names that need care."""

from __future__ import annotations

import hashlib
import multiprocessing
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import pytest
from builders.s3 import S3, slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vocprep.storage import forked
from vocprep.storage.store import StorePath


def path_of(url: str) -> StorePath:
    return StorePath.parse(url)


def _in_child(connection: Connection, path: StorePath) -> None:
    found: list[object] = [
        path.read(1 << 20),
        b"".join(path.chunks()),
        path.read_range(1, 3),
        path.facts(),
        sorted(each.name for each in path.parent.list()),
    ]
    try:
        (path.parent / "none").read(9)
    except FileNotFoundError as error:
        found.append(str(error))
    (path.parent / "new").put_new(b"of a child", "0" * 64)
    connection.send(found)


def _from_child(path: StorePath) -> list[object]:
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(there, path))
    child.start()
    assert here.poll(30)
    found: list[object] = here.recv()
    child.join()
    return found


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_of_a_process_that_has_used_a_store_uses_it_too(s3: S3) -> None:
    s3.put("x", b"data" * 1000)
    path = path_of(s3.url("x"))
    assert path.read(1 << 20) == b"data" * 1000
    found = _from_child(path)
    expected = b"data" * 1000
    assert found[:3] == [expected, expected, b"at"]
    assert found[4] == ["x"]
    assert found[5] == f"[Errno 2] no such object: '{path.parent / 'none'}'"
    assert s3.get("new") == b"of a child"


def _with_views(connection: Connection, path: StorePath) -> None:
    path.put(memoryview(b"a view"), "0" * 64)
    for program in forked._idle:  # killed for want of memory, perhaps
        program.process.kill()
        program.process.wait()
    connection.send(path.read(9))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_writes_views_and_outlives_the_programs_that_it_started(s3: S3) -> None:
    s3.put("x", b"")
    path = path_of(s3.url("x"))
    path.facts()
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_with_views, args=(there, path))
    child.start()
    assert here.poll(30)
    assert here.recv() == b"a view"
    child.join()


def test_threads_share_a_client(s3: S3) -> None:
    for number in range(20):
        s3.put(str(number), str(number).encode() * 1000)
    with s3.through_proxy(slow(0.1)):
        begun = time.monotonic()
        with ThreadPoolExecutor(20) as pool:
            paths = [path_of(s3.url(str(number))) for number in range(20)]
            found = list(pool.map(lambda path: path.read(1 << 20), paths))
        assert time.monotonic() - begun < 1.5  # not one after the other
    assert found == [str(number).encode() * 1000 for number in range(20)]


def test_ctrl_c_is_not_kept_waiting(s3: S3) -> None:
    program = (
        "import sys; from vocprep.storage.store import StorePath; print('begun', flush=True);"
        "StorePath.parse(sys.argv[1]).read(9)"
    )
    with s3.through_proxy(slow(20)):
        child = subprocess.Popen(
            [sys.executable, "-c", program, s3.url("x")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(0.7)  # it waits for the answer
            begun = time.monotonic()
            child.send_signal(signal.SIGINT)
            child.communicate()
    assert time.monotonic() - begun < 5
    assert child.returncode in (130, -signal.SIGINT)


def test_a_path_pickles_as_its_url(s3: S3) -> None:
    path = path_of(s3.url("a"))
    path.facts()
    data = pickle.dumps(path)
    assert pickle.loads(data) == path
    assert hash(pickle.loads(data)) == hash(path)
    assert len(data) < 300


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="/\\"),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", "..") and not name.startswith(".uploads"))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES, min_size=1, max_size=3))
def test_any_name_is_written_read_and_listed(s3: S3, names: list[str]) -> None:
    name = "/".join(names)
    data = name.encode()
    below = hashlib.sha256(data).hexdigest()[:20]
    folder = path_of(s3.url(below))
    path = folder / name
    assert path.put_new(data, hashlib.sha256(data).hexdigest())
    assert path.read(1000) == data
    assert s3.get(f"{below}/{name}") == data
    assert [each.name for each in folder.list()] == [name]
    assert not path.put_new(b"other", "0" * 64)


@pytest.mark.parametrize(
    "name", ["%", "%41", "a b", " a ", "a+b", "é", "日本", "a#b", "a?b", "~", "*"]
)
def test_names_that_urls_write_otherwise(s3: S3, name: str) -> None:
    s3.put(name, b"1")
    path = path_of(s3.url()) / name
    assert path.read(9) == b"1"
    assert [each.name for each in path.parent.list()] == [name]


def test_markers_of_folders_are_no_objects(s3: S3) -> None:
    s3.put("f/a", b"1")
    marker = path_of(s3.url("f"))
    assert marker.facts() is None
    assert [each.name for each in marker.list()] == ["a"]
    assert [each.name for each in path_of(s3.url()).list()] == ["f/a"]


def test_many_objects_are_listed_page_by_page(s3: S3) -> None:
    names = [f"{number:04d}" for number in range(1001)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: s3.put(f"many/{name}", b""), names))
    with s3.through_proxy() as proxy:
        found = [each.name for each in path_of(s3.url("many")).list()]
        assert proxy.count("LIST") == 2
    assert sorted(found) == names
