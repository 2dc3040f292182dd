"""The files of a folder by the image ids that their names give; each folder is listed once.

Ten thousand stat calls take seconds on a network disk, so that no file is asked for singly: names
are compared with the ids a few thousand at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocprep.data_dir.image_ids import ImageIds, as_column
from vocprep.errors import DataDirError
from vocprep.files.ids import ID_RULE, is_image_id
from vocprep.files.names import is_clutter
from vocprep.storage.places import Place, path_below
from vocprep.storage.reading import files_below, names_at
from vocprep.validation import printable

_TOGETHER = 4096
"""Names that are compared with ids at a time."""
_MOST_ENDS = 250
"""Different ends of file names, upper and lower case told apart."""
Codes = NDArray[np.uint8]
"""[N]: by image id, the number of its file's end among ``FileNames.ends``, from 1; 0: no file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FileNames:
    """The files of one kind: which names they have, and with what ends."""

    kind: str
    """``image`` or ``label map``."""
    accepted: tuple[str, ...]
    """Ends of their names: suffixes in small letters, or one end that is taken as it is written."""
    ignores_case: bool = False
    """Whether suffixes in other letter cases are accepted, too."""
    other_end: str | None = None
    """End of the names of files of another kind in the same folder."""
    ends: list[str] = field(default_factory=list)
    """Ends that were found, as the files have them."""

    def split(self, name: str) -> tuple[str, int] | None:
        """Return what precedes the end of a name, and the end's number; None for other files."""
        if self.other_end is not None and name.endswith(self.other_end):
            return None
        if self.ignores_case:
            stem, dot, suffix = name.rpartition(".")
            end = f"{dot}{suffix}"
            is_one = end.lower() in self.accepted
        else:
            end = self.accepted[0]
            stem, is_one = name.removesuffix(end), name.endswith(end)
        if not is_one or not stem:
            return None
        if end not in self.ends:
            if len(self.ends) == _MOST_ENDS:
                return None
            self.ends.append(end)
        return stem, self.ends.index(end) + 1

    def end_of(self, code: int) -> str:
        """Return an end by its number; that of the first accepted one for 0."""
        return self.ends[code - 1] if code else (*self.ends, *self.accepted)[0]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Image ids whose files are looked for."""

    image_ids: ImageIds
    prefix: str = ""
    """What the ids begin with, and the paths below the folder do not."""

    def subfolders(self) -> set[str]:
        """Return the folders that the files are in: empty, or with a slash at the end."""
        if not self.prefix and not _holds_slash(self.image_ids):
            return {""}
        found = set()
        for image_id in self.image_ids:
            folder, slash, _ = image_id.removeprefix(self.prefix).rpartition("/")
            found.add(folder + slash)
        return found


def _holds_slash(image_ids: ImageIds) -> bool:
    column = image_ids.column
    starts = range(0, len(column), _TOGETHER)
    return any(
        (np.ascontiguousarray(column[start : start + _TOGETHER]).view(np.uint8) == ord("/")).any()
        for start in starts
    )


def find_files(folder: Place, names: FileNames, wanted: Sequence[Wanted]) -> list[Codes]:
    """Return for each of some lists of ids the codes of their files in a folder.

    OSError when the folder cannot be listed; DataDirError where an id has two files.
    """
    found = [np.zeros(len(each.image_ids), dtype=np.uint8) for each in wanted]
    subfolders = set[str]().union(*(each.subfolders() for each in wanted))
    for subfolder, files in _names_by_folder(folder, subfolders):
        split = filter(None, map(names.split, files))
        while block := list(islice(split, _TOGETHER)):
            codes = np.array([code for _, code in block], dtype=np.uint8)
            for each, of_ids in zip(wanted, found, strict=True):
                ids = [f"{each.prefix}{subfolder}{stem}" for stem, _ in block]
                places = each.image_ids.find(ids)
                if (clash := _mark(of_ids, places, codes)) is not None:
                    row, other = clash
                    stem, code = block[row]
                    pair = sorted(stem + names.end_of(each) for each in (code, other))
                    raise _two_files(folder / subfolder, ids[row], pair)
    return found


def _mark(of_ids: Codes, places: NDArray[np.int64], codes: Codes) -> tuple[int, int] | None:
    """Write the codes of a block of files; return a file whose id has another, and that one's code.

    ``places`` are those of the files' ids, −1 for files that no id is wanted of.
    """
    (rows,) = np.nonzero(places >= 0)
    held = places[rows]
    before = of_ids[held]
    of_ids[held] = codes[rows]
    for others in (np.where(before == 0, codes[rows], before), of_ids[held]):
        (clashes,) = np.nonzero(others != codes[rows])
        if len(clashes):
            return int(rows[clashes[0]]), int(others[clashes[0]])
    return None


def _two_files(folder: Place, image_id: str, pair: Sequence[str]) -> DataDirError:
    return DataDirError(
        f"{folder}: image id {image_id} has the files {' and '.join(pair)}: expected one; move one "
        "away, or write image_suffixes into the manifest with the suffixes that images have"
    )


def all_files(
    folder: Place, names: FileNames, prefix: str = "", left_out: str | None = None
) -> tuple[ImageIds, Codes]:
    """Return the ids of all files of one kind in a folder and below it, and their codes.

    ``left_out`` is a folder below it that holds others. OSError when the folder cannot be listed;
    DataDirError where two files have one id, or a name cannot be an id.
    """
    codes = bytearray()

    def image_ids() -> Iterator[str]:
        for path in files_below(folder):
            parent, slash, name = path.rpartition("/")
            if _is_passed_over(path, left_out) or (split := names.split(name)) is None:
                continue
            image_id = f"{prefix}{parent}{slash}{split[0]}"
            if not is_image_id(image_id):
                raise DataDirError(
                    f"{printable(str(folder / path))}: cannot be the image id "
                    f"'{printable(image_id)}': {ID_RULE}; rename the file"
                )
            codes.append(split[1])
            yield image_id

    column = as_column(image_ids())
    order = np.argsort(column, kind="stable")
    column, ordered = column[order], np.frombuffer(codes, dtype=np.uint8)[order]
    (again,) = np.nonzero(column[1:] == column[:-1])
    if len(again):
        image_id = bytes(column[again[0]]).decode()
        stem = image_id.removeprefix(prefix)
        pair = sorted(stem + names.end_of(ordered[again[0] + step]) for step in (0, 1))
        raise _two_files(folder, image_id, pair)
    return ImageIds(column), ordered


def inner_folder(inner: Place, outer: Place) -> str | None:
    """Return the path of a folder below another one; None where it is not below it."""
    path = path_below(inner, outer)
    return None if path is None or path == Path() else path.as_posix()


def _is_passed_over(path: str, left_out: str | None) -> bool:
    is_hidden = path.startswith(".") or "/." in path
    is_other = left_out is not None and path.startswith(f"{left_out}/")
    return is_hidden or is_other or is_clutter(path.rpartition("/")[2])


def _names_by_folder(folder: Place, subfolders: set[str]) -> Iterator[tuple[str, Iterator[str]]]:
    """Yield the names in each of some folders below one; nothing for one that is not there."""
    if not isinstance(folder, Path) and len(subfolders) > 1:
        by_folder: dict[str, list[str]] = {}
        for path in files_below(folder):
            parent, slash, name = path.rpartition("/")
            by_folder.setdefault(parent + slash, []).append(name)
        yield from ((each, iter(by_folder.get(each, ()))) for each in subfolders)
        return
    for subfolder in sorted(subfolders):
        try:
            yield subfolder, _names(folder / subfolder)
        except (FileNotFoundError, NotADirectoryError):
            if not subfolder or not _is_there(folder):
                raise


def _names(folder: Place) -> Iterator[str]:
    """Return the names in a folder, of a folder of this machine without a list of all of them."""
    if not isinstance(folder, Path):
        return iter(names_at(folder))
    entries = os.scandir(folder)

    def names() -> Iterator[str]:
        with entries:
            yield from (entry.name for entry in entries)

    return names()


def _is_there(folder: Place) -> bool:
    return not isinstance(folder, Path) or folder.is_dir()


class KnownPictures:
    """The pictures of one split by what a list of them may call them; folders are listed once."""

    def __init__(self, folder: Place, names: FileNames, prefix: str = "") -> None:
        self._folder, self._file_names = folder, names
        self._stems: dict[str, frozenset[str]] = {}
        self.prefix = prefix
        """What ids begin with, and lists may leave out."""

    def id_of(self, text: str) -> str | None:
        """Return the id of the picture that a text names, with or without a suffix; None for none.

        A picture whose id is the whole text comes first.
        """
        for path in (text, self.without_suffix(text)):
            parent, slash, stem = path.removeprefix(self.prefix).rpartition("/")
            image_id = f"{self.prefix}{parent}{slash}{stem}"
            if is_image_id(image_id) and stem in self._stems_in(parent + slash):
                return image_id
        return None

    def without_suffix(self, text: str) -> str:
        """Return a file name without the suffix of a picture; other texts as they are."""
        split = self._file_names.split(text)
        return text if split is None else split[0]

    def _stems_in(self, folder: str) -> frozenset[str]:
        if folder not in self._stems:
            try:
                split = map(self._file_names.split, _names(self._folder / folder))
                self._stems[folder] = frozenset(each[0] for each in split if each is not None)
            except OSError:
                self._stems[folder] = frozenset()
        return self._stems[folder]
