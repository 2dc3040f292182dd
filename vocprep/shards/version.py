"""A dataset version as a whole: its index, and all that its folder holds beside the shards.

The lists of its samples are read when something needs them, line by line: what is in memory does
not grow with the number of samples, unless a list is asked for as a whole.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter

from vocprep.errors import ManifestError, ShardError
from vocprep.files.ids import record_order
from vocprep.files.reading import parse_json
from vocprep.labels.label_space import LabelSpace
from vocprep.shards.containers import ProvedShards, ShardReader, read_entry
from vocprep.shards.index import DatasetIndex, FileEntry, ShardEntry, read_index
from vocprep.shards.listed import FileProblem, check_files, file_problem, foreign_file, open_proved
from vocprep.shards.record import Record
from vocprep.shards.samples import (
    LABELS_FILE,
    MAX_LINE,
    QUARANTINE_FILE,
    SAMPLES_FILE,
    Line,
    PairDigests,
    QuarantinedSample,
    Sample,
    SampleEntry,
    pair_digests,
    parse_lines,
    sample_order,
)
from vocprep.shards.spans import ShardSpan, SpanSearch
from vocprep.storage.places import Place
from vocprep.validation import explain

_MAX_LABELS = 64 << 20
"""Bytes of labels.json: that of the largest label space that is shipped has 15 kB."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A dataset version without its shards."""

    index: DatasetIndex
    path: Place
    """Where samples.jsonl and the other files beside the shards are."""

    @classmethod
    def open(cls, path: Place) -> Version:
        """Open a finished version; ShardError when it is none, or a file has another size.

        Reads dataset.json alone; other files are compared with it when they are read.
        """
        index = read_index(path)
        check_files(path, index)
        return cls.of(index, path)

    @classmethod
    def read(cls, path: Place) -> Version:
        """Open a finished version and compare every file with it but the shards."""
        index = read_index(path)
        for entry in index.files:
            if (problem := file_problem(path / entry.name, entry)) is not None:
                raise foreign_file(path, index, entry, problem)
        return cls.of(index, path)

    @classmethod
    def of(cls, index: DatasetIndex, path: Place) -> Version:
        """Return the version of an index whose other files are in a folder."""
        return cls(index=index, path=path)

    def __getstate__(self) -> dict[str, object]:
        # Lists that were read stay in this process.
        return {"index": self.index, "path": self.path}

    def stream_samples(self) -> Iterator[SampleEntry]:
        """Yield the lines of samples.jsonl, in id order; ShardError where one is not as listed."""
        shards = {shard.name: shard.records for shard in self.index.shards}
        lines = self._stream(SAMPLES_FILE, SampleEntry, sum(shards.values()))
        for number, sample in enumerate(lines, start=1):
            if sample.row >= shards.get(sample.shard, 0):
                raise ShardError(
                    f"{self.path / SAMPLES_FILE}: line {number}: puts {sample.id} into row "
                    f"{sample.row} of {sample.shard}, which dataset.json does not list; build the "
                    "shards again"
                )
            yield sample

    def stream_quarantined(self) -> Iterator[QuarantinedSample]:
        """Yield the lines of quarantine.jsonl, in id order; none where there is no such file."""
        if not self.index.quarantined:
            return iter(())
        return self._stream(QUARANTINE_FILE, QuarantinedSample, self.index.quarantined)

    def stream_all(self) -> Iterator[Sample]:
        """Yield records and quarantined samples in id order."""
        return heapq.merge(self.stream_samples(), self.stream_quarantined(), key=sample_order)

    def stream_shards(
        self, samples: Iterable[SampleEntry] | None = None
    ) -> Iterator[tuple[ShardEntry, list[SampleEntry]]]:
        """Yield each shard with its records in row order, when the last of them was read.

        ``samples`` are those of ``stream_samples``. Where records go to shards in id order, one
        unfinished shard per split is in memory. ShardError when the rows are not those of a shard.
        """
        shards = {shard.name: shard for shard in self.index.shards}
        unfinished: dict[str, list[SampleEntry]] = {name: [] for name in shards}
        for sample in self.stream_samples() if samples is None else samples:
            shard, rows = shards[sample.shard], unfinished.get(sample.shard)
            if rows is None:
                raise self._bad_rows(shard)
            rows.append(sample)
            if len(rows) == shard.records:
                rows.sort(key=attrgetter("row"))
                if [each.row for each in rows] != list(range(shard.records)):
                    raise self._bad_rows(shard)
                del unfinished[shard.name]
                yield shard, rows
        for name in unfinished:
            raise self._bad_rows(shards[name])

    def _bad_rows(self, shard: ShardEntry) -> ShardError:
        return ShardError(
            f"{self.path / SAMPLES_FILE}: does not list the {shard.records} rows of {shard.name}; "
            "build the shards again"
        )

    @cached_property
    def samples(self) -> Sequence[SampleEntry]:
        """All records in id order, about 2 kB each; ``stream_samples`` holds one at a time."""
        return tuple(self.stream_samples())

    @cached_property
    def quarantined(self) -> Sequence[QuarantinedSample]:
        """All quarantined samples in id order."""
        return tuple(self.stream_quarantined())

    @cached_property
    def by_shard(self) -> dict[str, list[SampleEntry]]:
        """Records in row order, by each shard of the index."""
        found = {shard.name: samples for shard, samples in self.stream_shards(self.samples)}
        return {shard.name: found[shard.name] for shard in self.index.shards}

    @cached_property
    def spans(self) -> Mapping[str, ShardSpan]:
        """Which records each shard holds: of the index, or of samples.jsonl in earlier formats."""
        stated = {shard.name: shard.span for shard in self.index.shards if shard.span}
        if len(stated) == len(self.index.shards):
            return stated
        return {
            shard.name: ShardSpan.of([sample.id for sample in samples])
            for shard, samples in self.stream_shards()
        }

    @cached_property
    def search(self) -> SpanSearch:
        """Finds the shards that can hold a record."""
        return SpanSearch(
            (shard.split, shard.name, self.spans[shard.name]) for shard in self.index.shards
        )

    @cached_property
    def label_space(self) -> LabelSpace:
        """The label space, read from labels.json; ShardError when it is not the recipe's."""
        path, identity = self.path / LABELS_FILE, self.index.recipe.schema
        try:
            data = read_listed(self.path, self.index, LABELS_FILE, _MAX_LABELS)
            label_space = LabelSpace.from_json(parse_json(data))
        except (ValueError, ManifestError) as error:
            raise ShardError(
                f"{path}: cannot be read: {explain(error)}; copy it again, or build "
                "the shards again"
            ) from error
        if label_space.sha256 != identity.sha256:
            raise ShardError(
                f"{path}: has digest {label_space.sha256[:12]}…: expected {identity.sha256[:12]}… "
                f"of schema {identity.name}; copy it again, or build the shards again"
            )
        return label_space

    def records(
        self, folder: Place, samples: Iterable[SampleEntry]
    ) -> Iterator[tuple[SampleEntry, Record]]:
        """Yield the records of some samples in their order, from the shards in ``folder``.

        Successive samples of one shard share one opening of it: with samples sorted by shard, each
        shard is opened once. ShardError when a row holds another record than samples.jsonl lists.
        """
        shards = ProvedShards(folder, self.index)
        for name, group in groupby(samples, key=attrgetter("shard")):
            shard = shards.open(name)
            for sample in group:
                yield sample, read_sample(shard, sample, str(folder / name))

    @property
    def sources(self) -> dict[str, PairDigests]:
        """Digests of the source files by image id, of quarantined images too."""
        return pair_digests(self.stream_all())

    def _stream(self, name: str, kind: type[Line], count: int) -> Iterator[Line]:
        """Yield ``count`` lines of a file in id order; ShardError where it has others."""
        number, before, last, where = 0, "", "", self.path / name
        with closing(self._lines(name, count * MAX_LINE)) as lines:
            try:
                for number, line in enumerate(parse_lines(lines, kind, str(where)), start=1):
                    order = record_order(line.id)
                    if order <= last:
                        raise ShardError(
                            f"{where}: line {number}: {line.id} does not follow {before} in the "
                            "order of ids; build the shards again"
                        )
                    before, last = line.id, order
                    yield line
                if number != count:
                    raise ShardError(
                        f"{where}: expected the {count:,} lines that dataset.json counts, found "
                        f"{number:,}; build the shards again"
                    )
            except ShardError:
                for _ in lines:  # to its end, where a file that has changed meanwhile is noticed
                    pass
                raise

    def _lines(self, name: str, max_bytes: int) -> Generator[bytes, None, None]:
        """Yield the lines of a file of the version, whose bytes are those of its entry.

        They are digested before any of them is given out, and once more while they are.
        """
        entry = _listed(self.path, self.index, name, max_bytes)
        opened = open_proved(self.path / name, entry)
        if isinstance(opened, FileProblem):
            raise foreign_file(self.path, self.index, entry, opened)
        with opened:
            digest = hashlib.sha256()
            try:
                while line := opened.readline(MAX_LINE + 1):
                    digest.update(line)
                    yield line
            except OSError as error:
                problem = FileProblem.of_error(self.path / name, error)
                raise foreign_file(self.path, self.index, entry, problem) from error
            if (found := digest.hexdigest()) != entry.sha256:
                problem = FileProblem.of_mismatch(entry.bytes, opened.tell(), found)
                raise foreign_file(self.path, self.index, entry, problem)


def read_sample(shard: ShardReader, sample: SampleEntry, where: str) -> Record:
    """Return a record by its line; ShardError when another one is in its place."""
    if not 0 <= sample.row < len(shard) or shard.image_ids[sample.row] != sample.id:
        raise ShardError(
            f"{where}: row {sample.row} is not the record {sample.id} that {SAMPLES_FILE} lists "
            "there; build the shards again"
        )
    return shard.read(sample.row)


def read_listed(path: Place, index: DatasetIndex, name: str, max_bytes: int) -> bytes:
    """Return the bytes of a file of a version that is no shard.

    ShardError when they are not those that the index lists, or are more than ``max_bytes``.
    """
    entry = _listed(path, index, name, max_bytes)
    read = read_entry(path / name, entry)
    if isinstance(read, FileProblem):
        raise foreign_file(path, index, entry, read)
    return read.data.tobytes()


def _listed(path: Place, index: DatasetIndex, name: str, max_bytes: int) -> FileEntry:
    """Return the entry of a file; ShardError where there is none, or of more than ``max_bytes``."""
    entry = next((entry for entry in index.files if entry.name == name), None)
    if entry is None:
        raise ShardError(f"{path}: dataset.json does not list {name}; build the shards again")
    if entry.bytes > max_bytes:
        raise ShardError(
            f"{path / name}: {entry.bytes:,} bytes, where at most {max_bytes:,} are expected; "
            "build the shards again"
        )
    return entry
