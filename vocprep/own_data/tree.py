"""A folder's tree of names: listed once, within bounds, without a file being opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from vocprep.errors import DataDirError
from vocprep.files.names import is_clutter, kind_by_names
from vocprep.validation import explain

MOST_FILES = 5_000_000
"""Names that are listed; a folder of more is no dataset."""
OVERLAY_FILE = "init-overlay.png"
"""What ``init`` draws, which is neither a picture nor a mask."""
_LEFT_OUT = frozenset(
    {"__MACOSX", "__pycache__", "node_modules", "lost+found", "@eaDir", OVERLAY_FILE}
)
"""What systems and programs leave behind, beside names that begin with a dot."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tree:
    """The names below a folder; folders by their path from it, ``""`` for itself."""

    root: Path
    folders: Mapping[str, tuple[str, ...]]
    """Path of a folder → the names of its files, sorted."""
    outside: tuple[str, ...] = ()
    """Links that lead out of the folder, or nowhere, or to a folder: they are not followed."""
    unreadable: tuple[str, ...] = ()
    """Folders that cannot be listed."""
    undecodable: tuple[str, ...] = ()
    """Names that are not UTF-8."""

    @cached_property
    def children(self) -> Mapping[str, tuple[str, ...]]:
        """Path of a folder → the names of its folders, sorted."""
        found: dict[str, list[str]] = {}
        for folder in self.folders:
            if folder:
                parent, _, name = folder.rpartition("/")
                found.setdefault(parent, []).append(name)
        return {parent: tuple(sorted(names)) for parent, names in found.items()}

    def files(self, folder: str) -> tuple[str, ...]:
        """Return the names of the files in a folder; none where there is no such folder."""
        return self.folders.get(folder, ())

    def subfolders(self, folder: str) -> tuple[str, ...]:
        """Return the names of the folders in a folder."""
        return self.children.get(folder, ())

    def below(self, folder: str) -> Iterator[str]:
        """Yield the paths of all files below a folder, relative to it."""
        yield from self.files(folder)
        for name in self.subfolders(folder):
            yield from (f"{name}/{path}" for path in self.below(join(folder, name)))

    def has_files_below(self, folder: str) -> bool:
        """Return whether a folder, or one below it, holds a file."""
        return next(self.below(folder), None) is not None


@dataclass(kw_only=True)
class _Listing:
    """What is found while a tree is listed."""

    root: Path
    count: int = 0
    outside: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    undecodable: list[str] = field(default_factory=list)

    @cached_property
    def real_root(self) -> Path:
        return self.root.resolve()

    def add(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the names of the files and of the folders in a folder."""
        files: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(self.root / folder) as entries:
                for entry in entries:
                    self._add_entry(folder, entry, files, folders)
        except OSError as error:
            if not folder:
                raise DataDirError(f"{self.root}: cannot be listed: {explain(error)}") from error
            self.unreadable.append(folder)
        return files, folders

    def _add_entry(
        self, folder: str, entry: os.DirEntry[str], files: list[str], folders: list[str]
    ) -> None:
        name = entry.name
        if is_clutter(name) or name.startswith(".") or name in _LEFT_OUT:
            return
        path = join(folder, name)
        if not _is_text(name):
            self.undecodable.append(path)
        elif entry.is_symlink():
            if self._leads_to_file(path):
                files.append(name)
            else:
                self.outside.append(path)
        elif entry.is_dir(follow_symlinks=False):
            folders.append(name)
        elif entry.is_file(follow_symlinks=False):
            files.append(name)
        self.count += 1
        if self.count > MOST_FILES:
            raise DataDirError(
                f"{self.root}: more than {MOST_FILES:,} files; name the folder of the dataset"
            )

    def _leads_to_file(self, path: str) -> bool:
        """Return whether a link leads to a file below the root."""
        try:
            target = (self.root / path).resolve()
        except (OSError, RuntimeError):  # a link to itself
            return False
        return target.is_relative_to(self.real_root) and target.is_file()


def list_tree(root: Path) -> Tree:
    """List the names below a folder; DataDirError where it cannot be listed or is none.

    Clutter, hidden files, dataset versions and runs are passed over. Of links, only those to files
    below the folder are followed.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DataDirError(f"{root}: expected a folder of pictures and masks, found {found}")
    listing, folders, waiting = _Listing(root=root), {}, [""]
    while waiting:
        folder = waiting.pop()
        files, subfolders = listing.add(folder)
        if folder and _is_made_by_vocprep(files, subfolders):
            continue
        folders[folder] = tuple(sorted(files))
        waiting.extend(join(folder, name) for name in subfolders)
    return Tree(
        root=root,
        folders=folders,
        outside=tuple(sorted(listing.outside)),
        unreadable=tuple(sorted(listing.unreadable)),
        undecodable=tuple(sorted(listing.undecodable)),
    )


def join(folder: str, name: str) -> str:
    """Return the path of a name in a folder.

    >>> join("", "images"), join("data", "images")
    ('images', 'data/images')
    """
    return f"{folder}/{name}" if folder else name


def _is_made_by_vocprep(files: list[str], folders: list[str]) -> bool:
    names = frozenset((*files, *folders))
    made = names & {"dataset.json", "run.json", "labels.json", "samples.jsonl"}
    return bool(made) and kind_by_names(names) is not None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
