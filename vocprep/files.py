"""Bytes on disk: hashing, canonical JSON, atomic publishing, and where the manifests are."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vocprep.errors import ManifestError, UsageError

TEMPORARY_PREFIX = ".tmp-"
"""Names that start so are unfinished work and may be deleted by anybody who holds the lock."""


def manifests_dir() -> Path:
    """Return the folder of the manifests: inside an installed wheel, else beside the package."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "manifests", package.parent / "manifests"):
        if candidate.is_dir():
            return candidate
    raise ManifestError(
        f"no manifests folder in {package} or beside it: the installation is incomplete; "
        "install vocprep again"
    )


def find_manifest(kind: str, name_or_path: str) -> Path:
    """Return the TOML file of a manifest, by shipped name or by the path of one's own file.

    ``kind`` is ``sources``, ``datasets`` or ``labels``. Raises UsageError with the known names.
    """
    shipped = manifests_dir() / kind / f"{name_or_path}.toml"
    if "/" not in name_or_path and shipped.is_file():
        return shipped
    if name_or_path.endswith(".toml"):
        own = Path(name_or_path)
        if own.is_file():
            return own
        raise ManifestError(f"{own}: no such manifest file")
    known = ", ".join(manifest_names(kind))
    raise UsageError(
        f"{kind[:-1]} {name_or_path!r} is not known: expected one of {known}, or the path of a "
        ".toml file"
    )


def manifest_names(kind: str) -> list[str]:
    """Return the shipped manifest names of one kind, sorted."""
    return sorted(path.stem for path in (manifests_dir() / kind).glob("*.toml"))


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
