"""Lists of the images of a split, wherever they are: text, a table (CSV), or JSON.

A table's images are in the column named like ``id``, ``image`` or ``file_name``, else in its first
one; with a column ``split``, those rows count that name the split. JSON holds a list of images, or
one for each split.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vocprep.data_dir.folders import KnownPictures
from vocprep.data_dir.image_ids import as_column
from vocprep.data_dir.split_files import (
    ListedIds,
    bad_entry,
    check_once_each,
    listed_id,
    read_split_file,
)
from vocprep.errors import DataDirError
from vocprep.files.names import is_plain_name
from vocprep.files.reading import MAX_TEXT_BYTES, lines_of, read_file, read_json
from vocprep.manifests import SplitFlags
from vocprep.validation import explain, printable

_IMAGE_COLUMN = re.compile(
    r"(image|img|picture|file|path|name|id|key)([ _-]?(id|name|path|file))?", re.IGNORECASE
)
_SPLIT_COLUMN = re.compile(r"split|subset", re.IGNORECASE)
_DELIMITERS = ",;\t|"
_MOST_SHOWN = 10
Entry = tuple[int, str]
"""The number of a row or an item, from 1, and the image that it names."""


def read_split_list(
    path: Path, split: str, pictures: KnownPictures, flags: SplitFlags | None = None
) -> ListedIds:
    """Return the image ids that a list has for a split, each with its line, row or item.

    Raises FileNotFoundError when there is no such file; DataDirError when it cannot be read, has
    nothing about the split, or names an image twice, and for an entry that is no image id.
    """
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return read_split_file(path, pictures, flags)
    unit, entries = ("row", _rows) if suffix == ".csv" else ("item", _items)
    try:
        found = list(entries(path, split))
    except (FileNotFoundError, DataDirError):
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise DataDirError(
            f"{path}: cannot be read as a list of images: {explain(error)}"
        ) from error
    numbers = np.array([number for number, _ in found], dtype=np.int32)
    listed = ListedIds(as_column(_image_ids(path, unit, found, pictures)), numbers, unit)
    check_once_each(path, listed)
    return listed


def _image_ids(
    path: Path, unit: str, entries: Sequence[Entry], pictures: KnownPictures
) -> Iterator[str]:
    for number, text in entries:
        if is_plain_name(text):
            yield pictures.prefix + text
            continue
        words = text.split()
        image_id = listed_id(text, words, pictures) if words else None
        if image_id is None:
            raise bad_entry(path, f"{unit} {number}", text, words)
        yield image_id


def listed_splits(path: Path) -> dict[str, list[str]]:
    """Return what a table with a column ``split``, or a JSON object, names for each split.

    A table without such a column has none. Raises as ``read_split_list`` does.
    """
    found: dict[str, list[str]] = {}
    try:
        if path.suffix.lower() == ".csv":
            for _, split, image in _table(path):
                if split:
                    found.setdefault(split, []).append(image)
        elif isinstance(value := read_json(path), dict):
            found = {split: [image for _, image in _items(path, split)] for split in value}
    except (OSError, ValueError, csv.Error) as error:
        raise DataDirError(
            f"{path}: cannot be read as a list of images: {explain(error)}"
        ) from error
    return found


def _rows(path: Path, split: str) -> Iterator[Entry]:
    """Yield the images of a table's rows, of those of the split where it has such a column."""
    others, is_found = set[str](), False
    for number, named, image in _table(path):
        if named is not None and named != split:
            others.add(named)
            continue
        is_found = True
        yield number, image
    if others and not is_found:
        raise _no_split(path, split, sorted(others), "rows")


def _table(path: Path) -> Iterator[tuple[int, str | None, str]]:
    """Yield each row's number, its split, None where there is no such column, and its image."""
    lines = list(lines_of(read_file(path, MAX_TEXT_BYTES)))
    first = next((line for line in lines if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count) if first else ","
    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    cells = next((row for row in rows if any(cell.strip() for cell in row)), [])
    image = _column(_IMAGE_COLUMN, cells)
    split_column = _column(_SPLIT_COLUMN, cells)
    has_header = image is not None or split_column is not None
    if split_column is not None and image is None:
        image = 0 if split_column else min(1, len(cells) - 1)
    start = chain() if has_header else iter([cells])
    number = rows.line_num - (0 if has_header else 1)
    needed = max(image or 0, split_column or 0)
    for row in chain(start, rows):
        number = max(number + 1, rows.line_num)
        if not any(cell.strip() for cell in row):
            continue
        if len(row) <= needed:
            raise DataDirError(
                f"{path}: row {number}: expected at least {needed + 1} cells, found {len(row)}; "
                "add what is missing, or delete the row"
            )
        named = None if split_column is None else row[split_column].strip()
        yield number, named, row[image or 0].strip()


def _column(form: re.Pattern[str], cells: Sequence[str]) -> int | None:
    """Return the first column whose name has a form."""
    return next((n for n, cell in enumerate(cells) if form.fullmatch(cell.strip())), None)


def _items(path: Path, split: str) -> Iterator[Entry]:
    """Yield the images of a JSON list, or of the split's list in a JSON object."""
    value: Any = read_json(path)
    if isinstance(value, dict):
        if split not in value:
            raise _no_split(path, split, sorted(value), "lists")
        value = value[split]
    if not isinstance(value, list):
        raise ValueError("expected a list of image ids, or an object with one for each split")
    for number, item in enumerate(value, start=1):
        if not isinstance(item, str):
            raise DataDirError(
                f"{path}: item {number}: expected the id or the file name of an image as text, "
                f"found {printable(repr(item), 60)}"
            )
        yield number, item.strip()


def _no_split(path: Path, split: str, found: Sequence[str], what: str) -> DataDirError:
    more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    shown = ", ".join(printable(each, 60) for each in found[:_MOST_SHOWN])
    return DataDirError(
        f"{path}: expected {what} of split {split}, found {what} of {shown}{more}; name the splits "
        "in the manifest as the file does"
    )
