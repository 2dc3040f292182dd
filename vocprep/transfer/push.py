"""``push``: publish a finished dataset version in an object store."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocprep.building.output.store_publish import (
    StoreTarget,
    another_version,
    foreign_object,
    is_object,
    is_same_version,
    listed_files,
    object_names,
    published_at,
    store_errors,
)
from vocprep.errors import ShardError, UsageError
from vocprep.files.reading import MAX_JSON_BYTES, read_file
from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.options import TransferOptions
from vocprep.parallel import map_ordered
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.containers import read_entry
from vocprep.shards.index import DATASET_FILE, DatasetIndex, FileEntry, is_of_index, read_index
from vocprep.shards.listed import FileProblem, check_files, file_problem, foreign_file
from vocprep.storage.places import Place, parse_place
from vocprep.storage.store import StorePath

_KEPT = "what is there"


@dataclass(frozen=True, kw_only=True)
class PushResult:
    """A version that is in an object store, and what bringing it there took."""

    url: str
    index: DatasetIndex
    published: bool
    """Whether this push published it; False when it was there already."""
    objects: int
    """Of the version, dataset.json included."""
    sent: int
    """Of them, those that were not there."""
    sent_bytes: int
    seconds: float

    def __repr__(self) -> str:
        state = "published" if self.published else "was there already"
        return f"PushResult({self.url}: {self.index.short_id}, {state}, {self.sent:,} sent)"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "url": self.url,
            "short_id": self.index.short_id,
            "content_id": self.index.content_id,
            "published": self.published,
            "objects": self.objects,
            "sent": self.sent,
            "sent_bytes": self.sent_bytes,
            "seconds": self.seconds,
        }


def push(
    version: str | Place,
    url: str | Place,
    options: TransferOptions | None = None,
    progress: Progress = NO_PROGRESS,
) -> PushResult:
    """Publish a finished dataset version at the URL of an object store, or what is missing of it.

    Every file is read, compared with its digest and sent as one object of the same name, several
    at once; dataset.json comes last. What is there already, with the same sha256, is not read or
    sent again. Raises UsageError for places of other kinds and where another version is,
    ShardError for an unfinished or damaged version, DataError where the store fails.
    """
    started = time.perf_counter()
    options = options or TransferOptions()
    folder, target_url = _places(version, url)
    index, data = _read_index(folder)
    check_files(folder, index)
    for entry in index.files:
        if (problem := file_problem(folder / entry.name, entry)) is not None:
            raise foreign_file(folder, index, entry, problem)
    target = StoreTarget(
        url=target_url,
        claim={"push": _digest(index)},
        replaces=options.if_exists == "overwrite",
        overwrites=options.if_exists == "overwrite",
    )
    with store_errors(_KEPT):
        sent, published = _Push(folder=folder, index=index, data=data, target=target).publish(
            options, progress
        )
    return PushResult(
        url=str(target_url),
        index=index,
        published=published,
        objects=len(index.shards) + len(index.files) + 1,
        sent=len(sent) + published,
        sent_bytes=sum(entry.bytes for entry in sent) + len(data) * published,
        seconds=time.perf_counter() - started,
    )


def _places(version: str | Place, url: str | Place) -> tuple[Path, StorePath]:
    """Return the folder of a version and the URL to publish it at; UsageError for other kinds."""
    source, target = parse_place(version), parse_place(url)
    if isinstance(source, StorePath):
        raise UsageError(
            f"{source}: expected the folder of a dataset version, found a URL; fetch it with "
            "vocprep pull first"
        )
    if not isinstance(target, StorePath):
        raise UsageError(
            f"{target}: expected the URL of an object store, such as s3://bucket/shards, found a "
            "folder of this machine; copy the version there with cp -r"
        )
    return source, target


def _read_index(folder: Path) -> tuple[DatasetIndex, bytes]:
    """Return the index of a version, and the bytes of dataset.json."""
    index = read_index(folder)
    data = read_file(folder / DATASET_FILE, MAX_JSON_BYTES)
    if not is_of_index(data, index):
        raise ShardError(f"{folder}: was replaced while it was read; run the same command again")
    return index, data


def _digest(index: DatasetIndex) -> str:
    """Return the digest of what two pushes of the same version have in common."""
    return sha256_hex(canonical_json([index.recipe_id, index.content_id, listed_files(index)]))


@dataclass(frozen=True, kw_only=True)
class _Push:
    """A version, and where it goes."""

    folder: Path
    index: DatasetIndex
    data: bytes
    """Of dataset.json."""
    target: StoreTarget

    def publish(
        self, options: TransferOptions, progress: Progress
    ) -> tuple[Sequence[FileEntry], bool]:
        """Send what is missing; return those files, and whether dataset.json was put now."""
        url, index, target = self.target.url, self.index, self.target
        names = object_names(url)
        if options.if_exists == "fail" and names:
            raise UsageError(
                f"{url}: holds objects and --if-exists is fail; nothing was done: choose another "
                "URL, or --if-exists resume or overwrite"
            )
        if not target.replaces and self._is_published():
            sent = self._send(names, options.workers, progress)
            target.release()
            return sent, False
        is_new = target.begin()
        try:
            if not target.replaces:
                self._is_published()  # by a writer whose claim is gone by now
            anew = target.replaces and is_new  # what is there may be damaged
            sent = self._send(names, options.workers, progress, anew=anew)
            return sent, target.commit(self.data, index)
        except UsageError:
            if is_new:
                target.release()
            raise

    def _is_published(self) -> bool:
        """Return whether the version is there already; UsageError when another one is."""
        there = published_at(self.target.url)
        if there is not None and not is_same_version(there, self.index):
            raise another_version(self.target.url, there, self.index)
        return there is not None

    def _send(
        self, names: Collection[str], workers: int, progress: Progress, *, anew: bool = False
    ) -> list[FileEntry]:
        """Send the files, ``anew`` also those that are among the objects of these names already.

        Returns those that were sent.
        """

        def send(entry: FileEntry) -> bool:
            if not anew and entry.name in names and self._is_there(entry):
                return False
            read = read_entry(self.folder / entry.name, entry)
            if isinstance(read, FileProblem):
                raise foreign_file(self.folder, self.index, entry, read)
            return self.target.put(entry.name, read.data.data, entry.sha256, anew=anew)

        entries = (*self.index.shards, *self.index.files)
        progress.begin("push", sum(entry.bytes for entry in entries), 0)
        sent = []
        try:
            results = map_ordered(send, entries, workers, ahead=1)
            for entry, is_sent in zip(entries, results, strict=True):
                progress.advance(entry.bytes)
                if is_sent:
                    sent.append(entry)
        finally:
            progress.end()
        return sent

    def _is_there(self, entry: FileEntry) -> bool:
        """Return whether a file was sent before; UsageError when another object is there."""
        path = self.target.url / entry.name
        found = path.facts()
        if found is None or is_object(found, entry.sha256, entry.bytes):
            return found is not None
        if self.target.replaces:
            return False
        raise foreign_object(path, found, entry.sha256, entry.bytes)
