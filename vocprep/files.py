"""Bytes on disk: reading within bounds, hashing, canonical JSON, plain names, atomic publishing.

Files that come from outside are read with ``read_file``, ``open_regular``, ``read_json``,
``read_toml`` and ``read_text_lines`` only: they never wait for a pipe, and bound size, nesting and
lines. What is wrong with a file is an OSError or a ValueError, whose words for a user
``vocprep.validation.explain`` returns.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic_core import from_json

from vocprep.errors import UsageError
from vocprep.locking import try_lock

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

_COPY_BYTES = 1 << 20

TEMPORARY_PREFIX = ".tmp-"
"""Prefix of unfinished work, which the holder of the folder's file lock may delete."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_plain_name(name: str) -> bool:
    """Return whether an image id or a split name is safe in file names of every container."""
    return _PLAIN_NAME.fullmatch(name) is not None


def canonical_json(value: Any) -> bytes:
    """Serialise to the one JSON text that identities are computed over.

    Keys sorted, no spaces, ASCII only; NaN and infinities are refused.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode("ascii")


def sha256_hex(data: bytes | memoryview) -> str:
    """Return the sha256 of bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; OSError for what is none, without waiting for a pipe.

    >>> open_regular(Path("/dev/zero"))
    Traceback (most recent call last):
    ...
    OSError: [Errno 22] a character device, no regular file: '/dev/zero'
    """
    # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise _not_regular(mode, path)
    return os.fdopen(descriptor, "rb")


def _not_regular(mode: int, path: Path) -> OSError:
    kind = _FILE_KINDS.get(stat.S_IFMT(mode), "a special file")
    return OSError(errno.EINVAL, f"{kind}, no regular file", str(path))


_FILE_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


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
    """Return the lines of a text file without their ends (LF, CR LF or CR).

    OSError when it is not read, ValueError when it is no UTF-8 text, or has more lines or longer
    ones than ``MAX_LINES`` and ``MAX_LINE``. A byte order mark is read over.
    """
    text = decode_text(read_file(path, MAX_TEXT_BYTES))
    text = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    if (count := text.count("\n") + 1) > MAX_LINES:
        raise ValueError(f"{count:,} lines, where at most {MAX_LINES:,} are expected")
    lines = text.split("\n") if text else []
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LINE:
            raise ValueError(
                f"line {number} has {len(line):,} characters, where at most {MAX_LINE:,} are "
                "expected"
            )
    return lines


_unfinished: set[Path] = set()
"""Temporary files that this process may have left, in any thread."""


def remove_unfinished() -> None:
    """Remove the temporary files of this process, which must end then."""
    for path in list(_unfinished):
        with suppress(OSError):
            path.unlink()


@contextmanager
def atomic_file(final: Path) -> Iterator[BinaryIO]:
    """Yield a file to write beside ``final``; on success fsync it and rename it into place.

    On any exception it is deleted and ``final`` stays as it was. What a killed process left of
    ``final`` is used again: nothing of it remains once the file is written. A link to a file stays
    one. OSError where ``final`` is a folder, a device or a pipe, or a link to no file.
    """
    final = _regular_target(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary, stream = _open_temporary(final)
        with stream:
            try:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                temporary.replace(final)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            finally:
                _unfinished.discard(temporary)
    except OSError as error:
        if error.filename is None or Path(error.filename).name.startswith(TEMPORARY_PREFIX):
            # A user has seen only the final name.
            raise OSError(error.errno, error.strerror, str(final)) from error
        raise
    sync_folder(final.parent)


def _regular_target(final: Path) -> Path:
    """Return where a file is to be written: nothing but a file may lose its name to it."""
    try:
        mode = final.stat().st_mode
    except FileNotFoundError:
        if final.is_symlink():
            text = f"a link to {final.readlink()}, where nothing is"
            raise OSError(errno.ENOENT, text, str(final)) from None
        return final
    if not stat.S_ISREG(mode):
        raise _not_regular(mode, final)
    return final.resolve() if final.is_symlink() else final


def _open_temporary(final: Path) -> tuple[Path, BinaryIO]:
    """Open an empty temporary file that no other process writes, and return its path with it.

    Its name follows from the final one and its lock is held, so that the next process knows what a
    killed one left. While another process writes the same file, or where there are no locks, it
    has a name of its own.
    """
    usual = final.with_name(f"{TEMPORARY_PREFIX}{sha256_hex(os.fsencode(final.name))[:16]}")
    stream = _open_if_free(usual)
    if stream is not None:
        _unfinished.add(usual)
        return usual, stream
    other = final.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    _unfinished.add(other)
    return other, other.open("xb")


def _open_if_free(path: Path) -> BinaryIO | None:
    """Open a temporary file, lock and empty it; None where another process may use it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        stream = os.fdopen(os.open(path, flags, 0o666), "w+b")
    except OSError:  # such as a file of another user, or a link
        return None
    if not _is_free(stream.fileno(), path):
        stream.close()
        return None
    try:
        stream.truncate(0)
    except OSError:
        path.unlink(missing_ok=True)
        stream.close()
        return None
    return stream


def _is_free(descriptor: int, path: Path) -> bool:
    """Lock an open temporary file; return whether it is held and still has this name."""
    try:
        held = try_lock(descriptor)
        if held is None:  # no locks here, so that nobody uses this name for more than a moment
            path.unlink(missing_ok=True)
        if not held:
            return False
        named = path.lstat()
    except OSError:  # another process has given it its final name, or the disk is broken
        return False
    facts = os.fstat(descriptor)
    return os.path.samestat(facts, named) and stat.S_ISREG(facts.st_mode)


def write_atomic(final: Path, data: bytes) -> None:
    """Write a whole file so that its final name never holds anything but all of ``data``."""
    with atomic_file(final) as stream:
        stream.write(data)


def write_json(final: Path, value: Any) -> None:
    """Write a JSON file for people and programs: indented, keys in the given order, atomic."""
    write_atomic(final, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return the bytes of a JSON file for people and programs."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def disk_advice(error: OSError) -> str:
    """Return what a user can do about a file or folder that cannot be written.

    >>> disk_advice(OSError(errno.ENOSPC, "No space left on device"))
    'make room'
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "make it writable"
    if error.errno in (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
        return "free the name"
    return "check the disk"


def check_output_folder(out: Path, what: str = "out") -> None:
    """Raise UsageError, before there is work to lose, where no folder can be made.

    ``what`` is the folder in words.

    >>> check_output_folder(Path(__file__) / "below")
    Traceback (most recent call last):
    ...
    vocprep.errors.UsageError: out ...: expected a folder, found the file ...; choose another
    """
    for path in (out, *out.absolute().parents):
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            if path.is_symlink():
                raise UsageError(
                    f"{what} {out}: {path} is a link to {path.readlink()}, where nothing is; make "
                    "that folder or mount it, or choose another"
                ) from error
            continue
        except OSError as error:
            raise UsageError(
                f"{what} {out}: {path} cannot be used: {error.strerror}; choose another"
            ) from error
        if not stat.S_ISDIR(found.st_mode):
            raise UsageError(
                f"{what} {out}: expected a folder, found the file {path}; choose another"
            )
        return


def check_names_differ(paths: Sequence[Path], names: Sequence[str], what: str) -> None:
    """Raise UsageError where two paths share a name: one's output would replace the other's.

    >>> check_names_differ([Path("a/x"), Path("b/x")], ["x", "x"], "predictions")
    Traceback (most recent call last):
    ...
    vocprep.errors.UsageError: a/x and b/x: expected different names, since predictions are named \
after them, found 'x' twice; rename one, or use different output folders
    """
    first_with: dict[str, Path] = {}
    for path, name in zip(paths, names, strict=True):
        if name in first_with:
            raise UsageError(
                f"{first_with[name]} and {path}: expected different names, since {what} are named "
                f"after them, found {name!r} twice; rename one, or use different output folders"
            )
        first_with[name] = path


def remove_path(path: Path) -> None:
    """Delete a file, a link, or a folder with all that is in it, if there is one.

    Temporary names (``TEMPORARY_PREFIX``) may be files as well as folders.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> Literal["linked", "copied"]:
    """Give a file a second name, or copy it where the filesystem or its owner forbids that."""
    try:
        os.link(source, target)
        return "linked"
    except OSError:
        copy_file(source, target)
        return "copied"


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes, so that ``target`` is all of them or what it was before."""
    with source.open("rb") as stream, atomic_file(target) as out:
        shutil.copyfileobj(stream, out, _COPY_BYTES)


def sync_folder(folder: Path) -> None:
    """Make a rename durable; some filesystems refuse to open folders, which is no failure."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
