"""What a build has finished at the URL of an object store, before its version is published.

Shards get their final names at once, since objects cannot be renamed: without dataset.json they are
no version yet. A shard counts as finished from the moment its description is there, in a folder
named after the build's key, so that nothing of another build is ever taken for this one's:

- ``.tmp-build/build.json``: what is being built (``vocprep.building.output.store_publish``);
- ``.tmp-build/KEY/SHARD.lines``: the lines of the shard's samples;
- ``.tmp-build/KEY/SHARD.about``: what it holds, with the digests of its object and of the lines.

Several processes can write there at once: those of equal keys make the same objects.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vocprep.building.finish import EncodedShard, FinishedShard, ShardSamples
from vocprep.building.output.staging import (
    ABOUT,
    STAGING,
    encode_description,
    read_head,
    read_samples,
)
from vocprep.building.output.store_publish import (
    AT_ONCE,
    StoreTarget,
    is_object,
)
from vocprep.building.plan import BuildKey
from vocprep.errors import DataError, ShardError, UsageError
from vocprep.files.reading import MAX_JSON_BYTES
from vocprep.files.writing import canonical_json, json_bytes, sha256_hex, write_atomic
from vocprep.parallel import map_ordered
from vocprep.shards.index import DatasetIndex, FileEntry
from vocprep.storage.store import StorePath

LINES = ".lines"
"""Follows the name of a shard in the name of its samples' lines."""
_MAX_LINES = 1 << 30
"""Bytes of the lines of one shard."""


class StoreStaging:
    """What a build has finished at a URL; ``path`` is a folder of this process alone."""

    def __init__(self, url: StorePath, path: Path) -> None:
        self.path = path
        self._url = url
        self._build = ""
        self._target = StoreTarget(url=url, claim={}, replaces=True, overwrites=False)

    def begin(self) -> bool:
        """Claim the URL for the build; return whether it was not claimed for it before."""
        return self._target.begin()

    def read_claim(self) -> dict[str, Any] | None:
        """Return what the URL is claimed for; None when it is not."""
        return self._target.read_claim()

    def prepare(self, key: BuildKey, *, overwrites: bool = False) -> None:
        """Set the build whose shards are kept; the URL is claimed by ``begin``."""
        self._build = key.digest
        self._target = StoreTarget(
            url=self._url, claim={"key": key.to_json()}, replaces=True, overwrites=overwrites
        )

    def join(self, build: str) -> None:
        """Let another process of a build, given by its key's digest, stage shards here.

        UsageError when the URL is claimed for another build, or for none any more.
        """
        self._build = build
        claim = self._target.read_claim()
        key = None if claim is None else claim.get("key")
        if claim is None or key is None or sha256_hex(canonical_json(key)) != build:
            self._remove_descriptions()  # what was put after its build had ended
            raise UsageError(
                f"{self._url}: is not being built as this shard of build {build[:12]}… is: that "
                "build has ended or was replaced; make shards of the build that is running there"
            )
        self._target = StoreTarget(url=self._url, claim=claim, replaces=True, overwrites=False)

    def add(self, name: str, shard: EncodedShard) -> None:
        """Put a finished shard and its description; it counts from the moment that is there.

        DataError, and nothing is kept of it, where another process has ended the build meanwhile.
        """
        target, entry = self._target, shard.finished.entry
        try:
            target.hold()
            if entry is not None:
                target.put(name, shard.data, entry.sha256, anew=target.overwrites)
            self._describe(name, shard)
            target.hold()
        except DataError:
            if target.read_claim() != target.claim:
                self._remove_descriptions()
            raise

    def _describe(self, name: str, shard: EncodedShard) -> None:
        data = encode_description(self._build, shard.finished, shard.samples)
        head = _head_of(data)
        self._write(name, LINES, memoryview(data)[len(head) :])
        self._write(name, ABOUT, head)
        write_atomic(self.path / f"{name}{ABOUT}", data)

    def shards(self) -> Iterator[tuple[str, FinishedShard]]:
        """Yield this build's shards that are there as their descriptions say, with their names."""
        described = [each.name for each in self._about.list()]
        names = sorted(each.removesuffix(ABOUT) for each in described if each.endswith(ABOUT))
        for name, shard in map_ordered(self._read_head, names, AT_ONCE):
            if shard is not None:
                yield name, shard

    def samples(self, name: str, shard: FinishedShard) -> ShardSamples:
        """Return the samples of a shard; ShardError when there is no whole description of it."""
        own = self.path / f"{name}{ABOUT}"
        try:
            if not own.exists():
                write_atomic(own, self._read(name, ABOUT) + self._read(name, LINES))
            return read_samples(io.BytesIO(own.read_bytes()), shard)
        except (FileNotFoundError, ValueError) as error:
            own.unlink(missing_ok=True)
            raise ShardError(
                f"{self._about / name}{ABOUT}: the description of a finished shard was changed or "
                "removed; run the same command again"
            ) from error

    def take_over(self, name: str, found: tuple[str, FinishedShard] | None) -> FinishedShard | None:
        """Return a finished shard that can be the one of this name; None where there is none."""
        if found is None or found[0] != name:  # objects are not renamed: it is made again
            return None
        try:
            self.samples(*found)
        except ShardError:
            return None
        return found[1]

    def holds_shards(self) -> bool:
        """Return whether there is a description of a shard of this build."""
        return any(True for _ in self.shards())

    def holds(self, name: str, shard: FinishedShard) -> bool:
        """Return whether a shard and its description are there."""
        return self._read_head(name)[1] == shard

    def publish(self, index: DatasetIndex) -> bool:
        """Put the side files, which are in ``path``, and dataset.json; False where it was there."""
        for entry in index.files:
            with _mapped(self.path / entry.name, entry) as data:
                self._target.put(entry.name, data, entry.sha256, anew=self._target.overwrites)
        is_new = self._target.commit(json_bytes(index.model_dump(mode="json")), index)
        self.remove()
        return is_new

    def give_up(self) -> None:
        """Delete the claim of a build that has finished nothing."""
        if not self.holds_shards():
            self._target.release()

    def remove(self) -> None:
        """Delete the descriptions of this build's shards, and its claim."""
        self._remove_descriptions()
        self._target.release()

    def _remove_descriptions(self) -> None:
        names = [each.name for each in self._about.list()]
        for _ in map_ordered(lambda name: (self._about / name).delete(), names, AT_ONCE):
            pass

    @property
    def _about(self) -> StorePath:
        return self._url / STAGING / self._build[:16]

    def _write(self, name: str, suffix: str, data: bytes | memoryview) -> None:
        path, sha256 = self._about / f"{name}{suffix}", sha256_hex(data)
        path.put(data, sha256)

    def _read(self, name: str, suffix: str) -> bytes:
        limit = MAX_JSON_BYTES if suffix == ABOUT else _MAX_LINES
        return (self._about / f"{name}{suffix}").read_own(limit)

    def _read_head(self, name: str) -> tuple[str, FinishedShard | None]:
        """Return a shard with its name; None unless its description and its object agree."""
        try:
            head = read_head(io.BytesIO(self._read(name, ABOUT)))
        except (FileNotFoundError, ValueError):
            return name, None
        entry = head.shard.entry
        if entry is not None:
            found = (self._url / name).facts()
            if found is None or not is_object(found, entry.sha256, entry.bytes):
                return name, None
        return name, head.shard if head.build == self._build else None


def _head_of(description: bytes) -> bytes:
    """Return the two lines that a description begins with."""
    first = description.index(b"\n") + 1
    return description[: description.index(b"\n", first) + 1]


@contextmanager
def _mapped(path: Path, entry: FileEntry) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a file, which are not read into memory before they are needed."""
    if entry.bytes == 0:
        yield b""
        return
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        memoryview(mapped) as data,
    ):
        yield data
