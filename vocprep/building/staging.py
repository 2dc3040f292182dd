"""The staging folder: shards that are finished while their dataset version is not.

It lies inside the output folder and outlives the process that fills it. Beside each shard stands
what the index will say of it, under a digest of its own, so that the next build can go on from
there; ``build.json`` says which build it is.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vocprep.building.finish import FinishedShard
from vocprep.building.plan import BuildPlan
from vocprep.files import TEMPORARY_PREFIX, canonical_json, sha256_hex, write_atomic

STAGING = f"{TEMPORARY_PREFIX}build"
_KEY_FILE = "build.json"
_ABOUT = ".about"


@dataclass(frozen=True, kw_only=True)
class BuildKey:
    """All that decides a build's bytes, beside its source files."""

    plan: BuildPlan
    numerics_class: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, which ``differing_fields`` compares.

        The ids of the splits are left out: a shard knows its own.
        """
        recipe = self.plan.recipe.to_json()
        del recipe["splits"]
        return {
            **recipe,
            "container": self.plan.layout.format,
            "samples_per_shard": self.plan.layout.samples_per_shard,
            "numerics_class": self.numerics_class,
            "versions": versions(),
        }


def versions() -> dict[str, str]:
    """Return the versions of what makes the bytes."""
    packages = ("vocprep", "numpy", "torch", "pillow", "simplejpeg", "h5py")
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


class Staging:
    """The staging folder of an output folder, which need not exist yet."""

    def __init__(self, out: Path) -> None:
        self.path = out / STAGING

    def read_key(self) -> dict[str, Any] | None:
        """Return what the shards in it are of; None when there are none of use."""
        key = _unsealed(self.path / _KEY_FILE)
        return None if key is None else dict(json.loads(key))

    def begin(self, key: BuildKey) -> None:
        """Make it ready for a build; what it holds of another one is taken away."""
        if self.read_key() != key.to_json():
            self.remove()
        self.path.mkdir(exist_ok=True)
        _write_sealed(self.path / _KEY_FILE, canonical_json(key.to_json()))
        for path in self.path.glob(f"{TEMPORARY_PREFIX}*"):
            path.unlink()

    def add(self, name: str, data: bytes, shard: FinishedShard) -> None:
        """Keep a finished shard; it counts from the moment its description is there."""
        if shard.entry is not None:
            write_atomic(self.path / name, data)
        self.describe(name, shard)

    def describe(self, name: str, shard: FinishedShard) -> None:
        """Write what the index will say of a shard that is in the folder."""
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
        """Take the folder away unless the next build can use something in it."""
        if not any(self.shards()):
            self.remove()

    def remove(self) -> None:
        """Take the folder away with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def _write_sealed(path: Path, data: bytes) -> None:
    """Write bytes behind their digest, on a line of its own."""
    write_atomic(path, sha256_hex(data).encode() + b"\n" + data)


def _unsealed(path: Path) -> bytes | None:
    """Return what ``_write_sealed`` wrote; None when it is not there or was altered."""
    try:
        digest, _, data = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return data if sha256_hex(data).encode() == digest else None
