"""Files that list the pictures of a split: which there are, and which pictures they name."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from vocprep.data_dir.split_lists import listed_splits
from vocprep.errors import DataDirError
from vocprep.files.reading import parse_json, read_file, read_text_lines
from vocprep.own_data.layouts.found import is_mask, is_picture, suffix_of
from vocprep.own_data.tree import Tree, join
from vocprep.validation import explain

SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
"""Names that splits have; the first that is there is the first split."""
USUAL = {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}
"""What heads are trained and validated on by default, by other names of it."""
OTHER_NAMES = ("trainval", "default", "all", "minival")
_FOLDERS = (
    *("ImageSets/Segmentation", "ImageSets/Main", "ImageSets"),
    *("splits", "split", "lists", "sets", "imagesets", ""),
)
_SUFFIXES = (".txt", ".csv", ".json")
_MAX_BYTES = 64 << 20
_NAME = re.compile("|".join(re.escape(name) for name in (*SPLIT_NAMES, *OTHER_NAMES)))


@dataclass(frozen=True, kw_only=True)
class ListedSplit:
    """What a split list names."""

    split: str
    path: str
    """Of the list, below the data dir."""
    image_ids: tuple[str, ...]
    """Of pictures that are there, each once, in the order of the list."""
    unknown: tuple[str, ...]
    """Entries that name no picture."""
    is_plain: bool
    """Whether each line is an image id, so that builds can read the list itself."""

    @property
    def name(self) -> str:
        """The path, or the split and the path of a file that names several."""
        return f"{self.split} of {self.path}" if _is_table(self.path) else self.path


def list_files(tree: Tree, root: str) -> tuple[str, ...]:
    """Return the split lists of a tree: all those of the first folder that has some.

    Without a list for each split, that is ``splits.csv`` or ``splits.json``, which names several.
    """
    for folder in _FOLDERS:
        where = join(root, folder) if folder else root
        files = sorted(tree.files(where))
        names = [name for name in files if _is_list(name)] or list(filter(_is_table, files))[:1]
        if names:
            return tuple(join(where, name) for name in sorted(names, key=order_of))
    return ()


def order_of(path: str) -> tuple[int, str]:
    """Return the key that sorts splits: train, val, test, then others by name."""
    stem = PurePosixPath(path).stem.lower()
    known = (*SPLIT_NAMES, *OTHER_NAMES)
    return known.index(stem) if stem in known else len(known), path


def _is_list(name: str) -> bool:
    stem = PurePosixPath(name).stem.lower()
    return suffix_of(name) in _SUFFIXES and _NAME.fullmatch(stem) is not None


def _is_table(path: str) -> bool:
    stem = PurePosixPath(path).stem.lower()
    return suffix_of(path) in (".csv", ".json") and stem in ("split", "splits")


def read_lists(tree: Tree, path: str, pictures: Collection[str]) -> list[ListedSplit]:
    """Read a list, of one split or of several, by the image ids of the pictures that there are.

    Entries may be ids, file names, paths, pairs of paths, VOC's ids with flags, the rows of a CSV
    table or of a JSON list. DataDirError where the file cannot be read, or is to name
    several splits and names none.
    """
    if not _is_table(path):
        return [_listed(path, PurePosixPath(path).stem, _entries(tree, path), pictures)]
    where = tree.root / path
    found = listed_splits(where)
    if not found:
        raise DataDirError(
            f"{where}: expected the splits of pictures: a table with columns image and split, or a "
            "JSON object with a list for each split; correct or rename it, or choose --split 80/20"
        )
    return [_listed(path, split, found[split], pictures) for split in sorted(found, key=order_of)]


def _listed(
    path: str, split: str, entries: Sequence[str], pictures: Collection[str]
) -> ListedSplit:
    names = _Names.of(pictures, split)
    found: dict[str, None] = {}
    unknown: list[str] = []
    for entry in entries:
        image_id = names.find(entry) or names.find(_first_of(entry))
        if image_id is None:
            unknown.append(entry)
        else:
            found[image_id] = None
    return ListedSplit(
        split=split,
        path=path,
        image_ids=tuple(found),
        unknown=tuple(unknown),
        is_plain=suffix_of(path) == ".txt" and list(found) == list(entries),
    )


def _entries(tree: Tree, path: str) -> list[str]:
    """Return the entries of a list in its order."""
    where = tree.root / path
    try:
        if suffix_of(path) == ".json":
            return list(_of_json(parse_json(read_file(where, _MAX_BYTES))))
        lines = [line.strip() for line in read_text_lines(where)]
    except (OSError, ValueError) as error:
        raise DataDirError(f"{where}: cannot be read as a split list: {explain(error)}") from error
    kept = [line for line in lines if line and not line.startswith("#")]
    return list(_of_table(kept)) if suffix_of(path) == ".csv" else kept


def _of_json(value: object) -> Iterator[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError("expected a list of image ids")
    yield from value


def _of_table(lines: list[str]) -> Iterator[str]:
    for row in csv.reader(lines):
        if row and row[0].strip().lower() not in ("id", "image", "image_id", "file", "filename"):
            yield row[0].strip()


def _first_of(line: str) -> str:
    """Return the first word of a pair of paths, or of an id with VOC's flag; else the line.

    >>> _first_of("/d/a.png /d/annot/a.png"), _first_of("im1 -1"), _first_of("a b")
    ('/d/a.png', 'im1', 'a b')
    """
    words = [word.strip("'\"") for word in re.split(r"[\s,;]+", line) if word]
    is_pair = len(words) == 2 and all(is_mask(word) or is_picture(word) for word in words)
    is_flagged = len(words) == 2 and words[1] in ("-1", "0", "1")
    return words[0] if is_pair or is_flagged else line.strip("'\"")


@dataclass(frozen=True, kw_only=True)
class _Names:
    """How lists may name the pictures that there are."""

    pictures: Collection[str]
    by_end: Mapping[str, str | None]
    """Last part of an id → the id; None where several end so."""
    split: str

    @classmethod
    def of(cls, pictures: Collection[str], split: str) -> _Names:
        by_end: dict[str, str | None] = {}
        for image_id in pictures:
            end = image_id.rpartition("/")[2]
            by_end[end] = None if end in by_end else image_id
        return cls(pictures=pictures, by_end=by_end, split=split)

    def find(self, entry: str) -> str | None:
        """Return the image id that an entry names; None where it names no picture."""
        path = entry.replace("\\", "/").removeprefix("./")
        stem = path[: -len(suffix_of(path))] if is_picture(path) else path
        for candidate in (path, stem):
            parts = [part for part in candidate.split("/") if part]
            for start in range(len(parts)):
                tail = "/".join(parts[start:])
                for named in (tail, f"{self.split}/{tail}"):
                    if named in self.pictures:
                        return named
        return self.by_end.get(stem.rpartition("/")[2])
