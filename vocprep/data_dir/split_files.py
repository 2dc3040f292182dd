"""Split files: the image ids of a split, one per line.

A line is an image id, or the name of a picture with its suffix. VOC's files of one class hold a
flag after each id: 1 where the image shows the class, 0 where only objects that are marked
difficult show it, -1 where none does. Which of them belong to a split is chosen by ``SplitFlags``.
A line that looks like anything else, and names no picture, is refused, never read in part.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vocprep.data_dir.folders import KnownPictures
from vocprep.data_dir.image_ids import Column, ImageIds, as_column
from vocprep.errors import DataDirError
from vocprep.files.ids import ID_RULE, is_image_id
from vocprep.files.names import is_plain_name
from vocprep.files.reading import MAX_TEXT_BYTES, lines_of
from vocprep.manifests import SplitFlags
from vocprep.storage.places import Place
from vocprep.storage.reading import read_source
from vocprep.validation import explain, printable

_CHOSEN: Mapping[SplitFlags, frozenset[int]] = {
    "positive": frozenset({1}),
    "present": frozenset({0, 1}),
    "all": frozenset({-1, 0, 1}),
}
_FLAGS = {"-1": -1, "0": 0, "1": 1, "+1": 1}
_NO_FLAG = 2
_SUFFIX = re.compile(r"\.(jpe?g|png|mat|bmp|gif|tiff?|webp|ppm|xml|txt)", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_HEADER = re.compile(r"id|name|(image|img|file)_?(id|name)?", re.IGNORECASE)
"""Words that tables have above their column of ids."""
_SHORT = 3
"""Digits of a number that may be a label."""
_LONGEST_SHOWN = 80


class ListedIds(Mapping[str, int]):
    """The image ids of a list in its order, each with the number of its line.

    They are held as columns: 16 bytes per id of VOC's.
    """

    def __init__(self, column: Column, numbers: NDArray[np.int32], unit: str = "line") -> None:
        self.column = column
        """[N]"""
        self.numbers = numbers
        """[N]: from 1."""
        self.unit = unit
        """What is numbered: ``line``, ``row`` or ``item``."""

    def sorted(self) -> ImageIds:
        """Return the ids in sorted order."""
        return ImageIds(np.sort(self.column))

    def __getitem__(self, image_id: str) -> int:
        (found,) = np.nonzero(self.column == image_id.encode())
        if not len(found):
            raise KeyError(image_id)
        return int(self.numbers[found[0]])

    def __iter__(self) -> Iterator[str]:
        return (image_id.decode() for image_id in self.column)

    def __len__(self) -> int:
        return len(self.column)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Lines:
    """The lines of a split file that hold an id."""

    column: Column
    """[N]: the ids."""
    numbers: NDArray[np.int32]
    """[N]: of the lines, from 1."""
    flags: NDArray[np.int8]
    """[N]: ``_NO_FLAG`` where a line holds an id alone."""

    @classmethod
    def read(cls, path: Place, pictures: KnownPictures, flags: SplitFlags | None) -> Self:
        """Read the lines; DataDirError naming the first that holds anything else."""
        numbers, values = array("i"), array("b")

        def image_ids() -> Iterator[str]:
            for number, text in enumerate(lines_of(read_source(path, MAX_TEXT_BYTES)), start=1):
                if words := text.split():
                    image_id, flag = _parse(path, number, words, text, pictures, flags)
                    numbers.append(number)
                    values.append(flag)
                    yield image_id

        column = as_column(image_ids())
        return cls(
            column=column,
            numbers=np.array(numbers, dtype=np.int32),
            flags=np.array(values, dtype=np.int8),
        )

    def kept(self, rows: NDArray[np.bool_]) -> ListedIds:
        """Return some of the lines."""
        return ListedIds(self.column[rows], self.numbers[rows])

    def id_at(self, row: int) -> str:
        """Return the id of a row."""
        return bytes(self.column[row]).decode()


def read_split_file(
    path: Place, pictures: KnownPictures, flags: SplitFlags | None = None
) -> ListedIds:
    """Return the image ids of a split file in its order, each with the number of its line.

    ``pictures`` are those that it may name. ``flags`` chooses the lines of a file with flags; files
    of ids alone are read whole. Blanks around an id and empty lines do not count. Raises
    FileNotFoundError when there is no such file; DataDirError when it cannot be read, naming the
    first line that is not an id or an id with a flag, when an id is listed twice, and for flags
    without a choice.
    """
    try:
        lines = _Lines.read(path, pictures, flags)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise DataDirError(f"{path}: cannot be read as a split file: {explain(error)}") from error
    is_flagged = bool((lines.flags != _NO_FLAG).any())
    if is_flagged:
        _check_flagged(path, lines)
    listed = ListedIds(lines.column, lines.numbers)
    check_once_each(path, listed, is_flagged=is_flagged)
    if is_flagged:
        return lines.kept(_chosen(path, lines, flags))
    return listed


def _parse(  # a line, where it is, and what it may mean
    path: Place,
    number: int,
    words: list[str],
    text: str,
    pictures: KnownPictures,
    flags: SplitFlags | None,
) -> tuple[str, int]:
    """Return the id and the flag of a line; DataDirError for a line that holds anything else."""
    if len(words) == 1 and is_plain_name(words[0]):
        return pictures.prefix + words[0], _NO_FLAG
    text = text.strip()
    if len(words) > 1 and words[-1] in _FLAGS:
        whole = pictures.id_of(text) if flags is None else None
        if whole is not None:  # a picture whose name ends with a number
            return whole, _NO_FLAG
        name = text[: -len(words[-1])].rstrip()
        image_id = pictures.prefix + name if is_plain_name(name) else pictures.id_of(name)
        if image_id is not None:
            return image_id, _FLAGS[words[-1]]
    image_id = listed_id(text, words, pictures)
    if image_id is None:
        raise bad_entry(path, f"line {number}", text, words)
    return image_id, _NO_FLAG


def listed_id(text: str, words: list[str], pictures: KnownPictures) -> str | None:
    """Return the image id that an entry of a list means; None where it looks like another thing.

    An entry that names no picture is taken for an id where it has the form of one, so that the
    message about missing files names it.
    """
    image_id = pictures.id_of(text)
    if image_id is not None:
        return image_id
    name = pictures.without_suffix(text)
    is_bare = len(words) == 1 and name != text  # a file name, whose suffix is no mistake
    if not is_image_id(name) or _other_than_id([name] if is_bare else words):
        return None
    if "/" in name and pictures.id_of(name.rpartition("/")[2]) is not None:
        return None  # a path from elsewhere
    return name if name.startswith(pictures.prefix) else pictures.prefix + name


def bad_entry(path: Place, where: str, text: str, words: list[str]) -> DataDirError:
    """Return the error about an entry of a list that is no image id."""
    likeness = printable(_likeness(words) or f"{ID_RULE}; rename the image and its label map")
    shown = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
    return DataDirError(
        f"{path}: {where}: expected an image id, found '{printable(shown)}': {likeness}"
    )


def _check_flagged(path: Place, lines: _Lines) -> None:
    """Raise DataDirError when some lines hold an id and a flag, and others an id alone."""
    (alone,) = np.nonzero(lines.flags == _NO_FLAG)
    if len(alone):
        flagged = int(np.argmax(lines.flags != _NO_FLAG))
        raise DataDirError(
            f"{path}: line {lines.numbers[flagged]}: expected an image id alone, as in line "
            f"{lines.numbers[alone[0]]}, found '{lines.id_at(flagged)} {lines.flags[flagged]}'; "
            "write a flag (-1, 0 or 1) in every line or in none; ids hold no blanks"
        )


def check_once_each(path: Place, listed: ListedIds, *, is_flagged: bool = False) -> None:
    """Raise DataDirError naming both places where an id is listed twice."""
    order = np.argsort(listed.column, kind="stable")
    ordered = listed.column[order]
    (again,) = np.nonzero(ordered[1:] == ordered[:-1])
    if len(again):
        earliest = again[np.argmin(order[again + 1])]
        first, second = order[earliest], order[earliest + 1]
        rename = ", or rename the image if the number is a part of its name"
        unit, image_id = listed.unit, bytes(listed.column[second]).decode()
        raise DataDirError(
            f"{path}: {unit} {listed.numbers[second]}: image id {image_id} is listed twice, in "
            f"{unit} {listed.numbers[first]} too; remove one {unit}"
            f"{rename if is_flagged else ''}"
        )


def _chosen(path: Place, lines: _Lines, flags: SplitFlags | None) -> NDArray[np.bool_]:
    """Return which lines have a flag that is chosen; DataDirError where no choice was made."""
    if flags is None:
        counts = Counter(lines.flags.tolist())
        found = ", ".join(f"{count:,} with {flag}" for flag, count in counts.most_common())
        raise DataDirError(
            f"{path}: line {lines.numbers[0]}: flags follow the image ids ({found}), as in VOC's "
            "files of one class; choose with --split-flags, or split_flags in the manifest: "
            "positive (flag 1), present (1 and 0) or all"
        )
    return np.isin(lines.flags, list(_CHOSEN[flags]))


def _likeness(words: list[str]) -> str | None:
    """Return what an entry that names no picture looks like, and how to write it."""
    if other := _other_than_id(words):
        return other
    if len(words) == 1 and "/" in words[0]:
        return f"it looks like a path; write {_id_of(words[0])} alone"
    return None


def _other_than_id(words: list[str]) -> str | None:
    """Return what an entry looks like that is no id, and how to write it; None for an id."""
    text = " ".join(words)
    paths = [word for word in words if "/" in word or "\\" in word or _has_suffix(word)]
    if text.startswith(("#", "//", ";")):
        return "it looks like a comment; delete the line"
    if in_table := _of_a_table(text):
        return in_table
    if len(paths) > 1:
        return (
            f"it looks like the paths of an image and its label map; write {_id_of(paths[0])} alone"
        )
    if len(words) == 2 and _NUMBER.fullmatch(words[1]):
        return (
            "a number after the id is taken for a flag where it is -1, 0 or 1 only; write "
            f"{_id_of(words[0])} alone"
        )
    return _of_one_word(text) if len(words) == 1 else None


def _of_a_table(text: str) -> str | None:
    """Return what to do about a header, a list or a row; None where a line is none of them."""
    cells = [cell for cell in re.split(r"[,;|\s]+", text) if cell]
    if cells and is_header(cells[0]) and not any(map(str.isdigit, text)):
        return "it looks like a header; delete the line"
    if _are_ids(cells):
        return "it looks like several ids; write one id per line"
    if re.search(r"[,;|{}\[\]]", text):
        return f"it looks like a row of a table; write {_id_of(re.split('[,;|]', text)[0])} alone"
    return None


def is_header(word: str) -> bool:
    """Return whether a word is one that tables have above their column of ids."""
    return _HEADER.fullmatch(word.strip("'\"`")) is not None


def _are_ids(cells: list[str]) -> bool:
    """Return whether all cells are ids of one form, as a1 and a25 are."""
    forms = {re.sub(r"\d+", "0", cell) for cell in cells}
    if len(cells) < 2 or len(forms) > 1 or not all(map(is_plain_name, cells)):
        return False
    form = forms.pop()
    return "0" in form and (form != "0" or min(map(len, cells)) > _SHORT)


def _of_one_word(word: str) -> str | None:
    if word.strip("'\"`") != word:
        return f"drop the quotes and write {_id_of(word)}"
    is_path = "\\" in word or ("/" in word and _has_suffix(word))
    if is_path or word.startswith(("/", "./", "../")):
        return f"it looks like a path; write {_id_of(word)} alone"
    return f"drop the suffix and write {_id_of(word)}" if _has_suffix(word) else None


def _has_suffix(word: str) -> bool:
    return _SUFFIX.fullmatch(PurePosixPath(word.strip("'\"`")).suffix) is not None


def _id_of(word: str) -> str:
    """Return the id that a path or a quoted word probably means, for advice."""
    name = PurePosixPath(word.strip("'\"` []{}").replace("\\", "/")).name
    stem = PurePosixPath(name).stem if _has_suffix(name) else name
    return stem if is_image_id(stem) else "the id"
