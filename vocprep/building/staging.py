"""The staging folder: shards that are finished while their dataset version is not.

It lies inside the output folder and outlives the process that fills it. Beside each shard is its
part of the index, under a digest of its own, so that the next build can continue from there;
``build.json`` holds the key of the build.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vocprep.building.finish import FinishedShard
from vocprep.building.plan import BuildKey
from vocprep.files import (
    TEMPORARY_PREFIX,
    canonical_json,
    remove_path,
    sha256_hex,
    write_atomic,
)

STAGING = f"{TEMPORARY_PREFIX}build"
_KEY_FILE = "build.json"
_ABOUT = ".about"


class Staging:
    """The staging folder of an output folder, which need not exist yet."""

    def __init__(self, out: Path) -> None:
        self.path = out / STAGING

    def read_key(self) -> dict[str, Any] | None:
        """Return the key of the build whose shards it holds; None when there are none of use."""
        key = _unsealed(self.path / _KEY_FILE)
        return None if key is None else dict(json.loads(key))

    def begin(self, key: BuildKey) -> None:
        """Make it ready for a build: shards of another build are deleted."""
        if self.read_key() != key.to_json():
            self.remove()
        self.path.mkdir(exist_ok=True)
        _write_sealed(self.path / _KEY_FILE, canonical_json(key.to_json()))
        for path in self.path.glob(f"{TEMPORARY_PREFIX}*"):
            remove_path(path)

    def add(self, name: str, data: bytes, shard: FinishedShard) -> None:
        """Keep a finished shard; it counts from the moment its description is there."""
        if shard.entry is not None:
            write_atomic(self.path / name, data)
        self.describe(name, shard)

    def describe(self, name: str, shard: FinishedShard) -> None:
        """Write the description of a shard that is in the folder: its part of the index."""
        about = canonical_json(shard.model_dump(mode="json"))
        _write_sealed(self.path / f"{name}{_ABOUT}", about)

    def shards(self) -> Iterator[tuple[str, FinishedShard]]:
        """Yield the shards whose description is whole, with the names they were given."""
        for path in sorted(self.path.glob(f"*{_ABOUT}")):
            about = _unsealed(path)
            if about is not None:
                try:
                    yield path.name.removesuffix(_ABOUT), FinishedShard.model_validate_json(about)
                except ValidationError:  # by another version of vocprep
                    continue

    def remove_if_empty(self) -> None:
        """Delete the folder unless the next build can use something in it."""
        if not any(self.shards()):
            self.remove()

    def remove(self) -> None:
        """Delete the folder with all that is in it."""
        with suppress(OSError):  # what cannot be deleted is overwritten or ignored later
            remove_path(self.path)


def _write_sealed(path: Path, data: bytes) -> None:
    """Write bytes after a line that holds their digest."""
    write_atomic(path, sha256_hex(data).encode() + b"\n" + data)


def _unsealed(path: Path) -> bytes | None:
    """Return what ``_write_sealed`` wrote; None when it is not there or was altered."""
    try:
        digest, _, data = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return data if sha256_hex(data).encode() == digest else None
