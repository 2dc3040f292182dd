"""Listed images and label maps that are not there: which, and what lies in their place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vocprep.errors import DataDirError
from vocprep.validation import explain

_JPEG = (".jpg", ".jpeg")
_LABEL_KINDS = (".png", ".mat")


@dataclass(frozen=True, kw_only=True)
class MissingFiles:
    """Files of one kind that are listed and not in their folder."""

    kind: str
    """``image`` or ``label map``."""
    paths: tuple[Path, ...]
    listed: int
    """How many files of this kind are listed."""
    names: frozenset[str]
    """What the folder holds."""

    def in_words(self) -> str:
        """Return the first missing file, how many there are, and what to do about them."""
        return (
            f"{self.paths[0]}: the {self.kind} of a listed image id is missing "
            f"({len(self.paths):,} of {self.listed:,} {self.kind}s); {self._what_to_do()}"
        )

    def _what_to_do(self) -> str:
        path = self.paths[0]
        found = _in_place_of(path, self.names)
        if found is None:
            return "add the files or remove the ids from the split file"
        return f"found {found} there: {_advice(path, Path(found), self.kind)}"


def find_missing(kind: str, paths: Sequence[Path]) -> MissingFiles:
    """Return which of the files, all of one folder, are not there.

    The folder is listed once: ten thousand stat calls take seconds on a network disk. DataDirError
    when there is no such folder, or when it cannot be read.
    """
    folder = paths[0].parent
    try:
        with os.scandir(folder) as entries:
            names = frozenset(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataDirError(
            f"{folder}: expected the folder of the {kind}s, found none ({explain(error)})"
        ) from error
    except OSError as error:
        raise DataDirError(
            f"{folder}: the folder of the {kind}s cannot be read: {explain(error)}"
        ) from error
    missing = tuple(path for path in paths if path.name not in names)
    return MissingFiles(kind=kind, paths=missing, listed=len(paths), names=names)


def _in_place_of(path: Path, names: frozenset[str]) -> str | None:
    """Return the file that probably is the missing one under another name."""
    stem = path.stem.casefold()
    same = [name for name in names if Path(name).stem.casefold() == stem]
    longer = [name for name in names if name.casefold().startswith((f"{stem}_", f"{stem}-"))]
    return min(same or longer, key=lambda name: (name.casefold() != path.name, name), default=None)


def _advice(path: Path, found: Path, kind: str) -> str:
    """Return what makes the found file the expected one."""
    expected, suffix = path.suffix, found.suffix.casefold()
    if suffix == expected or {suffix, expected} <= set(_JPEG):
        return f"rename it to {path.name}; upper and lower case count"
    if kind == "image":
        return f"convert it to JPEG, as {path.name}"
    if suffix in _LABEL_KINDS:
        return f'set label_kind = "{suffix[1:]}" in the manifest, or convert it to {path.name}'
    if suffix in _JPEG:
        return f"export the label map as {path.name} from its source, since JPEG changes ids"
    return f"convert it to a PNG of the ids, as {path.name}"
