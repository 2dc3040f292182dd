"""Reading: bounded in size and nesting, and never waiting for a pipe."""

from __future__ import annotations

import json
import os
import socket
import tracemalloc
from pathlib import Path

import pytest
from builders.json_values import json_values
from hypothesis import given

from vocprep.files.reading import parse_json, parse_toml, read_file, read_json, read_toml


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
