"""Bytes on disk: nothing half-written is ever seen, JSON has one text, manifests are found."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import tracemalloc
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocprep import files, manifests
from vocprep.errors import ManifestError, UsageError
from vocprep.files import (
    TEMPORARY_PREFIX,
    atomic_file,
    canonical_json,
    parse_json,
    parse_toml,
    read_file,
    read_json,
    read_toml,
    sha256_hex,
    write_atomic,
    write_json,
)
from vocprep.locking import try_lock
from vocprep.manifests import find_manifest, manifest_names, manifests_dir

FAILURES: list[type[BaseException]] = [ValueError, KeyboardInterrupt, SystemExit]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


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
from vocprep.files import atomic_file
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
        patched.setattr("vocprep.files.try_lock", late)
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

    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_atomic(final, b"new")
    assert [item.read_bytes() for item in tmp_path.iterdir()] == [b"old"]


def test_the_data_is_synced_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    final = tmp_path / "file"
    monkeypatch.setattr(files.os, "fsync", lambda _: seen.append(final.exists()))
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


def test_manifests_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    assert find_manifest("datasets", "voc2012") == manifests_dir() / "datasets" / "voc2012.toml"
    own = tmp_path / "own.toml"
    own.touch()
    assert find_manifest("datasets", str(own)) == own
    assert manifest_names("labels") == ["context33", "context460", "context59", "voc21"]


@pytest.mark.parametrize("name", ["voc1999", "../datasets/voc2012", ""])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match=r"dataset .* is not known: .*voc2007.*voc2012"):
        find_manifest("datasets", name)


def test_a_path_without_its_suffix_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").touch()
    with pytest.raises(UsageError, match=r"'mine' is not a shipped one; .* write mine\.toml"):
        find_manifest("datasets", "mine")


def test_a_path_without_a_file_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"nowhere/own\.toml: no such manifest file"):
        find_manifest("datasets", "nowhere/own.toml")


def test_an_installation_without_manifests_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "__file__", str(tmp_path / "vocprep" / "manifests.py"))
    with pytest.raises(ManifestError, match="installation is incomplete"):
        manifests_dir()


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody writes into it: a plain open would wait for ever
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path in (*(tmp_path / name for name in ("pipe", "folder", "socket")), Path(os.devnull)):
            with pytest.raises(OSError, match=str(path)):
                read_file(path, 1000)


def test_size_is_checked_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as stream:
        stream.truncate(5 << 30)
    with pytest.raises(OSError, match="5,368,709,120 bytes, where at most 1,000 are expected"):
        read_file(path, 1000)
    path.write_bytes(b"x" * 1000)
    assert read_file(path, 1000) == b"x" * 1000
    with pytest.raises(OSError, match="1,000 bytes, where at most 999"):
        read_file(path, 999)


def test_reading_takes_the_memory_of_the_file_not_of_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        assert len(read_file(path, 1 << 28)) == 1000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_files_without_a_size_are_bounded_by_what_is_read() -> None:
    with pytest.raises(OSError, match="where at most 10 are expected"):
        read_file(Path("/proc/cpuinfo"), 10)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 10_000,
        "NaN",
        "-Infinity",
        '{"a": 1e',
        '"\\ud800"',
        "9" * 5_000,
        "",
        "\ufeff{}",
    ],
    ids=lambda text: text[:10],
)
def test_json_is_bounded_and_strict(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not JSON: "):
        parse_json(text)


@given(json_values)
def test_json_is_read_as_the_standard_library_reads_it(value: object) -> None:
    text = json.dumps(value)
    assert parse_json(text) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 50_000, "a = " + "[" * 200 + "]" * 200, ".".join("a" * 1_000) + " = 1"],
    ids=["unclosed", "lists", "dotted key"],
)
def test_deeply_nested_toml_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="nested more than 100 levels deep"):
        parse_toml(text)


def test_nested_toml_of_a_usual_depth_is_read() -> None:
    assert parse_toml("a = [[1], {b.c = [2]}]") == {"a": [[1], {"b": {"c": [2]}}]}


def test_byte_order_mark_of_toml_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes("\ufefftitle = 'x'".encode())
    assert read_toml(path) == {"title": "x"}
    path.write_bytes("title = 'é'".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8 text: byte 0xe9 at offset 9"):
        read_toml(path)


def test_large_json_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1, 2]")
    assert read_json(path) == [1, 2]
    with pytest.raises(OSError, match="6 bytes, where at most 5"):
        read_json(path, 5)
