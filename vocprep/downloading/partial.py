"""An unfinished download: the first bytes of a file, hashed as they are appended.

Beside ``NAME`` stand ``NAME.part`` (the bytes) and ``NAME.part.json`` (the expected digests, the
size, and the validators of the mirrors that gave bytes). The length of ``NAME.part`` is all that a
later run needs to go on, so a killed process loses nothing that it had written.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Literal, Self

from vocprep.data_dir.digests import BLOCK_BYTES, ExpectedDigests, FileDigests, new_hasher
from vocprep.downloading.http import is_validator
from vocprep.files.reading import read_json
from vocprep.files.writing import sync_folder
from vocprep.manifests import MOST_BYTES
from vocprep.validation import NotNegative, WholeNumber, checked, from_json, to_json


@checked
class _State:
    """What the state file holds. Version 1 held ranges; its bytes are not taken over."""

    version: Annotated[Literal[2], WholeNumber] = 2
    expected: dict[str, str | int]
    size: NotNegative | None
    """Bytes of the whole file, once stated."""
    validators: dict[str, str] = field(default_factory=dict)
    """By mirror that gave bytes: the ETag or Last-Modified, empty without one."""
    boot: str
    """The start of the machine in which this was written."""


class PartFile:
    """The one writer of an unfinished file; its caller holds the file's lock."""

    def __init__(self, final: Path, expected: ExpectedDigests, max_bytes: int = MOST_BYTES) -> None:
        self.final = final
        self.path = final.with_name(f"{final.name}.part")
        self._expected = expected
        self._max_bytes = max_bytes if expected.size is None else expected.size
        self._state_path = _state_path(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = _open_own(self.path)
        self.held = 0
        """Bytes that are here and hashed."""
        length = os.fstat(self._descriptor).st_size
        state = self._read_state(length)
        self._state = state or self._fresh_state()
        self.kept = length if state else 0
        """Bytes of an earlier run, which ``hash_kept`` makes part of this one."""
        self._hashers = self._new_hashers()
        os.ftruncate(self._descriptor, self.kept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    @property
    def size(self) -> int | None:
        """Bytes of the whole file, None while no mirror has stated it."""
        return self._state.size

    @property
    def complete(self) -> bool:
        """Whether every byte is here."""
        return self.held == self.size

    @property
    def validators(self) -> dict[str, str]:
        """By mirror that gave bytes: its ETag or Last-Modified, empty without one."""
        return self._state.validators

    @property
    def digests(self) -> FileDigests:
        """Size and digests of the bytes that are here."""
        digests = {name: hasher.hexdigest() for name, hasher in self._hashers.items()}
        return FileDigests(size=self.held, digests=digests)

    def hash_kept(self, advance: Callable[[int], None]) -> None:
        """Hash what an earlier run fetched: the state of a digest cannot be stored."""
        while block := os.pread(
            self._descriptor, min(BLOCK_BYTES, self.kept - self.held), self.held
        ):
            self._hash(block)
            advance(len(block))

    def append(self, data: bytes) -> None:
        """Write and hash the next bytes."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self._descriptor, view, self.held)
            self._hash(view[:count])
            view = view[count:]

    def add_source(self, url: str, size: int | None, validator: str | None) -> None:
        """Record a mirror, and the size that it states, before its bytes are appended."""
        if size is None:
            size = self.size if self.held else self._expected.size
        validators = self.validators | {url: validator or ""}
        self._save(replace(self._state, size=size, validators=validators))

    def end_here(self) -> None:
        """Record that the file ends with the bytes that are here."""
        self._save(replace(self._state, size=self.held))

    def reset(self) -> None:
        """Drop every byte: the file changed, or the whole failed its digests."""
        os.ftruncate(self._descriptor, 0)
        self.held, self._hashers = 0, self._new_hashers()
        self._save(self._fresh_state())

    def first_bytes(self, count: int) -> bytes:
        """Return the first bytes that are here."""
        return os.pread(self._descriptor, min(count, self.held), 0)

    def publish(self) -> None:
        """Flush exactly the hashed bytes to the disk and give them their final name."""
        os.ftruncate(self._descriptor, self.held)
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1
        self.path.replace(self.final)
        remove_state(self.final)
        sync_folder(self.final.parent)

    def _hash(self, data: bytes | memoryview) -> None:
        for hasher in self._hashers.values():
            hasher.update(data)
        self.held += len(data)

    def _new_hashers(self) -> dict[str, hashlib._Hash]:
        return {name: new_hasher(name) for name in self._expected.algorithms}

    def _read_state(self, length: int) -> _State | None:
        """Return the state of an earlier run whose bytes may be kept, None to start afresh.

        After a power cut the end of the bytes may be damaged. A published digest detects that;
        without one they are kept only within one start of the machine.
        """
        try:
            state = from_json(_State, read_json(self._state_path))
        except (OSError, ValueError):
            return None
        size, expected = state.size, self._expected
        fits = state.expected == expected.to_json() and length <= self._max_bytes
        fits &= size is None or length <= size <= self._max_bytes
        fits &= expected.size in (None, size)
        fits &= all(map(is_validator, filter(None, state.validators.values())))
        # Without a digest, nothing but the end of a response shows that a file is complete.
        fits &= expected.has_digest or (state.boot == boot_id() and length != size)
        return state if fits else None

    def _fresh_state(self) -> _State:
        return _State(expected=self._expected.to_json(), size=self._expected.size, boot=boot_id())

    def _save(self, state: _State) -> None:
        """Rewrite the state file by a rename: a kill leaves the old one or the new one."""
        temporary = self._state_path.with_name(f"{self._state_path.name}.new")
        temporary.unlink(missing_ok=True)
        try:
            with temporary.open("x") as stream:
                stream.write(json.dumps(to_json(state)))
            temporary.replace(self._state_path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self._state = state


def _open_own(path: Path) -> int:
    """Open the part file for this process alone; one that may be another's file is replaced.

    A link would lead the bytes into the file that it names, a pipe would never take them.
    """
    with suppress(FileNotFoundError):
        facts = path.lstat()
        if not stat.S_ISDIR(facts.st_mode) and (
            not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1
        ):
            path.unlink()
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)


def remove_state(final: Path) -> None:
    """Delete what describes the unfinished download of a file, unless there still is one."""
    if not final.with_name(f"{final.name}.part").exists():
        state = _state_path(final)
        for path in (state, state.with_name(f"{state.name}.new")):
            path.unlink(missing_ok=True)


def unfinished_bytes(final: Path) -> int:
    """Return how many bytes of an unfinished download of a file are here."""
    part = final.with_name(f"{final.name}.part")
    return part.stat().st_size if part.is_file() and _state_path(final).is_file() else 0


def boot_id() -> str:
    """Return what distinguishes this start of the machine from others; empty where unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _state_path(final: Path) -> Path:
    return final.with_name(f"{final.name}.part.json")
