"""Listed images and label maps that are not there: which, and what lies in their place."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from vocprep.data_dir.image_ids import ImageIds
from vocprep.data_dir.split_files import is_header
from vocprep.errors import DataDirError
from vocprep.storage.places import Place
from vocprep.storage.reading import names_at
from vocprep.validation import explain

_JPEG = (".jpg", ".jpeg")
_LABEL_KINDS = (".png", ".mat")
_TOGETHER = 4096
"""Names of a folder that are compared with ids at a time."""
_MOST_SIMILAR = 20
"""Names that are looked at in the place of a missing file."""


@dataclass(frozen=True, kw_only=True)
class ListedFiles:
    """Files of one kind that are listed, beside what is in their folder."""

    kind: str
    """``image`` or ``label map``."""
    paths: tuple[Place, ...]
    names: frozenset[str]
    """What the folder holds, clutter left out."""

    @cached_property
    def missing(self) -> tuple[Place, ...]:
        """Those that are not in the folder."""
        return tuple(path for path in self.paths if path.name not in self.names)

    def in_words(self) -> str:
        """Return the first missing file, how many there are, and what to do about them."""
        first = self.missing[0]
        advice = self.what_to_do(first) or "add the files or remove the ids from the split file"
        if is_header(first.stem):
            advice = f"{first.stem} looks like a header of the split file; delete its line"
        return (
            f"{first}: the {self.kind} of a listed image id is missing "
            f"({len(self.missing):,} of {len(self.paths):,} {self.kind}s); {advice}"
        )

    def what_to_do(self, path: Place) -> str | None:
        """Return what lies in the place of a missing file, and what to do; None for nothing."""
        found = self._in_place_of(path)
        return found and f"found {found} there: {_advice(path, Path(found), self.kind)}"

    def _in_place_of(self, path: Place) -> str | None:
        """Return the file that probably is the missing one under another name."""
        stem = path.stem.casefold()
        for separator in (".", "_", "-"):
            start = bisect_left(self._sorted, (f"{stem}{separator}", ""))
            similar = self._sorted[start : start + _MOST_SIMILAR]
            names = [name for folded, name in similar if folded.startswith(f"{stem}{separator}")]
            if names:
                return min(names, key=lambda name: (name.casefold() != path.name, name))
        return None

    @cached_property
    def _sorted(self) -> list[tuple[str, str]]:
        return sorted((name.casefold(), name) for name in self.names)


def holds_all(folder: Place, parts: Sequence[ImageIds], suffix: str) -> bool:
    """Return whether a folder can be listed and holds a file per id, without a list of its names.

    The folder is listed once: ten thousand stat calls take seconds on a network disk.
    """
    found = [np.zeros(len(image_ids), dtype=bool) for image_ids in parts]
    if not isinstance(folder, Path):
        try:
            listed = names_at(folder)
        except OSError:
            return False
        return all(f"{image_id}{suffix}" in listed for part in parts for image_id in part)
    try:
        with os.scandir(folder) as entries:
            names = (entry.name for entry in entries)
            stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
            while block := list(islice(stems, _TOGETHER)):
                for image_ids, is_found in zip(parts, found, strict=True):
                    is_found[image_ids.places(block)] = True
    except OSError:
        return False
    return all(bool(is_found.all()) for is_found in found)


def list_folder(kind: str, paths: Sequence[Place]) -> ListedFiles:
    """Return the listed files, all of one folder, beside what the folder holds.

    DataDirError when there is no such folder, or when it cannot be read.
    """
    folder = paths[0].parent
    try:
        names = names_at(folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataDirError(
            f"{folder}: expected the folder of the {kind}s, found none ({explain(error)})"
        ) from error
    except OSError as error:
        raise DataDirError(
            f"{folder}: the folder of the {kind}s cannot be read: {explain(error)}"
        ) from error
    return ListedFiles(kind=kind, paths=tuple(paths), names=names)


def _advice(path: Place, found: Path, kind: str) -> str:
    """Return what makes the found file the expected one."""
    expected, suffix = path.suffix, found.suffix.casefold()
    if suffix == expected or {suffix, expected} <= set(_JPEG):
        same = found.name.casefold() == path.name.casefold()
        return f"rename it to {path.name}{' (upper and lower case count)' if same else ''}"
    if kind == "image":
        return f"convert it to JPEG, as {path.name}"
    if suffix in _LABEL_KINDS:
        return f'set label_kind = "{suffix[1:]}" in the manifest, or convert it to {path.name}'
    if suffix in _JPEG:
        return f"export the label map as {path.name} from its source, since JPEG changes ids"
    return f"convert it to {path.name}, which holds the ids"
