"""Publishing in an object store: a URL gets a whole dataset version, or keeps what it has.

Objects have no renames and no locks, so that the order of requests makes a version whole:

1. A claim, ``.tmp-build/build.json``, says what is being written. It is put only where there is
   none; who finds another one refuses, who finds the same one writes the same.
2. Shards and side files are put under their final names, only where there is no object yet. One of
   the same sha256, which is in each object's metadata, is done; one of another is a refusal.
3. dataset.json, which makes them valid, is put last and only where there is none. After that the
   claim must still be there, else another writer has taken the URL over, and dataset.json goes.
4. Everything below ``.tmp-build/`` is deleted, the claim last.

A writer that overwrites puts its claim first, deletes dataset.json before it replaces the first
object, and checks all objects once its own dataset.json is there. Each object is one request, so
that nothing half written is left in the store.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from vocprep.building.output.publish import is_version_file
from vocprep.building.output.staging import STAGING
from vocprep.errors import DataError, UsageError
from vocprep.files.names import is_clutter
from vocprep.files.reading import MAX_JSON_BYTES, parse_json
from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.parallel import map_ordered
from vocprep.shards.index import DATASET_FILE, DatasetIndex, FileEntry, read_index
from vocprep.storage.places import Place
from vocprep.storage.store import ObjectFacts, StorePath
from vocprep.validation import explain

CLAIM: Final = f"{STAGING}/build.json"
"""Name of the object that says what is being written."""
AT_ONCE: Final = 8
"""Requests of a few bytes in flight."""
_MOST_TRIES: Final = 100
"""How often a claim is put that other writers put and delete meanwhile."""


@dataclass(kw_only=True)
class StoreTarget:
    """The folder of an object store that a version is written to; several threads may put to it."""

    url: StorePath
    claim: Mapping[str, Any]
    """What is being written: writers of equal claims write the same objects."""
    replaces: bool
    """Whether objects with other bytes are replaced, which is a refusal otherwise."""
    overwrites: bool
    """Whether another version, or the unfinished work on one, is replaced."""
    _unpublishing: threading.Lock = field(default_factory=threading.Lock)
    _is_unpublished: bool = False
    """Whether dataset.json of an earlier version was deleted."""

    def begin(self) -> bool:
        """Claim the URL; return whether it was not claimed for the same before.

        UsageError while it is claimed for something else, unless that is to be replaced.
        """
        data = canonical_json(dict(self.claim))
        path, sha256 = self.url / CLAIM, sha256_hex(data)
        for _ in range(_MOST_TRIES):
            if path.put_new(data, sha256):
                return True
            found = self.read_claim()
            if found == self.claim:
                return False
            if found is not None and not self.overwrites:
                raise UsageError(
                    f"{self.url}: holds {claimed(found)}; choose another URL, or --if-exists "
                    "overwrite"
                )
            if found is not None:
                path.put(data, sha256)
                return True
        raise DataError(
            f"{path}: the store takes no new object of this name, and has none either; delete what "
            "is below that name, or choose another URL"
        )

    def hold(self) -> None:
        """Claim the URL again where its claim is gone; DataError when it is another writer's now.

        Another writer of equal claims may have given it up, or have published its version.
        """
        if self.read_claim() is not None:
            self._check_claim()
        elif (self.url / DATASET_FILE).facts() is not None:
            raise self._ended()
        else:
            self.begin()

    def put(self, name: str, data: bytes | memoryview, sha256: str, *, anew: bool = False) -> bool:
        """Put an object, unless it is there and is not to be put anew; return whether it was put.

        UsageError when one of other bytes is there, unless objects are replaced.
        """
        path = self.url / name
        if not anew:
            if path.put_new(data, sha256):
                return True
            found = path.facts()
            if found is not None and is_object(found, sha256, len(data)):
                return False
            if not self.replaces:
                raise foreign_object(path, found, sha256, len(data))
        self._check_claim()
        if self.overwrites:
            self._unpublish()
        path.put(data, sha256)
        return True

    def commit(self, data: bytes, index: DatasetIndex) -> bool:
        """Put dataset.json, whose objects are all there; return whether it was put now.

        UsageError when another version is there, DataError when another writer has changed objects
        meanwhile: the URL holds no version then.
        """
        path, sha256 = self.url / DATASET_FILE, sha256_hex(data)
        is_new = path.put_new(data, sha256)
        if not is_new:
            there = published_at(self.url)
            if there is None or not is_same_version(there, index):
                if not self.overwrites:
                    raise another_version(self.url, there, index)
                path.put(data, sha256)
                is_new = True
        try:
            if is_new:
                self._check_claim(index)
            if self.replaces:
                check_objects(self.url, (*index.shards, *index.files))
        except DataError:
            self._take_back(index)
            raise
        self.end(index)
        return is_new

    def end(self, index: DatasetIndex) -> None:
        """Delete the claim and, where a version is overwritten, the objects of that one alone."""
        if self.overwrites:
            kept = {CLAIM, DATASET_FILE, *(entry.name for entry in (*index.shards, *index.files))}
            old = sorted(object_names(self.url) - kept)
            for _ in map_ordered(lambda name: (self.url / name).delete(), old, AT_ONCE):
                pass
        self.release()

    def release(self) -> None:
        """Delete the claim, where it is this one."""
        if self.read_claim() == self.claim:
            (self.url / CLAIM).delete()

    def read_claim(self) -> dict[str, Any] | None:
        """Return the claim that is there, empty where it is none; None when nothing is there."""
        try:
            claim = parse_json((self.url / CLAIM).read_own(MAX_JSON_BYTES))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return claim if isinstance(claim, dict) else {}

    def _check_claim(self, index: DatasetIndex | None = None) -> None:
        """Raise DataError when another writer has taken the URL over.

        The claim may be gone where the same version, of this index, has been published.
        """
        found = self.read_claim()
        if found == self.claim:
            return
        if found is None and index is not None:
            there = published_at(self.url)
            if there is not None and is_same_version(there, index):
                return
        if found is None:
            raise self._ended()
        raise DataError(
            f"{self.url}: another vocprep has begun to write there with --if-exists overwrite; "
            "wait for it, or choose another URL"
        )

    def _ended(self) -> DataError:
        """Return the error of a claim that is gone."""
        return DataError(
            f"{self.url}: another process has published a version there meanwhile; run the same "
            "command again, which compares it"
        )

    def _unpublish(self) -> None:
        """Delete dataset.json of the version that is overwritten, once."""
        with self._unpublishing:
            if not self._is_unpublished:
                (self.url / DATASET_FILE).delete()
                self._is_unpublished = True

    def _take_back(self, index: DatasetIndex) -> None:
        """Delete dataset.json, where it is that of this index."""
        there = published_at(self.url)
        if there is not None and is_same_version(there, index):
            (self.url / DATASET_FILE).delete()


def claimed(claim: Mapping[str, Any]) -> str:
    """Return in words what a URL is claimed for."""
    return "an unfinished push of another version" if "push" in claim else "an unfinished build"


@contextmanager
def store_errors(kept: str) -> Iterator[None]:
    """Raise DataError for what goes wrong in an object store; ``kept`` says what is not lost."""
    try:
        yield
    except OSError as error:
        url = str(error.filename)
        if "://" not in url:
            raise
        problem = explain(error)
        if error.errno == errno.EMSGSIZE:
            advice = "build it with fewer --samples-per-shard"
        elif error.errno == errno.EFBIG:
            advice = "delete it, or choose another URL"
        else:
            advice = f"run the same command again, which goes on with {kept}"
        joint = ", then " if "; " in problem else "; "
        raise DataError(f"{url}: {problem}{joint}{advice}") from error


def published_at(url: StorePath) -> DatasetIndex | None:
    """Return the index of the version at a URL; None when there is none."""
    if (url / DATASET_FILE).facts() is None:
        return None
    return read_index(url)


def object_names(url: StorePath) -> set[str]:
    """Return the names of all objects below a URL; UsageError for one that no version has."""
    names = set()
    for name in (each.name for each in url.list()):
        is_known = is_version_file(name) or name.startswith(f"{STAGING}/")
        if is_known:
            names.add(name)
        elif name and not is_clutter(name):  # some programs mark a folder by an object
            raise UsageError(
                f"{url}: holds {name!r}, which is no part of a dataset version; choose a URL "
                "below which nothing is"
            )
    return names


def is_same_version(one: DatasetIndex, other: DatasetIndex) -> bool:
    """Return whether two indices list the same files of the same content.

    They can differ in how long it took to make them, and in the format of dataset.json.
    """
    return _identity(one) == _identity(other)


def _identity(index: DatasetIndex) -> tuple[object, ...]:
    return (index.recipe_id, index.content_id, *listed_files(index))


def listed_files(index: DatasetIndex) -> list[tuple[str, int, str]]:
    """Return name, size and digest of all files that an index lists, in their order."""
    return sorted((each.name, each.bytes, each.sha256) for each in (*index.shards, *index.files))


def another_version(place: Place, there: DatasetIndex | None, index: DatasetIndex) -> UsageError:
    """Return the refusal to replace a version by another one."""
    found = "another version" if there is None else f"another version, {in_words(there)}"
    kind = "URL" if isinstance(place, StorePath) else "folder"
    return UsageError(
        f"{place}: holds {found}, and not {in_words(index)}; choose another {kind}, or "
        "--if-exists overwrite"
    )


def in_words(index: DatasetIndex) -> str:
    """Return what tells a version from others: its short name and its layout."""
    return f"{index.short_id} in {len(index.shards):,} {index.container} shards"


def is_object(found: ObjectFacts, sha256: str, size: int) -> bool:
    """Return whether an object is the one of this digest and size."""
    return found.sha256 == sha256 and found.bytes == size


def foreign_object(
    path: StorePath, found: ObjectFacts | None, sha256: str, size: int
) -> UsageError:
    """Return the refusal to replace an object by one of other bytes."""
    if found is None:
        words = "one that was deleted meanwhile"
    else:
        digest = f"of sha256 {found.sha256[:12]}…" if found.sha256 else "without a sha256"
        words = f"{found.bytes:,} bytes {digest}"
    return UsageError(
        f"{path}: expected nothing or {size:,} bytes of sha256 {sha256[:12]}…, found {words}: "
        "another version was begun there; choose another URL, or --if-exists overwrite"
    )


def check_objects(url: StorePath, entries: Iterable[FileEntry]) -> None:
    """Raise DataError unless each object has the size and the sha256 of its entry."""

    def look(entry: FileEntry) -> tuple[FileEntry, ObjectFacts | None]:
        return entry, (url / entry.name).facts()

    for entry, found in map_ordered(look, entries, AT_ONCE):
        if found is None or not is_object(found, entry.sha256, entry.bytes):
            raise DataError(
                f"{url / entry.name}: another writer has changed or deleted it while this one "
                "published; let one at a time overwrite a URL, and run the same command again"
            )
