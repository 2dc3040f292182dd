"""Digests of a source's files: expected ones, computed ones, and where the two differ."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vocprep.files.reading import open_regular
from vocprep.manifests import SourceFile
from vocprep.progress import NO_PROGRESS

ALGORITHMS = ("sha256", "sha1", "md5")
"""Every algorithm that a manifest may list; sha256 is always computed."""

BLOCK_BYTES = 1 << 20
"""How much of a file is hashed at a time."""


@dataclass(frozen=True, kw_only=True)
class ExpectedDigests:
    """The size and digests that a file must have to get its final name."""

    size: int | None = None
    """Bytes, where published."""
    sha256: str | None = None
    sha1: str | None = None
    md5: str | None = None
    sha256_prefix: str | None = None
    recorded_sha256: str | None = None
    """From sources.lock.json: what an earlier download of the same file had."""

    @classmethod
    def of(cls, file: SourceFile, recorded_sha256: str | None = None) -> ExpectedDigests:
        """Collect the digests of a manifest and the recorded source digest of a file."""
        return cls(
            size=file.bytes,
            sha256=file.sha256,
            sha1=file.sha1,
            md5=file.md5,
            sha256_prefix=file.sha256_prefix,
            recorded_sha256=recorded_sha256,
        )

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms to compute: sha256 always, the others where one is published."""
        return tuple(name for name in ALGORITHMS if name == "sha256" or getattr(self, name))

    @property
    def has_digest(self) -> bool:
        """Whether any digest is known, so that wrong bytes can be detected."""
        return bool(self.to_json().keys() - {"size"})

    def to_json(self) -> dict[str, str | int]:
        """Return the values that are known, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class FileDigests:
    """The size and the computed digests of a file."""

    size: int
    digests: Mapping[str, str]
    """Hex digits by algorithm; holds sha256 always."""

    @property
    def sha256(self) -> str:
        """The sha256, 64 hex digits."""
        return self.digests["sha256"]


def hash_file(
    path: Path,
    algorithms: tuple[str, ...] = ("sha256",),
    advance: Callable[[int], None] = NO_PROGRESS.advance,
) -> FileDigests:
    """Hash a whole file in one pass and bounded memory; ``advance`` is called with byte counts."""
    hashers = {name: new_hasher(name) for name in algorithms}
    size = 0
    for block in _blocks(path):
        size += len(block)
        for hasher in hashers.values():
            hasher.update(block)
        advance(len(block))
    return FileDigests(
        size=size, digests={name: item.hexdigest() for name, item in hashers.items()}
    )


def new_hasher(algorithm: str) -> hashlib._Hash:
    """Return a new hasher; md5 and sha1 are checksums here, which no security policy forbids."""
    return hashlib.new(algorithm, usedforsecurity=False)


def differences(expected: ExpectedDigests, found: FileDigests) -> list[str]:
    """Return one phrase for each expected value that differs from the found one."""
    phrases = []
    if expected.size is not None and expected.size != found.size:
        phrases.append(f"expected {expected.size} bytes, found {found.size}")
    for name in ALGORITHMS:
        published = getattr(expected, name)
        if published is not None and published != found.digests[name]:
            phrases.append(f"expected {name} {published}, found {found.digests[name]}")
    prefix, recorded = expected.sha256_prefix, expected.recorded_sha256
    if prefix is not None and not found.sha256.startswith(prefix):
        phrases.append(f"expected a sha256 that begins {prefix}, found {found.sha256}")
    if recorded is not None and recorded != found.sha256:
        phrases.append(
            f"expected sha256 {recorded} (recorded in sources.lock.json), found {found.sha256}"
        )
    return phrases


def _blocks(path: Path) -> Iterator[bytes]:
    with open_regular(path) as stream:
        while block := stream.read(BLOCK_BYTES):
            yield block
