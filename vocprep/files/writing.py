"""Writing files: canonical JSON and digests, whole files under final names, links, copies."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

from vocprep.errors import UsageError
from vocprep.files.locking import try_lock
from vocprep.files.names import TEMPORARY_PREFIX, UNFINISHED, VERSION, found_at
from vocprep.files.reading import not_regular

_COPY_BYTES = 1 << 20


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
        raise not_regular(mode, final)
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


class DigestedFile:
    """A file that is digested while it is written."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.bytes = 0
        """Written so far."""
        self._stream = stream
        self._digest = hashlib.sha256()

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Yield a file that gets its name as that of ``atomic_file`` does."""
        with atomic_file(path) as stream:
            yield cls(path, stream)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._stream.write(data)
        self._digest.update(data)
        self.bytes += len(data)

    @property
    def sha256(self) -> str:
        """Digest of what was written so far, as 64 hex digits."""
        return self._digest.hexdigest()


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


def check_output_file(out: Path, what: str = "--out") -> None:
    """Raise UsageError, before there is work to lose, where no file of a user's own can be made.

    Within a dataset version there is no place for one: ``verify`` tells of files that it does not
    list. ``what`` is the file in words.
    """
    if out.is_dir():
        raise UsageError(f"{what} {out}: expected a file, found a folder; give another name")
    check_output_folder(out.parent, what)
    refuse_in_version(out, what)


def refuse_in_version(out: Path, what: str = "--out") -> None:
    """Raise UsageError where a file or folder that is to be made would lie in a dataset version."""
    above = next((path for path in out.parents if path.is_dir()), Path())
    if (found := found_at(above)) in (VERSION, UNFINISHED):
        raise UsageError(
            f"{what} {out}: expected a folder for files of one's own, found {found}; choose another"
        )


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


def remove_path(path: Path) -> None:
    """Delete a file, a link, or a folder with all that is in it, if there is one.

    Temporary names (``TEMPORARY_PREFIX``) may be files as well as folders.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> Literal["linked", "copied"]:
    """Give a file a second name, or copy it where the filesystem or its owner forbids that.

    Whatever had the name is replaced, and there is no moment without a file of it.
    """
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    try:
        os.link(source, temporary)
        try:
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)  # it stays where it is the target already
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
