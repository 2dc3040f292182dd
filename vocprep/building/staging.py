"""The staging folder: shards that are finished while their dataset version is not.

It lies inside the output folder and outlives the process that fills it. Beside each shard is its
part of the index, under a digest of its own, so that the next build can continue from there;
``build.json`` holds the key of the build. Each shard's part names that key by its digest, so that
no shard is taken over which a process of another build put there.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from vocprep.building.finish import FinishedShard
from vocprep.building.plan import BuildKey
from vocprep.errors import ShardError, UsageError
from vocprep.files.names import TEMPORARY_PREFIX
from vocprep.files.reading import MAX_JSON_BYTES, parse_json, read_file
from vocprep.files.writing import canonical_json, remove_path, sha256_hex, write_atomic
from vocprep.shards.index import ShardEntry
from vocprep.shards.version import is_unchanged
from vocprep.validation import from_json

STAGING = f"{TEMPORARY_PREFIX}build"
_KEY_FILE = "build.json"
_ABOUT = ".about"
_FORMAT_FIELD, _FORMAT = "staging_format_version", 2
"""Format 1 has neither this field nor the build's digest in each shard's part."""


class Staging:
    """The staging folder of an output folder, which need not exist yet."""

    def __init__(self, out: Path) -> None:
        self.path = out / STAGING
        self._build = ""
        """Digest of the key of the build that it was made ready for."""
        self._files: dict[str, tuple[int, ...]] = {}
        """By name of a shard: what its file was when this process staged it."""

    def read_key(self) -> dict[str, Any] | None:
        """Return the key of the build whose shards it holds; None when there are none of use."""
        key = self._read_key_file()
        if key is not None and _FORMAT_FIELD in key:
            key = key.get("key")
        return key if isinstance(key, dict) else None

    def begin(self, key: BuildKey) -> None:
        """Make it ready for a build: shards of another build are deleted."""
        expected = key.to_json()
        self._build = key.digest
        if self.read_key() != expected:
            self.remove()
        self.path.mkdir(exist_ok=True)
        for path in list(self.path.iterdir()):
            is_unfinished = path.name.startswith(TEMPORARY_PREFIX)
            if is_unfinished or not stat.S_ISREG(path.lstat().st_mode):  # a link, a folder, a pipe
                remove_path(path)
        if self._is_unkeyed():
            self._add_keys()
        value = {_FORMAT_FIELD: _FORMAT, "key": expected}
        _write_sealed(self.path / _KEY_FILE, canonical_json(value))

    def join(self, build: str) -> None:
        """Let another process of a build, given by its key's digest, stage shards here.

        UsageError when the folder is of another build, or of none any more.
        """
        key = self.read_key()
        if key is None:
            self.remove()  # what was staged after its build had ended
        found = None if key is None else sha256_hex(canonical_json(key))
        if found != build:
            holds = "is of no build" if found is None else f"is of another build, {found[:12]}…"
            raise UsageError(
                f"{self.path}: {holds}, and this shard of build {build[:12]}…: that build has "
                "ended or was replaced; make shards of the build that is running there"
            )
        self._build = build

    def add(self, name: str, data: bytes, shard: FinishedShard) -> None:
        """Keep a finished shard; it counts from the moment its description is there."""
        if shard.entry is not None:
            write_atomic(self.path / name, data)
        self.describe(name, shard)

    def describe(self, name: str, shard: FinishedShard) -> None:
        """Write the description of a shard that is in the folder: its part of the index."""
        value = {"build": self._build, "shard": shard.model_dump(mode="json")}
        if shard.entry is not None:
            self._files[name] = _file_facts(self.path / name)
        _write_sealed(self.path / f"{name}{_ABOUT}", canonical_json(value))

    def shards(self) -> Iterator[tuple[str, FinishedShard]]:
        """Yield this build's shards whose description is whole, with the names they were given."""
        for name, value in self._descriptions():
            try:
                if value["build"] == self._build:
                    yield name, from_json(FinishedShard, value["shard"])
            except (KeyError, TypeError, ValueError):  # by another version of vocprep
                continue

    def check(self, shards: Iterable[ShardEntry]) -> None:
        """Raise ShardError unless the shards are the files that this process staged."""
        for shard in shards:
            path = self.path / shard.name
            try:
                known = _file_facts(path) == self._files.get(shard.name)
            except OSError:
                known = False
            if not known and not is_unchanged(path, shard):
                raise ShardError(
                    f"{path}: another process has changed or removed it while this build ran; let "
                    "one build at a time write there, and run the same command again"
                )

    def remove_if_empty(self) -> None:
        """Delete the folder unless the next build can use something in it."""
        if not any(self.shards()):
            self.remove()

    def remove(self) -> None:
        """Delete the folder with all that is in it."""
        with suppress(OSError):  # what cannot be deleted is of no build, or is overwritten
            remove_path(self.path)

    def _read_key_file(self) -> dict[str, Any] | None:
        return _unsealed(self.path / _KEY_FILE)

    def _is_unkeyed(self) -> bool:
        """Return whether an earlier vocprep began it, whose shards do not name their build."""
        key = self._read_key_file()
        return key is not None and _FORMAT_FIELD not in key

    def _add_keys(self) -> None:
        """Give shards that do not name their build the one of the key file."""
        for name, value in list(self._descriptions()):
            if "build" not in value:
                about = canonical_json({"build": self._build, "shard": value})
                _write_sealed(self.path / f"{name}{_ABOUT}", about)

    def _descriptions(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the descriptions that are whole, with the names of their shards."""
        for path in sorted(self.path.glob(f"*{_ABOUT}")):
            about = _unsealed(path)
            if about is not None:
                yield path.name.removesuffix(_ABOUT), about


def _file_facts(path: Path) -> tuple[int, ...]:
    """Return what tells a file from another one of the same name."""
    facts = path.stat()
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


def _write_sealed(path: Path, data: bytes) -> None:
    """Write bytes after a line that holds their digest."""
    write_atomic(path, sha256_hex(data).encode() + b"\n" + data)


def _unsealed(path: Path) -> dict[str, Any] | None:
    """Return the object that ``_write_sealed`` wrote; None when it is not there or was altered."""
    try:
        digest, _, data = read_file(path, MAX_JSON_BYTES).partition(b"\n")
        value = parse_json(data) if sha256_hex(data).encode() == digest else None
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
