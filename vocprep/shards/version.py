"""A dataset version as a whole: its index, and all that its folder holds beside the shards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

from vocprep.errors import ShardError
from vocprep.shards.containers import ProvedShards, ShardReader, read_entry
from vocprep.shards.index import DatasetIndex, FileEntry, FileProblem, foreign_file, read_index
from vocprep.shards.record import Record
from vocprep.shards.samples import (
    MAX_LINE,
    QUARANTINE_FILE,
    SAMPLES_FILE,
    PairDigests,
    QuarantinedSample,
    Sample,
    SampleEntry,
    pair_digests,
    parse_lines,
)
from vocprep.storage.cache import DigestMismatchError
from vocprep.storage.places import Place
from vocprep.storage.reading import forget_damaged, open_listed


@dataclass(frozen=True, kw_only=True)
class Version:
    """A dataset version without its shards."""

    index: DatasetIndex
    samples: Sequence[SampleEntry]
    """In id order."""
    quarantined: Sequence[QuarantinedSample]
    """In id order."""

    @classmethod
    def read(cls, path: Place) -> Version:
        """Read a finished version; ShardError when its files are not those of its index."""
        index = read_index(path)
        for entry in index.files:
            if entry.name in (SAMPLES_FILE, QUARANTINE_FILE):
                continue  # compared when they are read
            if (problem := file_problem(path / entry.name, entry)) is not None:
                raise foreign_file(path, index, entry, problem)
        return cls.of(index, path)

    @classmethod
    def of(cls, index: DatasetIndex, path: Place) -> Version:
        """Return the version of an index whose lists of samples are in a folder; see ``read``."""
        lines = sum(shard.records for shard in index.shards)
        data = read_listed(path, index, SAMPLES_FILE, lines * MAX_LINE)
        samples = parse_lines(data, SampleEntry, str(path / SAMPLES_FILE))
        _check_places(path, index, samples)
        quarantined: list[QuarantinedSample] = []
        if index.quarantined:
            data = read_listed(path, index, QUARANTINE_FILE, index.quarantined * MAX_LINE)
            quarantined = parse_lines(data, QuarantinedSample, str(path / QUARANTINE_FILE))
        return cls(index=index, samples=samples, quarantined=quarantined)

    @property
    def all_samples(self) -> list[Sample]:
        """Records and quarantined samples."""
        return [*self.samples, *self.quarantined]

    @cached_property
    def by_shard(self) -> dict[str, list[SampleEntry]]:
        """Records in row order, by each shard of the index."""
        found: dict[str, list[SampleEntry]] = {shard.name: [] for shard in self.index.shards}
        for sample in sorted(self.samples, key=lambda sample: sample.row):
            found[sample.shard].append(sample)
        return found

    def records(
        self, folder: Place, samples: Iterable[SampleEntry]
    ) -> Iterator[tuple[SampleEntry, Record]]:
        """Yield the records of some samples in their order, from the shards in ``folder``.

        Successive samples of one shard share one opening of it: with samples sorted by shard, each
        shard is opened once. ShardError when a row holds another record than samples.jsonl lists.
        """
        shards = ProvedShards(folder, self.index)
        for name, group in groupby(samples, key=lambda sample: sample.shard):
            shard = shards.open(name)
            for sample in group:
                yield sample, read_sample(shard, sample, str(folder / name))

    @property
    def sources(self) -> dict[str, PairDigests]:
        """Digests of the source files by image id, of quarantined images too."""
        return pair_digests(self.all_samples)


def read_sample(shard: ShardReader, sample: SampleEntry, where: str) -> Record:
    """Return a record by its line; ShardError when another one is in its place."""
    if not 0 <= sample.row < len(shard) or shard.image_ids[sample.row] != sample.id:
        raise ShardError(
            f"{where}: row {sample.row} is not the record {sample.id} that {SAMPLES_FILE} lists "
            "there; build the shards again"
        )
    return shard.read(sample.row)


def _check_places(path: Place, index: DatasetIndex, samples: Sequence[SampleEntry]) -> None:
    """Raise ShardError where a line names a row that dataset.json does not list."""
    records = {shard.name: shard.records for shard in index.shards}
    for number, sample in enumerate(samples, start=1):
        if sample.row >= records.get(sample.shard, 0):
            raise ShardError(
                f"{path / SAMPLES_FILE}: line {number}: puts {sample.id} into row {sample.row} of "
                f"{sample.shard}, which dataset.json does not list; build the shards again"
            )


def read_listed(path: Place, index: DatasetIndex, name: str, max_bytes: int) -> bytes:
    """Return the bytes of a file of a version that is no shard.

    ShardError when they are not those that the index lists, or are more than ``max_bytes``.
    """
    entry = next((entry for entry in index.files if entry.name == name), None)
    if entry is None:
        raise ShardError(f"{path}: dataset.json does not list {name}; build the shards again")
    if entry.bytes > max_bytes:
        raise ShardError(
            f"{path / name}: {entry.bytes:,} bytes, where at most {max_bytes:,} are expected; "
            "build the shards again"
        )
    read = read_entry(path / name, entry)
    if isinstance(read, FileProblem):
        raise foreign_file(path, index, entry, read)
    return read.data.tobytes()


def is_unchanged(path: Place, entry: FileEntry) -> bool:
    """Return whether a file has the size and digest of its entry."""
    return file_problem(path, entry) is None


def stored_problem(path: Place, entry: FileEntry) -> FileProblem | None:
    """Return what ``file_problem`` does, of an object's bytes in the store, past the cache."""
    if isinstance(path, Path):
        return file_problem(path, entry)
    digest, size = hashlib.sha256(), 0
    try:
        for chunk in path.chunks():
            digest.update(chunk)
            size += len(chunk)
    except OSError as error:
        return FileProblem.of_error(path, error)
    found = digest.hexdigest()
    is_right = (size, found) == (entry.bytes, entry.sha256)
    return None if is_right else FileProblem.of_mismatch(entry.bytes, size, found)


def file_problem(path: Place, entry: FileEntry) -> FileProblem | None:
    """Return what was found in the place of the bytes of an entry; None when they are there.

    A damaged copy in the cache of an object store is fetched again, once.
    """
    problem = _problem_once(path, entry)
    is_damaged = problem is not None and problem.state == "changed"
    if is_damaged and forget_damaged(path, entry.sha256):
        return _problem_once(path, entry)
    return problem


def _problem_once(path: Place, entry: FileEntry) -> FileProblem | None:
    try:
        with open_listed(path, entry.sha256, entry.bytes) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size != entry.bytes:
                return FileProblem.of_size(size)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except DigestMismatchError as error:
        return FileProblem.of_mismatch(entry.bytes, error.size, error.sha256)
    except OSError as error:
        return FileProblem.of_error(path, error)
    return None if digest == entry.sha256 else FileProblem.of_digest(size, digest)
