"""Listed images and label maps that are not there: which, and what lies in their place."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from vocprep.data_dir.folders import FileNames
from vocprep.data_dir.split_files import is_header
from vocprep.errors import DataDirError
from vocprep.storage.places import Place
from vocprep.storage.reading import names_at
from vocprep.validation import explain

_JPEG = (".jpg", ".jpeg")
_LABEL_KINDS = {".png": "png", ".mat": "mat", ".npy": "npy", ".tif": "tiff", ".tiff": "tiff"}
_MOST_SIMILAR = 20
"""Names that are looked at in the place of a missing file."""


@dataclass(frozen=True, kw_only=True)
class SearchedFolder:
    """A folder in which files of one kind are looked for."""

    names: FileNames
    """Which files they are, and of what kind."""
    place: Place
    found: frozenset[str]
    """The names in it, clutter left out."""

    @classmethod
    def of(cls, names: FileNames, place: Place) -> SearchedFolder:
        """List a folder; DataDirError when there is none, or when it cannot be read."""
        try:
            return cls(names=names, place=place, found=names_at(place))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataDirError(
                f"{place}: expected the folder of the {names.kind}s, found none ({explain(error)})"
            ) from error
        except OSError as error:
            raise DataDirError(
                f"{place}: the folder of the {names.kind}s cannot be read: {explain(error)}"
            ) from error

    @classmethod
    def of_any(cls, names: FileNames, place: Place) -> SearchedFolder:
        """List a folder, with nothing in it where it cannot be listed."""
        try:
            return cls.of(names, place)
        except DataDirError:
            return cls(names=names, place=place, found=frozenset())

    def in_words(self, stem: str, missing: int, total: int, *, is_listed: bool = True) -> str:
        """Return that a file is missing, one of so many, and what to do about them.

        ``stem`` is the end of its image id that the file's name begins with; ``is_listed`` whether
        a list names it, and not the image in its folder alone.
        """
        path = self.expected(stem)
        owner = "a listed image id" if is_listed else "an image"
        others = "remove the ids from the split file" if is_listed else "move the images away"
        advice = self.what_to_do(stem) or f"add the files or {others}"
        if is_listed and is_header(stem):
            advice = f"{stem} looks like a header of the split file; delete its line"
        return (
            f"{path}: the {self.names.kind} of {owner} is missing "
            f"({missing:,} of {total:,} {self.names.kind}s); {advice}"
        )

    def expected(self, stem: str) -> Place:
        """Return the path that a missing file is expected at."""
        return self.place / f"{stem}{self.names.end_of(0)}"

    def what_to_do(self, stem: str) -> str | None:
        """Return what lies in the place of a missing file, and what to do; None for nothing."""
        found = self._in_place_of(stem)
        return found and f"found {found} there: {self._advice(stem, found)}"

    def _in_place_of(self, stem: str) -> str | None:
        """Return the file that probably is the missing one under another name."""
        key, expected = _key(stem), self.expected(stem).name
        for separator in (self.names.end_of(0), ".", "_", "-"):
            start = bisect_left(self._sorted, (f"{key}{_key(separator)}", ""))
            similar = self._sorted[start : start + _MOST_SIMILAR]
            names = [
                name for folded, name in similar if folded.startswith(f"{key}{_key(separator)}")
            ]
            if names:
                return min(names, key=lambda name: (_key(name) != _key(expected), name))
        return None

    @cached_property
    def _sorted(self) -> list[tuple[str, str]]:
        return sorted((_key(name), name) for name in self.found)

    def _advice(self, stem: str, found: str) -> str:
        """Return what makes the found file the expected one."""
        if _composed(found).startswith(_composed(stem)) and not found.startswith(stem):
            form = "NFD" if unicodedata.is_normalized("NFD", found) else "NFC"
            return (
                f"the same letters, composed otherwise (the file's name is in Unicode's {form}); "
                "write the id as the file has it, or rename the file"
            )
        suffix = PurePosixPath(found).suffix.casefold()
        if self.names.kind == "image":
            return self._advice_on_image(stem, found, suffix)
        return self._advice_on_label_map(stem, found, suffix)

    def _advice_on_label_map(self, stem: str, found: str, suffix: str) -> str:
        expected = self.expected(stem).name
        if suffix == PurePosixPath(expected).suffix.casefold():
            rest = found.removeprefix(stem)
            if rest != found and rest.casefold() != self.names.end_of(0).casefold():
                return f'rename it to {expected}, or set label_suffix = "{rest}" in the manifest'
            return _rename(expected, found)
        if suffix in _LABEL_KINDS:
            kind = _LABEL_KINDS[suffix]
            return f'set label_kind = "{kind}" in the manifest, or convert it to {expected}'
        if suffix in _JPEG:
            return f"export the label map as {expected} from its source, since JPEG changes ids"
        return f"convert it to {expected}, which holds the ids"

    def _advice_on_image(self, stem: str, found: str, suffix: str) -> str:
        expected = self.expected(stem).name
        if suffix in self.names.accepted:
            return _rename(stem + PurePosixPath(found).suffix, found)
        if suffix in (*_JPEG, *_LABEL_KINDS, ".webp", ".bmp") and suffix not in (".mat", ".npy"):
            return f'add "{suffix}" to image_suffixes in the manifest, or convert it to {expected}'
        return f"convert it to one of {', '.join(self.names.accepted)}"


def _rename(expected: str, found: str) -> str:
    is_same = found.casefold() == expected.casefold()
    return f"rename it to {expected}{' (upper and lower case count)' if is_same else ''}"


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _key(name: str) -> str:
    """Return a name without what often differs: letter case, and how letters are composed."""
    return _composed(name).casefold()
