"""Writing a folder as a whole: all of its new files appear, or what it held before stays.

New files are made in a staging folder inside it and moved by renames, which neither need room nor
cross file systems. What was there before waits in a folder whose name says how far the exchange
has come, so that it can be undone by the process itself when a call fails, and by the next one
after a kill:

1. The old files move to ``.tmp-replacing``, the marker file, which makes them valid, first.
2. ``.tmp-replacing`` becomes ``.tmp-replaced``: what has a final name from now on is new.
3. The new files get their names, the marker file last. Nothing can fail any more.
4. ``.tmp-replaced`` is deleted.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vocprep.errors import UsageError
from vocprep.files.locking import file_lock
from vocprep.files.names import TEMPORARY_PREFIX
from vocprep.files.writing import check_output_folder, remove_path, sync_folder

_REPLACING = f"{TEMPORARY_PREFIX}replacing"
_REPLACED = f"{TEMPORARY_PREFIX}replaced"


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """The exchange of a folder's files for those in a staging folder inside it."""

    folder: Path
    staged: Path
    marker: str
    """Name of the file that makes the others valid."""
    is_own: Callable[[str], bool]
    """Whether a name in the folder is one of the files that are exchanged."""

    def commit(self, names: Iterable[str]) -> None:
        """Give the staged files of these names their places, instead of all that were there.

        Without an error all of them have; with one, the folder holds what it held.
        """
        replacing, replaced = self.folder / _REPLACING, self.folder / _REPLACED
        try:
            replacing.mkdir()
            for name in self._own_names():
                _move(self.folder / name, replacing / name)
            replacing.rename(replaced)
            for name in sorted(set(names) - {self.marker}):
                _move(self.staged / name, self.folder / name)
            sync_folder(self.folder)
            _move(self.staged / self.marker, self.folder / self.marker)
        except BaseException:
            with suppress(OSError):  # the next writer undoes it then
                self.restore()
            raise
        with suppress(OSError):  # the next writer deletes it
            remove_path(replaced)
        sync_folder(self.folder)

    def restore(self) -> None:
        """Undo an exchange that did not come to its end, or finish one that did."""
        replacing, replaced = self.folder / _REPLACING, self.folder / _REPLACED
        refuse_links(replacing, replaced, self.staged)
        if replaced.is_dir():
            if os.path.lexists(self.folder / self.marker):
                remove_path(replaced)
            else:
                self._take_back()
                replaced.rename(replacing)
        if replacing.is_dir():
            names = sorted(path.name for path in replacing.iterdir())
            for name in sorted(names, key=lambda name: name == self.marker):
                _move(replacing / name, self.folder / name)
            replacing.rmdir()

    def _take_back(self) -> None:
        """Move new files that have their names already back to the staging folder."""
        self.staged.mkdir(exist_ok=True)
        for name in self._own_names():
            if not os.path.lexists(self.staged / name):
                _move(self.folder / name, self.staged / name)

    def _own_names(self) -> list[str]:
        """Return the names that are exchanged, the marker first."""
        own = sorted(path.name for path in self.folder.iterdir() if self.is_own(path.name))
        return sorted(own, key=lambda name: name != self.marker)


def is_being_replaced(folder: Path) -> bool:
    """Return whether an exchange of a folder's files was begun and has not come to its end."""
    return any(os.path.lexists(folder / name) for name in (_REPLACING, _REPLACED))


def _move(source: Path, target: Path) -> None:
    """Rename a file or folder to a name that is free."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


def refuse_links(*paths: Path) -> None:
    """Raise UsageError where a name of unfinished work is a link to a folder of somebody else."""
    for path in paths:
        if path.is_symlink():
            raise UsageError(
                f"{path}: expected a folder of vocprep's own, found a link to {path.readlink()}; "
                "delete the link, and run the same command again"
            )


@contextmanager
def locked_output(out: Path, note: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Make a folder and hold its lock; an empty one that this made does not outlive an error.

    UsageError when another process holds the lock, or where no folder can be made.
    """
    check_output_folder(out)
    is_new = not out.is_dir()
    out.mkdir(parents=True, exist_ok=True)
    busy = f"{out}: another vocprep is writing there; wait for it or choose another folder"
    try:
        with file_lock(out, busy=busy, note=note):
            yield
    except BaseException:
        if is_new:
            with suppress(OSError):  # it is not empty
                out.rmdir()
        raise


@contextmanager
def empty_staging(path: Path) -> Iterator[Path]:
    """Make a staging folder without what a killed process left in it; delete it at the end."""
    remove_path(path)
    path.mkdir()
    try:
        yield path
    finally:
        with suppress(OSError):  # the next writer deletes it
            remove_path(path)
