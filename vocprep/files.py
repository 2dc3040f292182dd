"""Bytes on disk: hashing, canonical JSON, plain names, atomic publishing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEMPORARY_PREFIX = ".tmp-"
"""Prefix of unfinished work, which whoever holds the folder's file lock may delete."""
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
        temporary.unlink(missing_ok=True)
        if error.filename in (None, str(temporary)):  # the name that the user knows
            raise OSError(error.errno, error.strerror, str(final)) from error
        raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(final.parent)


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
    _sync_folder(final.parent)


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


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; some filesystems refuse to open folders, which is no failure."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
