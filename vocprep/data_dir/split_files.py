"""Split files: the image ids of a split, one per line.

VOC's files of one class hold a flag after each id: 1 where the image shows the class, 0 where only
objects that are marked difficult show it, -1 where none does. Which of them belong to a split is
chosen by ``SplitFlags``. A line that holds anything else is refused, never read in part.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vocprep.errors import DataDirError
from vocprep.files.names import is_plain_name
from vocprep.files.reading import read_text_lines
from vocprep.manifests import SplitFlags
from vocprep.validation import explain, printable

PLAIN_NAME = "expected 1 to 64 characters, none outside A-Z a-z 0-9 _ -"
"""What ``is_plain_name`` takes, in words."""
_CHOSEN: Mapping[SplitFlags, frozenset[int]] = {
    "positive": frozenset({1}),
    "present": frozenset({0, 1}),
    "all": frozenset({-1, 0, 1}),
}
_FLAGS = {"-1": -1, "0": 0, "1": 1, "+1": 1}
_SUFFIX = re.compile(r"\.(jpe?g|png|mat|bmp|gif|tiff?|webp|ppm|xml|txt)", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_HEADER = re.compile(r"id|name|(image|img|file)_?(id|name)?", re.IGNORECASE)
"""Words that tables have above their column of ids."""
_SHORT = 3
"""Digits of a number that may be a label."""
_LONGEST_SHOWN = 80


class _Line(NamedTuple):
    """One line of a split file."""

    number: int
    image_id: str
    flag: int | None
    """None where the line holds an id alone."""


def read_split_file(path: Path, flags: SplitFlags | None = None) -> dict[str, int]:
    """Return the image ids of a split file in its order, each with the number of its line.

    ``flags`` chooses the lines of a file with flags; files of ids alone are read whole. Blanks
    around an id and empty lines do not count. Raises FileNotFoundError when there is no such file;
    DataDirError when it cannot be read, naming the first line that is not an id or an id with a
    flag, when an id is listed twice, and for flags without a choice.
    """
    try:
        texts = read_text_lines(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise DataDirError(f"{path}: cannot be read as a split file: {explain(error)}") from error
    lines = [
        _parse(path, number, words, text)
        for number, text in enumerate(texts, start=1)
        if (words := text.split())
    ]
    flagged = [line for line in lines if line.flag is not None]
    if flagged:
        _check_flagged(path, lines, flagged)
    _check_once_each(path, lines, is_flagged=bool(flagged))
    if flagged:
        lines = _choose(path, lines, flags)
    return {line.image_id: line.number for line in lines}


def _parse(path: Path, number: int, words: list[str], text: str) -> _Line:
    """Return the id and the flag of a line; DataDirError for a line that holds anything else."""
    if not is_plain_name(words[0]) or len(words) > 2 or (words[1:] and words[1] not in _FLAGS):
        shown = text.strip()
        shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"
        raise DataDirError(
            f"{path}: line {number}: expected an image id, found '{printable(shown)}': "
            f"{_what_to_do(words)}"
        )
    flag = _FLAGS[words[1]] if len(words) == 2 else None
    return _Line(number=number, image_id=words[0], flag=flag)


def _check_flagged(path: Path, lines: list[_Line], flagged: list[_Line]) -> None:
    """Raise DataDirError when some lines hold an id and a flag, and others an id alone."""
    alone = next((line for line in lines if line.flag is None), None)
    if alone is not None:
        raise DataDirError(
            f"{path}: line {flagged[0].number}: expected an image id alone, as in line "
            f"{alone.number}, found '{flagged[0].image_id} {flagged[0].flag}'; write a flag (-1, 0 "
            "or 1) in every line or in none; ids hold no blanks"
        )


def _check_once_each(path: Path, lines: list[_Line], *, is_flagged: bool) -> None:
    first_with: dict[str, int] = {}
    for line in lines:
        first = first_with.setdefault(line.image_id, line.number)
        if first != line.number:
            rename = ", or rename the image if the number is a part of its name"
            raise DataDirError(
                f"{path}: line {line.number}: image id {line.image_id} is listed twice, in line "
                f"{first} too; remove one line{rename if is_flagged else ''}"
            )


def _choose(path: Path, lines: list[_Line], flags: SplitFlags | None) -> list[_Line]:
    """Return the lines whose flag is chosen; DataDirError where no choice was made."""
    if flags is None:
        counts = Counter(line.flag for line in lines)
        found = ", ".join(f"{count:,} with {flag}" for flag, count in counts.most_common())
        raise DataDirError(
            f"{path}: line {lines[0].number}: flags follow the image ids ({found}), as in VOC's "
            "files of one class; choose with --split-flags, or split_flags in the manifest: "
            "positive (flag 1), present (1 and 0) or all"
        )
    return [line for line in lines if line.flag in _CHOSEN[flags]]


def _what_to_do(words: list[str]) -> str:
    """Return what a line that is no id looks like, and how to write it."""
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
    if len(words) > 1:
        return _of_several_words(words)
    return _of_one_word(text)


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


def _of_several_words(words: list[str]) -> str:
    if len(words) == 2 and _NUMBER.fullmatch(words[1]):
        return (
            "a number after the id is taken for a flag where it is -1, 0 or 1 only; write "
            f"{_id_of(words[0])} alone"
        )
    joined = "_".join(words)
    example = f", e.g. to {joined}" if is_plain_name(joined) else ""
    return (
        "ids hold no blanks; where they belong to the image's name, rename the image and its label "
        f"map{example}, else write the id alone"
    )


def _of_one_word(word: str) -> str:
    if word.strip("'\"`") != word:
        return f"drop the quotes and write {_id_of(word)}"
    if "/" in word or "\\" in word:
        return f"it looks like a path; write {_id_of(word)} alone"
    if _has_suffix(word):
        return f"drop the suffix and write {_id_of(word)}"
    return f"{PLAIN_NAME}; rename the image and its label map"


def _has_suffix(word: str) -> bool:
    return _SUFFIX.fullmatch(PurePosixPath(word.strip("'\"`")).suffix) is not None


def _id_of(word: str) -> str:
    """Return the id that a path or a quoted word probably means, for advice."""
    name = PurePosixPath(word.strip("'\"` []{}").replace("\\", "/")).name
    stem = PurePosixPath(name).stem if _has_suffix(name) else name
    return stem if is_plain_name(stem) else "the id"
