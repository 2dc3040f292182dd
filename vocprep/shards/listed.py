"""Files that the index of an opened version lists, and what is found in their places."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Literal, Self

from vocprep.errors import ShardError
from vocprep.files.reading import not_regular
from vocprep.shards.index import DATASET_FILE, DatasetIndex, FileEntry, remake_advice
from vocprep.storage.cache import DigestMismatchError
from vocprep.storage.places import Place
from vocprep.storage.reading import forget_damaged, open_listed, read_json_at, why_unread


@dataclass(frozen=True, kw_only=True)
class FileProblem:
    """What is in the place of a listed file, where that is not the file itself."""

    state: Literal["missing", "changed", "unreadable"]
    found: str
    """In words; why it cannot be read, where it is unreadable."""
    advice: str = "copy it again, or build the shards again"
    """Where it is in a folder; an object is published again."""

    @classmethod
    def of_error(cls, place: Place, error: OSError) -> Self:
        """Return the problem of a file that could not be opened or read."""
        # Of a store, the error may be one of the cache.
        is_own = isinstance(place, Path) or error.filename == str(place)
        if isinstance(error, FileNotFoundError) and is_own:
            return cls(state="missing", found="no file")
        found, advice = why_unread(place, error)
        return cls(state="unreadable", found=found, advice=advice)

    @classmethod
    def of_size(cls, size: int) -> Self:
        """Return the problem of a file of another size."""
        return cls(state="changed", found=f"{size:,} bytes")

    @classmethod
    def of_mismatch(cls, expected: int, size: int, sha256: str) -> Self:
        """Return the problem of bytes of this size and digest where others were expected."""
        return cls.of_size(size) if size != expected else cls.of_digest(size, sha256)

    @classmethod
    def of_digest(cls, size: int, sha256: str) -> Self:
        """Return the problem of a file of the right size with another digest."""
        return cls(state="changed", found=f"{size:,} others of sha256 {sha256[:12]}…")


def check_files(folder: Place, index: DatasetIndex) -> None:
    """Check that every file exists and has its size; ShardError naming the first that has not.

    In an object store, where each look is a request, files are compared when they are read.
    """
    if not isinstance(folder, Path):
        return
    for entry in (*index.shards, *index.files):
        problem = _size_problem(folder / entry.name, entry.bytes)
        if problem is not None:
            raise foreign_file(folder, index, entry, problem)


def _size_problem(path: Path, expected: int) -> FileProblem | None:
    """Return what is at a path instead of a regular file of this size, which is not opened."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise not_regular(status.st_mode, path)
    except OSError as error:
        return FileProblem.of_error(path, error)
    return None if status.st_size == expected else FileProblem.of_size(status.st_size)


def foreign_file(
    folder: Place, index: DatasetIndex, entry: FileEntry, problem: FileProblem
) -> ShardError:
    """Return the error for a file in whose place other bytes were found than the index lists.

    Either the whole version is another one by now, or this file alone is damaged.
    """
    path = folder / entry.name
    if problem.state == "unreadable":
        return ShardError(f"{path}: cannot be read: {problem.found}; {problem.advice}")
    now = _index_sha256(folder)
    if now != index.index_sha256:
        state = "gone" if now is None else "another one"
        return ShardError(
            f"{path}: this version was replaced while it was read: {DATASET_FILE} is {state} since "
            "it was opened; open it again when the build there has finished"
        )
    expected = f"expected {entry.bytes:,} bytes of sha256 {entry.sha256[:12]}…"
    advice = problem.advice if isinstance(folder, Path) else remake_advice(folder)
    if problem.state == "missing":
        return ShardError(f"{path}: is missing: {expected}; {advice}")
    return ShardError(f"{path}: {expected}, found {problem.found} (damaged or replaced); {advice}")


def _index_sha256(folder: Place) -> str | None:
    """Return what dataset.json states as its digest now; None when there is none."""
    try:
        value = read_json_at(folder / DATASET_FILE)
    except (OSError, ValueError):
        return None
    return str(value.get("index_sha256")) if isinstance(value, dict) else None


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
    """Return what was found in the place of the bytes of an entry; None when they are there."""
    opened = open_proved(path, entry)
    if isinstance(opened, FileProblem):
        return opened
    opened.close()
    return None


def open_proved(path: Place, entry: FileEntry) -> BufferedReader | FileProblem:
    """Open a file whose bytes are those of its entry; return what else was found.

    A damaged copy in the cache of an object store is fetched again, once.
    """
    opened = _open_once(path, entry)
    is_damaged = isinstance(opened, FileProblem) and opened.state == "changed"
    if is_damaged and forget_damaged(path, entry.sha256):
        return _open_once(path, entry)
    return opened


def _open_once(path: Place, entry: FileEntry) -> BufferedReader | FileProblem:
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(open_listed(path, entry.sha256, entry.bytes))
            problem = _problem_of(stream, entry)
            stream.seek(0)
        except DigestMismatchError as error:
            return FileProblem.of_mismatch(entry.bytes, error.size, error.sha256)
        except OSError as error:
            return FileProblem.of_error(path, error)
        if problem is not None:
            return problem
        stack.pop_all()
        return stream


def _problem_of(stream: BufferedReader, entry: FileEntry) -> FileProblem | None:
    """Return how the bytes of an open file are not those of its entry."""
    size = os.fstat(stream.fileno()).st_size
    if size != entry.bytes:
        return FileProblem.of_size(size)
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return None if digest == entry.sha256 else FileProblem.of_digest(size, digest)
