"""Reading files from outside: never waiting for a pipe, within bounds of size and nesting.

What is wrong with a file is an OSError or a ValueError, whose words for a user
``vocprep.validation.explain`` returns.
"""

from __future__ import annotations

import errno
import os
import stat
import tomllib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from pydantic_core import from_json

MAX_JSON_BYTES = 256 << 20
"""Of one JSON file: the index of a version of 100,000 shards has 20 MB."""
MAX_TOML_BYTES = 4 << 20
"""Of one TOML file: the largest label space that is shipped has 20 kB."""
MAX_TEXT_BYTES = 64 << 20
"""Of one text file that is read by line: a million of the longest image ids."""
MAX_LINES = 4_000_000
MAX_LINE = 1000
"""Characters of one line."""
_MAX_DEPTH = 100
"""Nesting of TOML values; pydantic_core bounds that of JSON itself, by 200."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; OSError for what is none, without waiting for a pipe.

    >>> open_regular(Path("/dev/zero"))
    Traceback (most recent call last):
    ...
    OSError: [Errno 22] a character device, no regular file: '/dev/zero'
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if not path.is_symlink():
            raise
        raise _dead_link(path) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise not_regular(mode, path)
    return os.fdopen(descriptor, "rb")


def _dead_link(path: Path) -> FileNotFoundError:
    words = f"a link to {path.readlink()}, where nothing is"
    return FileNotFoundError(errno.ENOENT, words, str(path))


def not_regular(mode: int, path: Path) -> OSError:
    """Return the error of a path whose mode is not that of a regular file."""
    kind = _FILE_KINDS.get(stat.S_IFMT(mode), "a special file")
    return OSError(errno.EINVAL, f"{kind}, no regular file", str(path))


_FOLDER = "a folder, no regular file"
_FILE_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


def system_reason(error: OSError) -> str:
    """Return why a file is not read in the system's own words, as files of reasons keep them."""
    if isinstance(error, FileNotFoundError):
        return os.strerror(errno.ENOENT)
    reason = error.strerror or str(error)
    return os.strerror(errno.EISDIR) if reason == _FOLDER else reason


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a regular file; OSError for what is none or is larger than ``max_bytes``.

    The size is checked before anything is read, and again by what was read.
    """
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        # A read allocates what it may return, so that the bound itself is never read up to.
        data = stream.read(size + 1) if size <= max_bytes else b""
        if len(data) > size:  # a file that grows, or one whose size the system does not tell
            data += stream.read(max_bytes - size)
    if max(size, len(data)) > max_bytes:
        raise OSError(
            errno.EFBIG, f"{size:,} bytes, where at most {max_bytes:,} are expected", str(path)
        )
    return data


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the values of a JSON file; OSError when it is not read, ValueError when it is not one.

    NaN, infinities, lone surrogates and nesting of more than 200 levels are refused.
    """
    return parse_json(read_file(path, max_bytes))


def parse_json(data: bytes | str) -> Any:
    """Return the values of a JSON text; ValueError as for ``read_json``.

    >>> parse_json("[" * 1000)
    Traceback (most recent call last):
    ...
    ValueError: not JSON: recursion limit exceeded at line 1 column 202
    """
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error


def read_toml(path: Path, max_bytes: int = MAX_TOML_BYTES) -> dict[str, Any]:
    """Return the table of a TOML file; OSError when it is not read, ValueError when it is not one.

    A byte order mark is read over.
    """
    return parse_toml(decode_text(read_file(path, max_bytes)))


def parse_toml(text: str) -> dict[str, Any]:
    """Return the table of a TOML text; ValueError when it is none or is nested too deeply."""
    try:
        table = tomllib.loads(text)
    except ValueError as error:  # tomllib's own, and Python's for numbers of 5,000 digits
        raise ValueError(f"not TOML: {str(error).partition(';')[0]}") from error
    except RecursionError:
        table = None
    if table is None or _depth(table) > _MAX_DEPTH:
        raise ValueError(f"not TOML that can be read: nested more than {_MAX_DEPTH} levels deep")
    return table


def _depth(value: Any) -> int:
    """Return how deeply tables and lists are nested."""
    depth, level = 0, [value]
    while level := [inner for outer in level for inner in _items(outer)]:
        depth += 1
    return depth


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def decode_text(data: bytes) -> str:
    """Return the text of a UTF-8 file without its byte order mark; ValueError for anything else.

    >>> decode_text("2008_000002".encode("utf-16"))
    Traceback (most recent call last):
    ...
    ValueError: UTF-16 text, where UTF-8 is expected; save it as UTF-8
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("UTF-16 text, where UTF-8 is expected; save it as UTF-8")
    if b"\0" in data:
        raise ValueError(
            "UTF-16 text or no text at all, since it holds NUL bytes, where UTF-8 text is "
            "expected; save it as UTF-8"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"not UTF-8 text: byte {error.object[error.start]:#04x} at offset {error.start:,}; "
            "save it as UTF-8"
        ) from error


def read_text_lines(path: Path) -> list[str]:
    """Return the lines of a text file without their ends; errors are those of ``text_lines``."""
    return list(text_lines(path))


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file; OSError when it is not read, else as ``lines_of``."""
    return lines_of(read_file(path, MAX_TEXT_BYTES))


def lines_of(data: bytes) -> Iterator[str]:
    """Yield the lines of a text file's bytes without their ends (LF, CR LF or CR).

    ValueError when it is no UTF-8 text, or has more lines or longer ones than ``MAX_LINES`` and
    ``MAX_LINE``. A byte order mark is read over.
    """
    text = decode_text(data)
    text = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    if (count := text.count("\n") + 1) > MAX_LINES:
        raise ValueError(f"{count:,} lines, where at most {MAX_LINES:,} are expected")
    start = 0
    for number in range(1, count + 1) if text else ():
        end = text.find("\n", start)
        line = text[start:] if end < 0 else text[start:end]
        if len(line) > MAX_LINE:
            raise ValueError(
                f"line {number} has {len(line):,} characters, where at most {MAX_LINE:,} are "
                "expected"
            )
        yield line
        start = end + 1
