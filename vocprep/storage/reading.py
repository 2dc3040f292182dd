"""Reading a file of a place: of a folder directly, of an object store through the cache."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from vocprep.errors import SourceUnavailableError
from vocprep.files.names import OTHER, found_at, is_clutter, kind_by_names, names_in
from vocprep.files.reading import MAX_JSON_BYTES, open_regular, parse_json, read_file
from vocprep.storage import ahead, cache
from vocprep.storage.cache import CACHE_VARIABLE, cache_folder, discard, open_cached
from vocprep.storage.places import Place
from vocprep.storage.store import ObjectFacts, StoreError, StorePath
from vocprep.validation import explain


def read_bytes(place: Place, max_bytes: int) -> bytes:
    """Return the bytes of a file; OSError when it is not read or is larger than ``max_bytes``."""
    return read_file(place, max_bytes) if isinstance(place, Path) else place.read(max_bytes)


def read_source(place: Place, max_bytes: int) -> bytes:
    """Return the bytes of a source's file, as ``read_bytes``.

    Raises SourceUnavailableError where a store fails: its objects are not to be taken for bad.
    """
    try:
        return read_bytes(place, max_bytes)
    except OSError as error:
        is_there = isinstance(error, FileNotFoundError) or error.errno == errno.EFBIG
        if isinstance(place, Path) or is_there:
            raise
        found, advice = why_unread(place, error)
        raise SourceUnavailableError(f"{place}: cannot be read: {found}; {advice}") from error


def facts_of_source(place: StorePath) -> ObjectFacts | None:
    """Return what a store tells of a source's file; SourceUnavailableError where it fails."""
    try:
        return place.facts()
    except OSError as error:
        found, advice = why_unread(place, error)
        raise SourceUnavailableError(f"{place}: cannot be read: {found}; {advice}") from error


def names_at(place: Place) -> frozenset[str]:
    """Return the names in a folder, clutter left out; OSError when it cannot be listed."""
    if isinstance(place, Path):
        return names_in(place)
    try:
        names = place.names()
    except OSError as error:
        found, advice = why_unread(place, error)
        raise SourceUnavailableError(f"{place}: cannot be listed: {found}; {advice}") from error
    if not names:
        raise FileNotFoundError(errno.ENOENT, "no objects", str(place))
    return frozenset(name for name in names if not is_clutter(name))


def files_below(place: Place) -> Iterator[str]:
    """Yield the files in a folder and below it by their paths from there, in no order.

    Links to folders are followed, once on each way down; what begins with a dot is passed over.
    OSError when the folder cannot be listed.
    """
    if isinstance(place, Path):
        yield from _files_below(place, "", ())
        return
    is_empty = True
    try:
        for each in place.list():
            is_empty = False
            yield each.name
    except OSError as error:
        found, advice = why_unread(place, error)
        raise SourceUnavailableError(f"{place}: cannot be listed: {found}; {advice}") from error
    if is_empty:
        raise FileNotFoundError(errno.ENOENT, "no objects", str(place))


def _files_below(folder: Path, below: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    facts = (folder / below).stat()
    own = (facts.st_dev, facts.st_ino)
    if own in above:  # a link that leads back
        return
    with os.scandir(folder / below) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                yield from _files_below(folder, f"{below}{entry.name}/", (*above, own))
            else:
                yield f"{below}{entry.name}"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def found_in(place: Place) -> str:
    """Return in words what is at a place: nothing, a file, or what kind of folder."""
    if isinstance(place, Path):
        return found_at(place)
    try:
        return kind_by_names(names_at(place)) or OTHER
    except FileNotFoundError:
        return "nothing"


def read_json_at(place: Place, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the values of a JSON file; OSError when it is not read, ValueError when it is none."""
    return parse_json(read_bytes(place, max_bytes))


def open_listed(place: Place, sha256: str, size: int) -> BufferedReader:
    """Open a file that must have this digest and size: of a store, the copy in the cache.

    OSError when it is not there; the caller compares digest and size, since files can be damaged.
    """
    if isinstance(place, Path):
        return open_regular(place)
    ahead.taken(sha256)
    return open_cached(place, sha256, size)


def fetch_ahead(place: Place, sha256: str, size: int) -> None:
    """Begin to fetch a file that is read soon, where the cache has room for one more; of a store.

    Returns at once. It only makes ``open_listed`` return sooner.
    """
    if not isinstance(place, Path):
        ahead.fetch_ahead(place, sha256, size)


def is_proved(place: Place, stream: BufferedReader, sha256: str) -> bool:
    """Return whether an open file was digested by this process when it was fetched."""
    return not isinstance(place, Path) and cache.is_proved(stream.fileno(), sha256)


def why_unread(place: Place, error: OSError) -> tuple[str, str]:
    """Return in words why a file of a place could not be read, and what to do."""
    words = error.strerror or explain(error)
    if isinstance(place, Path):
        is_refused = isinstance(error, PermissionError)
        return (
            words,
            "make it readable" if is_refused else "make it a readable file, or copy it again",
        )
    if error.errno == errno.EFBIG and error.filename == str(place):
        return words, "check the URL, or copy the right file there"
    if isinstance(error, StoreError) or error.filename == str(place):
        found, _, advice = words.partition("; ")
        return found, advice or "do it again when the store answers"
    folder = cache_folder()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return words, f"make room in the cache {folder}, or name another by ${CACHE_VARIABLE}"
    return words, f"name a folder for the cache by ${CACHE_VARIABLE}, in place of {folder}"


def forget_damaged(place: Place, sha256: str) -> bool:
    """Remove what the cache holds of a damaged file; return whether opening it again may help."""
    if isinstance(place, Path):
        return False
    discard(sha256)
    return True
