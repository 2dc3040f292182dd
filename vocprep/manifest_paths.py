"""What all manifests share: their model, and paths below the data dir or beside the manifest."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict

from vocprep.files.reading import MAX_TOML_BYTES, read_file
from vocprep.validation import printable

T = TypeVar("T")


class ManifestModel(BaseModel):
    """Frozen, and an unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def each_once(items: tuple[T, ...], names: Sequence[str]) -> tuple[T, ...]:
    """Return the items; ValueError where two of their names are the same."""
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise ValueError(f"'{printable(repeated)}' is listed twice; remove one")
    return items


class ManifestPathWarning(UserWarning):
    """A path in a manifest that also means, or only means, a file of the current folder."""


def one_line(text: str) -> str:
    """Return a text that fits on a line of a table or a message; ValueError for any other."""
    if any(unicodedata.category(char) in _UNREADABLE for char in text):
        raise ValueError(f"'{printable(text)}' holds control characters or line ends")
    return text


_UNREADABLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories of control characters, surrogates, line and paragraph separators."""


def relative_path(path: str) -> str:
    """Return a path that stays below the data dir; ValueError for any other."""
    parts = set(path.split("/"))
    if path.startswith("/") or ".." in parts or "\0" in path or parts <= {"", "."}:
        raise ValueError(f"'{printable(path)}' must be a relative path without '..'")
    return path


def folder_below(path: str) -> str:
    """Return a folder of the data dir, or ``.`` for the data dir itself; ValueError otherwise."""
    return "." if path == "." else relative_path(path).removesuffix("/")


Reference = Annotated[str, AfterValidator(one_line)]
"""A shipped manifest's name, or the path of a ``.toml`` file."""
PathBelow = Annotated[str, AfterValidator(one_line), AfterValidator(relative_path)]
"""A path below the data dir."""
FolderBelow = Annotated[str, AfterValidator(one_line), AfterValidator(folder_below)]
"""A folder below the data dir, or ``.``."""


def locate_reference(reference: str, manifest: Path) -> str:
    """Return the name or path of a manifest that another one names.

    A relative path is looked for in the folder of ``manifest``, for a link also in that of the
    file that it links to, and at last in the current folder, where earlier versions looked.
    ManifestPathWarning when only the current folder has it, or has another file of that path.
    """
    if not reference.endswith(".toml") or Path(reference).is_absolute():
        return reference
    found, here = beside(reference, manifest), Path(reference)
    if exists(here):
        if not exists(found):
            better = os.path.relpath(here, manifest.parent)
            _warn(
                f"{manifest}: {reference!r} was found from the current folder, not from that of "
                f"the manifest, which its paths are relative to; write {better!r}"
            )
            return reference
        if not same_file(here, found):
            _warn(
                f"{manifest}: {reference!r} is {found}, relative to the manifest; the file of that "
                "path in the current folder is another one and not used"
            )
    return str(found)


def beside(reference: str, manifest: Path) -> Path:
    """Return a path relative to a manifest's folder, or to that of the file that it links to."""
    folders = [manifest.parent]
    if manifest.is_symlink():
        folders.append(manifest.resolve().parent)
    paths = [folder / reference for folder in folders]
    return next((path for path in paths if exists(path)), paths[0])


def exists(path: Path) -> bool:
    """Return whether there is something of this name, be it something that cannot be read."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def same_file(one: Path, other: Path) -> bool:
    """Return whether two paths are of one file, or of files with the same bytes."""
    try:
        if one.absolute() == other.absolute() or one.samefile(other):
            return True
        return read_file(one, MAX_TOML_BYTES) == read_file(other, MAX_TOML_BYTES)
    except OSError:
        return False


def _warn(text: str) -> None:
    warnings.warn(text, ManifestPathWarning, stacklevel=2)
