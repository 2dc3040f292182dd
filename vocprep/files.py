"""Bytes on disk: hashing, canonical JSON, plain names, atomic publishing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from vocprep.errors import UsageError

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


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``final``; on success fsync it and rename it into place.

    On any exception the temporary file is deleted and ``final`` stays as it was.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{final.name}")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(final)
    except OSError as error:
        remove_path(temporary)
        if error.filename in (None, str(temporary)):  # a user has seen only the final name
            raise OSError(error.errno, error.strerror, str(final)) from error
        raise
    except BaseException:
        remove_path(temporary)
        raise
    sync_folder(final.parent)


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``final``; on success it replaces ``final``.

    On any exception the temporary folder is deleted and ``final`` stays as it was.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{final.name}")
    temporary.mkdir()
    try:
        yield temporary
        if final.exists():
            discarded = final.with_name(f"{temporary.name}-old")
            final.replace(discarded)
            try:
                temporary.replace(final)
            except BaseException:
                discarded.replace(final)
                raise
            shutil.rmtree(discarded)
        else:
            temporary.replace(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(final.parent)


def write_atomic(final: Path, data: bytes) -> None:
    """Write a whole file so that its final name never holds anything but all of ``data``."""
    with atomic_path(final) as temporary:
        temporary.write_bytes(data)


def write_json(final: Path, value: Any) -> None:
    """Write a JSON file for people and programs: indented, keys in the given order, atomic."""
    write_atomic(final, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return the bytes of a JSON file for people and programs."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def check_output_folder(out: Path) -> None:
    """Raise UsageError, before there is work to lose, where no folder can be made.

    >>> check_output_folder(Path(__file__) / "below")
    Traceback (most recent call last):
    ...
    vocprep.errors.UsageError: out ...: expected a folder, found the file ...; choose another
    """
    found = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not found.is_dir():
        raise UsageError(f"out {out}: expected a folder, found the file {found}; choose another")


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
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
        return "copied"


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
