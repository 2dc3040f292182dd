"""What a folder holds, as far as the names in it show: for messages, and to pass clutter over."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from vocprep.errors import UsageError
from vocprep.files.locking import LOCK
from vocprep.validation import explain

TEMPORARY_PREFIX = ".tmp-"
"""Prefix of unfinished work, which the holder of the folder's file lock may delete."""
WEIGHTS_HINT: Final = ".weights.json"
"""In the folder of a dataset version, no part of it: where the build read the weights from."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


PLAIN_NAME = "expected 1 to 64 characters, none outside A-Z a-z 0-9 _ -"
"""What ``is_plain_name`` takes, in words."""


def is_plain_name(name: str) -> bool:
    """Return whether a name can be that of a split, and an image id as it is."""
    return _PLAIN_NAME.fullmatch(name) is not None


def check_names_differ(paths: Sequence[Path], names: Sequence[str], what: str) -> None:
    """Raise UsageError where two paths share a name: one's output would replace the other's.

    >>> check_names_differ([Path("a/x"), Path("b/x")], ["x", "x"], "predictions")
    Traceback (most recent call last):
    ...
    vocprep.errors.UsageError: a/x and b/x: expected different names, since predictions are named \
after them, found 'x' twice; rename one, or use different output folders
    """
    first_with: dict[str, Path] = {}
    for path, name in zip(paths, names, strict=True):
        if name in first_with:
            raise UsageError(
                f"{first_with[name]} and {path}: expected different names, since {what} are named "
                f"after them, found {name!r} twice; rename one, or use different output folders"
            )
        first_with[name] = path


_CLUTTER = re.compile(
    r"\._.*|\.DS_Store|\.localized|(ehthumbs|thumbs)\.db|desktop\.ini"  # macOS, Windows
    r"|.*~|#.*#|\.#.*|\..*\.sw[a-p]|.*\.bak"  # editors
    r"|\.nfs[0-9a-f]+|\.fuse_hidden[0-9a-f]+",  # network file systems
    re.IGNORECASE | re.DOTALL,
)
_SHARD = re.compile(r".+-\d{5}-of-\d{5}\.(h5|tar)")
_YEAR = re.compile(r"VOC20\d\d")
VERSION: Final = "a dataset version"
UNFINISHED: Final = "an unfinished build"
PULLING: Final = f"{TEMPORARY_PREFIX}pull"
"""Folder that the files of a dataset version are fetched into, inside the one that gets it."""
UNFINISHED_PULL: Final = "an unfinished pull"
UNINDEXED: Final = "shards without their dataset.json"
DATA_DIR: Final = "a data dir"
OTHER: Final = "a folder of other files"
_KINDS: tuple[tuple[str, Callable[[frozenset[str]], bool]], ...] = (
    (VERSION, lambda names: "dataset.json" in names),
    (UNFINISHED, lambda names: ".tmp-build" in names),
    (UNFINISHED_PULL, lambda names: PULLING in names),
    (UNINDEXED, lambda names: "samples.jsonl" in names or any(map(_SHARD.fullmatch, names))),
    ("an export", lambda names: "export.json" in names),
    ("a run", lambda names: "run.json" in names),
    (DATA_DIR, lambda names: bool(names & {"VOCdevkit", ".vocprep"})),
    (
        "a part of a data dir, which is the folder above VOCdevkit",
        lambda names: {"JPEGImages", "ImageSets"} <= names or any(map(_YEAR.fullmatch, names)),
    ),
    ("decoded label maps", lambda names: "labels.json" in names),
)
"""By the names in it: what a folder is, the first that fits."""


def is_clutter(name: str) -> bool:
    """Return whether a file has a name that systems and editors give files of their own.

    >>> [is_clutter(name) for name in ("._im001.jpg", "Thumbs.db", "train.txt~", "im001.jpg")]
    [True, True, True, False]
    """
    return _CLUTTER.fullmatch(name) is not None


def names_in(folder: Path) -> frozenset[str]:
    """Return the names in a folder, clutter left out; OSError when it cannot be listed."""
    with os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries if not is_clutter(entry.name))


def found_at(path: Path) -> str:
    """Return in words what is at a path: nothing, a file, or what kind of folder.

    >>> found_at(Path("/nowhere")), found_at(Path(__file__))
    ('nothing', 'a file')
    """
    try:
        names = names_in(path) - {LOCK}
    except FileNotFoundError:
        return "nothing"
    except NotADirectoryError:
        return "a file" if os.path.lexists(path) else "nothing"
    except OSError as error:
        return f"what cannot be read ({explain(error)})"
    if path.name.startswith(TEMPORARY_PREFIX):
        return "unfinished work"
    return kind_by_names(names) or _of_others(path, names)


def kind_by_names(names: frozenset[str]) -> str | None:
    """Return what kind of folder has these names in it; None for one of other files."""
    return next((words for words, fits in _KINDS if fits(names)), None)


def _of_others(path: Path, names: frozenset[str]) -> str:
    """Return what a folder without a kind of its own holds: the first dataset version or run."""
    if not names:
        return "an empty folder"
    for name in sorted(names):
        for marker, words in (("dataset.json", "dataset version"), ("run.json", "run")):
            if _is_there(path / name / marker):
                return f"a folder that holds the {words} {path / name}"
    return OTHER


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
