"""Files that name classes: of labelme, CVAT, Datumaro, CamVid, and plain lists."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence

from vocprep.errors import DataDirError
from vocprep.files.reading import read_text_lines
from vocprep.own_data.layouts.found import ClassList
from vocprep.own_data.tree import Tree, join
from vocprep.validation import explain, printable

IGNORED = "__ignore__"
"""labelme's name of pixels with -1."""
MOST_CLASSES = 32_768
_SHOWN = 80
_COLOURED = re.compile(r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})[\s,:]+(\S.*)")
"""A line of CamVid's label_colors.txt: red, green, blue, name."""
_NUMBERED = re.compile(r"(\d{1,5})\s*[:,;=\t ]\s*(\S.*)")
_COLOUR = re.compile(r"(\d{1,3}),(\d{1,3}),(\d{1,3})")

LABELMAP_NAMES = ("labelmap.txt", "label_map.txt")
COLOUR_NAMES = ("label_colors.txt", "label_colours.txt", "class_dict.csv")
PLAIN_NAMES = (
    *("class_names.txt", "classes.txt", "labels.txt", "names.txt", "codes.txt"),
    *("label_names.txt", "classnames.txt", "obj.names"),
)


def find_class_list(tree: Tree, folders: Sequence[str]) -> ClassList | None:
    """Return the class list of the first of some folders that holds one; None where none does.

    DataDirError for a file of such a name that names no classes.
    """
    for folder in folders:
        names = {name.lower(): name for name in tree.files(folder)}
        for expected, parse in _PARSERS.items():
            if expected in names:
                return _read(tree, join(folder, names[expected]), parse)
    return None


def _read(
    tree: Tree, path: str, parse: Callable[[str, list[tuple[int, str]]], ClassList]
) -> ClassList:
    where = tree.root / path
    try:
        lines = read_text_lines(where)
    except (OSError, ValueError) as error:
        raise DataDirError(f"{where}: cannot be read as a list of classes: {explain(error)}") from (
            error
        )
    kept = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    kept = [(number, line) for number, line in kept if line and not line.startswith("#")]
    if not kept:
        raise DataDirError(f"{where}: expected names of classes, found none; fill or remove it")
    if len(kept) > MOST_CLASSES:
        raise DataDirError(f"{where}: {len(kept):,} lines, expected at most {MOST_CLASSES:,}")
    try:
        return parse(path, kept)
    except _BadLineError as error:
        raise DataDirError(f"{where}: {error}") from error


class _BadLineError(Exception):
    """A line that is none of a class list; caught in this module."""


def _bad(number: int, line: str, expected: str) -> _BadLineError:
    shown = printable(line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…")
    return _BadLineError(f"line {number}: expected {expected}, found '{shown}'")


def _labelmap(path: str, lines: list[tuple[int, str]]) -> ClassList:
    """Parse ``name:red,green,blue:parts:actions``; the colour may be missing."""
    names, colours = [], []
    for number, line in lines:
        name, _, rest = line.partition(":")
        colour = _COLOUR.fullmatch(rest.partition(":")[0].replace(" ", ""))
        if not name.strip() or colour is None:
            raise _bad(number, line, "label:red,green,blue:parts:actions")
        names.append(name.strip())
        colours.append(_hex(number, line, colour.groups()))
    _check_colours_differ(lines, colours)
    return ClassList(path=path, names=tuple(names), first=0, colours=tuple(colours))


def _coloured(path: str, lines: list[tuple[int, str]]) -> ClassList:
    """Parse CamVid's ``red green blue name``, or names alone, one per line."""
    found = [(number, line, _COLOURED.fullmatch(line)) for number, line in lines]
    if not any(match for *_, match in found):
        return _plain(path, lines)
    names, colours = [], []
    for number, line, match in found:
        if match is None:
            raise _bad(number, line, "red green blue name")
        colours.append(_hex(number, line, match.groups()[:3]))
        names.append(match[4].strip())
    _check_colours_differ(lines, colours)
    return ClassList(path=path, names=tuple(names), first=0, colours=tuple(colours))


def _table(path: str, lines: list[tuple[int, str]]) -> ClassList:
    """Parse a CSV table with the columns name, r, g, b."""
    names, colours, kept = [], [], []
    for number, line in lines:
        cells = [cell.strip() for cell in next(csv.reader([line]))]
        if number == lines[0][0] and not any(cell.isdecimal() for cell in cells):
            continue  # the head
        if len(cells) < 4 or not cells[0]:
            raise _bad(number, line, "name,red,green,blue")
        names.append(cells[0])
        colours.append(_hex(number, line, cells[1:4]))
        kept.append((number, line))
    if not names:
        raise _bad(*lines[0], "name,red,green,blue below it")
    _check_colours_differ(kept, colours)
    return ClassList(path=path, names=tuple(names), first=0, colours=tuple(colours))


def _plain(path: str, lines: list[tuple[int, str]]) -> ClassList:
    """Parse a name per line, or an id and a name; labelme's list begins with that of -1."""
    numbered = [_NUMBERED.fullmatch(line) for _, line in lines]
    if all(numbered):
        ids = tuple(int(match[1]) for match in numbered if match)
        if len(set(ids)) == len(ids):
            names = tuple(match[2].strip() for match in numbered if match)
            return ClassList(path=path, names=names, ids=ids)
    names = tuple(line for _, line in lines)
    return ClassList(path=path, names=names, first=-1 if names[0] == IGNORED else None)


def _hex(number: int, line: str, levels: Sequence[str]) -> str:
    if not all(level.isdecimal() and int(level) <= 255 for level in levels):
        raise _bad(number, line, "red, green and blue from 0 to 255")
    return f"#{bytes(int(level) for level in levels).hex()}"


def _check_colours_differ(lines: Sequence[tuple[int, str]], colours: Sequence[str]) -> None:
    first_with: dict[str, int] = {}
    for (number, line), colour in zip(lines, colours, strict=True):
        if colour in first_with:
            words = f"another colour than that of line {first_with[colour]}, {colour}"
            raise _bad(number, line, words)
        first_with[colour] = number


_PARSERS: dict[str, Callable[[str, list[tuple[int, str]]], ClassList]] = {
    **dict.fromkeys(LABELMAP_NAMES, _labelmap),
    "class_dict.csv": _table,
    **dict.fromkeys(("label_colors.txt", "label_colours.txt"), _coloured),
    **dict.fromkeys(PLAIN_NAMES, _plain),
}
"""By the names of files, in small letters; the first that is there counts."""
