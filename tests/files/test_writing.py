"""Writing: nothing half-written is ever seen, and JSON has one text."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from builders.json_values import json_values
from hypothesis import given

from vocprep.files import writing
from vocprep.files.locking import try_lock
from vocprep.files.names import TEMPORARY_PREFIX
from vocprep.files.writing import (
    atomic_file,
    canonical_json,
    link_or_copy,
    sha256_hex,
    write_atomic,
    write_json,
)

FAILURES: list[type[BaseException]] = [ValueError, KeyboardInterrupt, SystemExit]


def test_atomic_file_shows_the_final_name_only_when_done(tmp_path: Path) -> None:
    final = tmp_path / "new" / "file"
    with atomic_file(final) as stream:
        stream.write(b"half")
        assert not final.exists()
        (temporary,) = final.parent.iterdir()
        assert temporary.name.startswith(TEMPORARY_PREFIX)
    assert final.read_bytes() == b"half"
    assert list(final.parent.iterdir()) == [final]


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("before", [None, b"old"])
def test_atomic_file_leaves_all_as_it_was_on_failure(
    tmp_path: Path, failure: type[BaseException], before: bytes | None
) -> None:
    final = tmp_path / "file"
    if before is not None:
        final.write_bytes(before)

    def work() -> None:
        with atomic_file(final) as stream:
            stream.write(b"half")
            raise failure

    with pytest.raises(failure):
        work()
    assert [item.read_bytes() for item in tmp_path.iterdir()] == ([before] if before else [])


def killed_while_writing(final: Path, before_its_end: str = "os._exit(9)") -> None:
    code = f"""
import os, sys
from pathlib import Path
from vocprep.files.writing import atomic_file
with atomic_file(Path(sys.argv[1])) as stream:
    stream.write(b"much longer than what comes after")
    stream.flush()
    {before_its_end}
"""
    subprocess.run([sys.executable, "-c", code, str(final)], check=False)


def test_what_a_killed_process_left_of_a_file_is_gone_when_it_is_written(tmp_path: Path) -> None:
    final = tmp_path / "file"
    killed_while_writing(final)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(TEMPORARY_PREFIX)
    write_atomic(final, b"new")
    assert final.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [final]


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    final = tmp_path / "file"
    with atomic_file(final) as first:
        first.write(b"first" * 1000)
        first.flush()
        write_atomic(final, b"second")
        assert final.read_bytes() == b"second"
    assert final.read_bytes() == b"first" * 1000
    assert list(tmp_path.iterdir()) == [final]


def test_file_that_gets_its_name_meanwhile_is_not_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the temporary file and locking it; a third process has begun a new one."""
    final = tmp_path / "file"
    first = ExitStack()
    first.enter_context(atomic_file(final)).write(b"first")
    (temporary,) = tmp_path.iterdir()

    def late(descriptor: int) -> bool | None:
        first.close()
        temporary.write_bytes(b"third")
        return try_lock(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr("vocprep.files.writing.try_lock", late)
        with atomic_file(final) as second:
            assert final.read_bytes() == b"first"
            second.write(b"second")
    assert final.read_bytes() == b"second"
    assert temporary.read_bytes() == b"third"


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_other_things_under_the_temporary_name_are_left_alone(kind: str, tmp_path: Path) -> None:
    final, precious = tmp_path / "file", tmp_path / "precious"
    precious.write_bytes(b"kept")
    killed_while_writing(final)
    (left,) = tmp_path.glob(f"{TEMPORARY_PREFIX}*")
    left.unlink()
    make = {"link": lambda: left.symlink_to(precious), "folder": left.mkdir}
    make.get(kind, lambda: os.mkfifo(left))()
    write_atomic(final, b"new")
    assert final.read_bytes() == b"new"
    assert precious.read_bytes() == b"kept"
    assert {item.name for item in tmp_path.iterdir()} == {"file", "precious", left.name}


def test_file_is_written_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    write_atomic(tmp_path / "file", b"new")
    assert [item.read_bytes() for item in tmp_path.iterdir()] == [b"new"]


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a socket", "a link to nothing, where"])
def test_what_is_no_file_is_not_replaced(kind: str, tmp_path: Path) -> None:
    final = tmp_path / "final"
    with socket.socket(socket.AF_UNIX) as listener:
        make = {"a folder": final.mkdir, "a pipe": lambda: os.mkfifo(final)}
        make["a socket"] = lambda: listener.bind(str(final))
        make.get(kind, lambda: final.symlink_to("nothing"))()
        before = final.lstat()
        with pytest.raises(OSError, match=kind) as caught:
            write_atomic(final, b"new")
    assert caught.value.filename == str(final)
    assert os.path.samestat(before, final.lstat())
    assert list(tmp_path.iterdir()) == [final]


def test_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("there/file")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert [path.read_bytes() for path in (tmp_path / "there").iterdir()] == [b"new"]


def test_longest_possible_name_can_be_written(tmp_path: Path) -> None:
    write_atomic(tmp_path / ("n" * 255), b"data")
    with pytest.raises(OSError, match="File name too long") as caught:
        write_atomic(tmp_path / ("n" * 256), b"data")
    assert caught.value.filename == str(tmp_path / ("n" * 256))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failing_sync_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "file"
    final.write_bytes(b"old")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_atomic(final, b"new")
    assert [item.read_bytes() for item in tmp_path.iterdir()] == [b"old"]


def test_the_data_is_synced_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    final = tmp_path / "file"
    monkeypatch.setattr(writing.os, "fsync", lambda _: seen.append(final.exists()))
    write_atomic(final, b"data")
    assert seen == [False, True]  # the file before its rename, the folder after it


def test_write_atomic_replaces_whole_files(tmp_path: Path) -> None:
    final = tmp_path / "file"
    write_atomic(final, b"a long text")
    write_atomic(final, b"short")
    assert final.read_bytes() == b"short"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [-float("inf")]}])
def test_numbers_that_json_lacks_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(value)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file", value)
    assert not list(tmp_path.iterdir())


def test_canonical_json_is_one_text() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": {"é": True}}) == (
        b'{"a":{"\\u00e9":true},"b":[1,2.5,null]}'
    )
    assert canonical_json({"x": 1, "y": 2}) == canonical_json({"y": 2, "x": 1})


@given(json_values)
def test_canonical_json_can_be_read_back(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


def test_write_json_keeps_the_order_of_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"b": 1, "a": [2]})
    text = (tmp_path / "file").read_text()
    assert text == '{\n  "b": 1,\n  "a": [\n    2\n  ]\n}\n'


def test_sha256_of_bytes() -> None:
    data = bytes(range(256)) * 9000
    assert sha256_hex(data) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("held", [None, b"old", "linked"])
def test_a_second_name_replaces_what_had_it(held: bytes | str | None, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    if held == "linked":
        target.hardlink_to(source)
    elif held is not None:
        target.write_bytes(held)
    assert link_or_copy(source, target) == "linked"
    assert target.samefile(source)
    assert {path.name for path in tmp_path.iterdir()} == {"source", "target"}
