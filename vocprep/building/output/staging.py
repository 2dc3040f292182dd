"""The staging folder: shards that are finished while their dataset version is not.

It lies inside the output folder and outlives the process that fills it. Beside each shard is its
description, with which the next build can continue from there; ``build.json`` holds the key of the
build. Each description names that key by its digest, so that no shard is taken over which a process
of another build put there.

A description is a line with the digest of the second one, a line of JSON (``FinishedShard``, the
build, size and digest of what follows), and the lines of the shard's samples.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

from vocprep.building.finish import EncodedShard, FinishedShard, ShardSamples
from vocprep.building.plan import BuildKey
from vocprep.errors import ShardError, UsageError
from vocprep.files.names import TEMPORARY_PREFIX
from vocprep.files.reading import MAX_JSON_BYTES, open_regular, parse_json, read_file
from vocprep.files.writing import canonical_json, remove_path, sha256_hex, write_atomic
from vocprep.shards.index import ShardEntry
from vocprep.shards.listed import is_unchanged
from vocprep.shards.samples import Count, Entry, QuarantinedSample, SampleEntry, Sha256
from vocprep.shards.spans import ShardSpan
from vocprep.validation import from_json

STAGING = f"{TEMPORARY_PREFIX}build"
ABOUT = ".about"
"""Follows the name of a shard in the name of its description."""
_KEY_FILE = "build.json"
_FORMAT_FIELD, _FORMAT = "staging_format_version", 3
"""Format 1 has neither this field nor the build's digest in the descriptions; those of formats 1
and 2 hold the samples as JSON."""
_DIGEST_LINE = 65


class FinishedShards(Protocol):
    """Where a build keeps its finished shards until their version is published."""

    path: Path
    """Folder in which the files beside the shards are written."""

    def add(self, name: str, shard: EncodedShard) -> None:
        """Keep a finished shard; it counts from the moment its description is there."""

    def shards(self) -> Iterator[tuple[str, FinishedShard]]:
        """Yield this build's shards whose description is whole, with the names they were given."""
        ...

    def samples(self, name: str, shard: FinishedShard) -> ShardSamples:
        """Return the samples of a shard; ShardError when there is no whole description of it."""
        ...

    def join(self, build: str) -> None:
        """Let another process of a build, given by its key's digest, keep shards here."""

    def remove(self) -> None:
        """Delete all that is kept."""


class Staging:
    """The staging folder of an output folder, which need not exist yet."""

    def __init__(self, out: Path, name: str = STAGING) -> None:
        self.path = out / name
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

    def begin(self, key: BuildKey, *, shared: bool = False) -> None:
        """Make it ready for a build: shards of another build are deleted.

        Where other processes of the build may be writing there, nothing of theirs is (``shared``).
        """
        expected = key.to_json()
        self._build = key.digest
        if self.read_key() != expected:
            self.remove()
        self.path.mkdir(exist_ok=True)
        for path in () if shared else list(self.path.iterdir()):
            is_unfinished = path.name.startswith(TEMPORARY_PREFIX)
            if is_unfinished or not stat.S_ISREG(path.lstat().st_mode):  # a link, a folder, a pipe
                remove_path(path)
        self._rewrite_old_descriptions()
        value = {_FORMAT_FIELD: _FORMAT, "key": expected}
        data = canonical_json(value)
        write_atomic(self.path / _KEY_FILE, sha256_hex(data).encode() + b"\n" + data)

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

    def add(self, name: str, shard: EncodedShard) -> None:
        """Keep a finished shard; it counts from the moment its description is there."""
        if shard.finished.entry is not None:
            write_atomic(self.path / name, shard.data)
        self.describe(name, shard.finished, shard.samples)

    def describe(self, name: str, shard: FinishedShard, samples: ShardSamples) -> None:
        """Write the description of a shard whose file is in the folder."""
        self.recognise(name, shard)
        data = encode_description(self._build, shard, samples)
        write_atomic(self._about(name), data)

    def recognise(self, name: str, shard: FinishedShard) -> None:
        """Remember which file a shard has in the folder now, for ``check``."""
        if shard.entry is not None:
            self._files[name] = _file_facts(self.path / name)

    def shards(self) -> Iterator[tuple[str, FinishedShard]]:
        """Yield this build's shards whose description is whole, with the names they were given."""
        for name in self._described():
            try:
                with open_regular(self._about(name)) as stream:
                    head = read_head(stream)
            except (OSError, ValueError):  # damaged, or by another version of vocprep
                continue
            if head.build == self._build:
                yield name, head.shard

    def samples(self, name: str, shard: FinishedShard) -> ShardSamples:
        """Return the samples of a shard; ShardError when there is no whole description of it."""
        path = self._about(name)
        try:
            with open_regular(path) as stream:
                return read_samples(stream, shard)
        except (OSError, ValueError) as error:
            raise ShardError(
                f"{path}: the description of a finished shard was changed or removed; let one "
                "build at a time write there, and run the same command again"
            ) from error

    def holds(self, name: str, shard: FinishedShard) -> bool:
        """Return whether a shard and its description are there, by size and name."""
        try:
            size = 0 if shard.entry is None else (self.path / name).stat().st_size
            return self._about(name).exists() and (not shard.entry or size == shard.entry.bytes)
        except OSError:
            return False

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

    def holds_shards(self) -> bool:
        """Return whether there is a description of a shard, of whatever build."""
        return any(self.path.glob(f"*{ABOUT}"))

    def remove_if_empty(self) -> None:
        """Delete the folder unless the next build can use something in it."""
        if not any(self.shards()):
            self.remove()

    def remove(self) -> None:
        """Delete the folder with all that is in it."""
        with suppress(OSError):  # what cannot be deleted is of no build, or is overwritten
            remove_path(self.path)

    def _about(self, name: str) -> Path:
        return self.path / f"{name}{ABOUT}"

    def _described(self) -> list[str]:
        """Return the names of the shards that have a description."""
        return sorted(path.name.removesuffix(ABOUT) for path in self.path.glob(f"*{ABOUT}"))

    def _read_key_file(self) -> dict[str, Any] | None:
        try:
            return _parse_sealed(read_file(self.path / _KEY_FILE, MAX_JSON_BYTES))
        except (OSError, ValueError):
            return None

    def _rewrite_old_descriptions(self) -> None:
        """Write descriptions of the formats 1 and 2 in the present one."""
        key = self._read_key_file()
        if key is None or key.get(_FORMAT_FIELD) == _FORMAT:
            return
        for name in self._described():
            try:
                value = _parse_sealed(read_file(self._about(name), MAX_JSON_BYTES))
                if _FORMAT_FIELD not in key and "build" not in value:
                    value = {"build": self._build, "shard": value}
                data = _in_present_format(value)
            except (OSError, KeyError, TypeError, ValueError):  # it is not used
                continue
            write_atomic(self._about(name), data)


class ListedLines(Entry):
    """Lines that follow the head of a description."""

    size: Count
    """In bytes."""
    sha256: Sha256

    @classmethod
    def of(cls, lines: bytes) -> Self:
        """List some lines."""
        return cls(size=len(lines), sha256=sha256_hex(lines))


class Head(Entry):
    """The JSON of a description."""

    build: str
    """Digest of the key of its build."""
    shard: FinishedShard
    records: ListedLines
    quarantined: ListedLines


def encode_description(build: str, shard: FinishedShard, samples: ShardSamples) -> bytes:
    """Return the description of a shard, of the build whose key has this digest."""
    head = Head(
        build=build,
        shard=shard,
        records=ListedLines.of(samples.records),
        quarantined=ListedLines.of(samples.quarantined),
    )
    line = canonical_json(head.model_dump(mode="json"))
    return sha256_hex(line).encode() + b"\n" + line + b"\n" + samples.records + samples.quarantined


def read_head(description: BinaryIO) -> Head:
    """Read the head of a description; ValueError when it was altered or is none."""
    digest = description.readline(_DIGEST_LINE)
    line = description.readline(MAX_JSON_BYTES)
    return from_json(Head, _parse_sealed(digest + line.removesuffix(b"\n")))


def read_samples(description: BinaryIO, shard: FinishedShard) -> ShardSamples:
    """Read the samples of a shard's description; ValueError when it was altered or is another's."""
    head = read_head(description)
    if head.shard != shard:
        raise ValueError("it describes another shard")
    lines = description.read()
    end = head.records.size
    samples = ShardSamples(records=lines[:end], quarantined=lines[end:])
    found = (ListedLines.of(samples.records), ListedLines.of(samples.quarantined))
    if found != (head.records, head.quarantined):
        raise ValueError("the lines are not those that the head lists")
    return samples


def _parse_sealed(data: bytes) -> dict[str, Any]:
    """Return the JSON object that follows a line with its digest; ValueError for anything else."""
    digest, _, text = data.partition(b"\n")
    value = parse_json(text) if sha256_hex(text).encode() == digest else None
    if not isinstance(value, dict):
        raise ValueError("it does not have its digest, or is no JSON object")
    return value


def _in_present_format(old: Mapping[str, Any]) -> bytes:
    """Return a description of format 2, which holds the samples as JSON, in the present format.

    KeyError, TypeError or ValueError when it is none.
    """
    fields = dict(old["shard"])
    records = [from_json(SampleEntry, value) for value in fields.pop("samples")]
    quarantined = [from_json(QuarantinedSample, value) for value in fields.pop("quarantined")]
    entry = from_json(ShardEntry, fields["entry"]) if fields["entry"] else None
    if entry is not None:
        rows = sorted(records, key=lambda sample: sample.row)
        entry = entry.model_copy(update={"span": ShardSpan.of([sample.id for sample in rows])})
    counted = {name: fields[name] for name in ("statistics", "label_pixels")}
    shard = FinishedShard.of(fields["split"], entry, [*records, *quarantined], **counted)
    return encode_description(str(old["build"]), shard, ShardSamples.of(records, quarantined))


def _file_facts(path: Path) -> tuple[int, ...]:
    """Return what tells a file from another one of the same name."""
    facts = path.stat()
    return (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
