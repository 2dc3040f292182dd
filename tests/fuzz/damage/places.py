"""What may lie in the place of a file: nothing, a folder, a pipe, a device, a link, a huge file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

SPARSE_BYTES = 5 << 30


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "file").write_bytes(b"")


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, SPARSE_BYTES)


def _long_sparse(path: Path) -> None:
    """Give a file zeros behind what was in it."""
    path.write_bytes(b"{}")
    os.truncate(path, SPARSE_BYTES)


PLACES: dict[str, Callable[[Path], None]] = {
    "missing": lambda _: None,
    "empty": lambda path: path.write_bytes(b"") and None,
    "folder": _folder,
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "null": lambda path: path.symlink_to("/dev/null"),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
    "to folder": lambda path: path.symlink_to("."),
    "sparse": _sparse,
    "long sparse": _long_sparse,
}


def put(path: Path, place: str) -> None:
    """Put one of ``PLACES`` where a file is."""
    _remove(path)
    PLACES[place](path)


def put_bytes(path: Path, data: bytes) -> None:
    """Replace a file, which may be linked to the sound one, by others bytes."""
    _remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
