"""Unpack a tar archive as if it came from an enemy.

Only regular files and folders are written, below a new folder, under names that mean the same on
every filesystem; anything else is an ArchiveError that names the member. ``unpack`` is the whole
job: extract beside, check the counts, move into place, and the tree manifest last.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tarfile
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from vocprep.errors import ArchiveError
from vocprep.files import TEMPORARY_PREFIX
from vocprep.sources.digests import nothing_shown
from vocprep.sources.manifest import ExpectedFiles, Unpack
from vocprep.sources.trees import Tree, TreeFile, records_dir, write_tree

_GZIP_MAGIC = b"\x1f\x8b"
_BLOCK_BYTES = 1 << 20
_MOST_HEADER_BYTES = 1 << 20
"""No honest tar header is longer; tarfile would read a longer one into memory whole."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive on disk whose digests were seen to be right."""

    name: str
    """Its path below the data dir, which is what messages and the tree manifest call it."""
    path: Path
    sha256: str
    unpack: Unpack


def unpack(
    archive: Archive,
    data_dir: Path,
    *,
    partial: bool = False,
    advance: Callable[[int], None] = nothing_shown,
) -> Tree:
    """Unpack an archive into the data dir and record the tree; the caller holds the file's lock.

    ``advance`` hears of the archive's bytes as they are read. With ``partial`` the manifest's
    expected counts are not asked for. Raises ArchiveError when the archive is unsafe, damaged or
    incomplete; nothing of it is in place then. An interruption leaves no tree manifest, so the
    next run unpacks again.
    """
    folder = records_dir(data_dir) / f"{TEMPORARY_PREFIX}unpack-{archive.name.replace('/', '-')}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        files = extract(archive, folder, advance)
        if not partial:
            _check_counts(archive, files)
        _move_into(folder, data_dir, archive.name)
    except OSError as error:
        raise ArchiveError(
            f"{archive.path}: cannot be unpacked into {data_dir}: {error}; free the space or mend "
            "the folder, then run the same command again"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    tree = Tree(archive=archive.name, archive_sha256=archive.sha256, files=tuple(files))
    # One flush for all: no file may be recorded and yet empty after a power cut.
    os.sync()
    write_tree(data_dir, tree)
    return tree


def extract(
    archive: Archive, folder: Path, advance: Callable[[int], None] = nothing_shown
) -> list[TreeFile]:
    """Write the archive's files into a new folder; return them in path order.

    Raises ArchiveError at the first member that is refused; the folder then holds what came before.
    """
    folder.mkdir(parents=True)
    names, files = _Names(archive), []
    with _tar_bytes(archive, advance) as stream:
        try:
            with tarfile.open(  # type: ignore[call-overload] # it calls read, seek and tell only
                fileobj=stream,
                mode="r:",
                encoding="utf-8",
                errors="surrogateescape",
            ) as tar:
                for member in tar:
                    path = names.admit(member)
                    if path is None:
                        continue
                    if member.isdir():
                        (folder / path).mkdir(parents=True, exist_ok=True)
                    else:
                        files.append(_write_member(tar, member, folder, path))
            if not stream.at_end_mark:
                raise tarfile.ReadError("it ends without the end mark")
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
            raise ArchiveError(
                f"{archive.path}: is no readable tar archive: {error}; fetch it again"
            ) from error
    return sorted(files, key=lambda file: file.path)


def _write_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, path: str
) -> TreeFile:
    """Write one regular file, hashing it on the way."""
    source = tar.extractfile(member)
    if source is None:
        raise tarfile.ReadError(f"{member.name!r} has no bytes")
    target, hasher = folder / path, hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("xb") as out:
        while block := source.read(_BLOCK_BYTES):
            hasher.update(block)
            out.write(block)
        if out.tell() != member.size:
            raise tarfile.ReadError(f"{member.name!r} is cut short")
    return TreeFile(path=path, size=member.size, sha256=hasher.hexdigest())


@dataclass
class _Names:
    """The members so far, and the rules a further one must keep."""

    archive: Archive
    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    spelling: dict[str, str] = field(default_factory=dict)
    """By folded path: the one spelling that was seen of it."""

    def admit(self, member: tarfile.TarInfo) -> str | None:
        """Return the path below the target folder, None for the target itself."""
        self._check_kind(member)
        path = self._relative(member)
        if path is None:
            return None
        if path in self.files or (path in self.folders and not member.isdir()):
            raise self._refuse(member, "stands in the archive twice")
        parents = [str(parent) for parent in PurePosixPath(path).parents][:-1]
        for parent in parents:
            if parent in self.files:
                raise self._refuse(member, f"lies below {parent!r}, which is a file")
        for name in (path, *parents):
            folded = unicodedata.normalize("NFC", name).casefold()
            if self.spelling.setdefault(folded, name) != name:
                raise self._refuse(
                    member, f"differs from {self.spelling[folded]!r} only in the case of letters"
                )
        self.folders.update(parents)
        (self.folders if member.isdir() else self.files).add(path)
        return path

    def _check_kind(self, member: tarfile.TarInfo) -> None:
        if member.issym():
            raise self._refuse(member, f"is a link to {member.linkname!r}")
        if member.islnk():
            raise self._refuse(member, f"is a hard link to {member.linkname!r}")
        if member.isfifo():
            raise self._refuse(member, "is a FIFO")
        if member.isdev():
            raise self._refuse(member, "is a device")
        if member.issparse() or any(key.startswith("GNU.sparse") for key in member.pax_headers):
            raise self._refuse(member, "is a sparse file")
        if not (member.isreg() or member.isdir()):
            raise self._refuse(member, f"has the unknown type {member.type!r}")
        if member.size > self.archive.unpack.max_bytes:
            raise _bomb(self.archive, f"member {member.name!r} alone unpacks to {member.size}")

    def _relative(self, member: tarfile.TarInfo) -> str | None:
        """Check a name and take the leading folder away."""
        name = member.name
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise self._refuse(member, "has a name that is not UTF-8") from None
        if any(ord(letter) < 32 or letter in "\\\x7f" for letter in name):
            raise self._refuse(member, "has a control character or a backslash in its name")
        if name.startswith("/"):
            raise self._refuse(member, "has an absolute path")
        parts = PurePosixPath(name).parts
        if ".." in parts:
            raise self._refuse(member, "has '..' in its path")
        strip = PurePosixPath(self.archive.unpack.strip).parts
        if parts[: len(strip)] == strip:
            return "/".join(parts[len(strip) :]) or None
        if member.isdir() and parts == strip[: len(parts)]:
            return None
        raise self._refuse(member, f"lies outside the folder {self.archive.unpack.strip!r}")

    def _refuse(self, member: tarfile.TarInfo, reason: str) -> ArchiveError:
        return ArchiveError(
            f"{self.archive.path}: member {member.name!r} {reason}; expected plain files and "
            "folders under portable names; nothing was unpacked"
        )


class _Bounded:
    """A stream that goes forward only and ends in an error where a bomb would go on.

    Has the three methods that tarfile asks of a file.
    """

    def __init__(self, stream: BinaryIO | gzip.GzipFile, archive: Archive) -> None:
        self._stream = stream
        self._archive = archive
        self._position = 0
        self.at_end_mark = False
        """Whether the last read was the block of zeros that ends a tar; tarfile does without."""

    def tell(self) -> int:
        """Return how many bytes were taken."""
        return self._position

    def seek(self, position: int) -> None:
        """Go forward, reading: only what is read is counted."""
        if position < self._position:
            raise tarfile.ReadError("members overlap")
        while position > self._position:
            if not self.read(min(_BLOCK_BYTES, position - self._position)):
                return

    def read(self, count: int) -> bytes:
        """Return up to ``count`` bytes."""
        if count > _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {count} bytes")
        data = self._stream.read(count)
        self._position += len(data)
        self.at_end_mark = data == bytes(tarfile.BLOCKSIZE)
        if self._position > self._archive.unpack.max_bytes:
            raise _bomb(self._archive, f"it unpacks to more than {self._position}")
        return data


class _Told(io.BufferedReader):
    """A file that tells how many of its bytes were read."""

    def __init__(self, raw: io.FileIO, advance: Callable[[int], None]) -> None:
        super().__init__(raw, _BLOCK_BYTES)
        self._advance = advance

    def read(self, count: int | None = -1, /) -> bytes:
        """Read as any file does."""
        data = super().read(count)
        self._advance(len(data))
        return data


def _bomb(archive: Archive, what: str) -> ArchiveError:
    return ArchiveError(
        f"{archive.path}: {what} bytes, expected at most {archive.unpack.max_bytes} (max_bytes in "
        "the manifest); nothing was unpacked"
    )


@contextmanager
def _tar_bytes(archive: Archive, advance: Callable[[int], None]) -> Iterator[_Bounded]:
    """Open the tar inside, whatever the suffix says."""
    with _Told(archive.path.open("rb", buffering=0), advance) as raw:
        if raw.peek(len(_GZIP_MAGIC))[: len(_GZIP_MAGIC)] != _GZIP_MAGIC:
            yield _Bounded(raw, archive)
            return
        with gzip.GzipFile(fileobj=raw, mode="rb") as inner:
            yield _Bounded(inner, archive)


def _check_counts(archive: Archive, files: list[TreeFile]) -> None:
    """Compare with the counts of the official archive."""
    for expect in archive.unpack.expect:
        found = sum(_counts(expect, file.path) for file in files)
        if found != expect.count:
            raise ArchiveError(
                f"{archive.path}: expected {expect.count} {expect.suffix} files in "
                f"{expect.folder}, found {found}; nothing was unpacked; a subset of one's own "
                "passes with --partial"
            )


def _counts(expect: ExpectedFiles, path: str) -> bool:
    place = PurePosixPath(path)
    return str(place.parent) == expect.folder and place.suffix == expect.suffix


def _move_into(folder: Path, target: Path, name: str) -> None:
    """Move a folder's entries: whole folders by one rename where none is in the way.

    Several archives of one source fill the same folders.
    """
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _move_into(Path(entry.path), place, name)
        elif entry.is_dir() == place.is_dir() or not os.path.lexists(place):
            Path(entry.path).replace(place)
        else:
            raise ArchiveError(
                f"{place}: {name} holds a {'folder' if entry.is_dir() else 'file'} of this name, "
                "found the opposite; move it away and run the same command again"
            )
