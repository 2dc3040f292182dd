"""Unpack a tar archive from an untrusted origin.

Only regular files and folders are written, below a new folder, under names that mean the same on
every filesystem; anything else is an ArchiveError that names the member. ``unpack`` does all of it:
extract beside, check the counts, move into place, flush, and record the unpacked files last.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from vocprep.data_dir.receipts import UnpackedArchive, UnpackedFile, records_dir, write_unpacked
from vocprep.downloading.members import Archive, MemberNames, bomb_error
from vocprep.errors import ArchiveError
from vocprep.files.names import TEMPORARY_PREFIX
from vocprep.files.replacing import refuse_links
from vocprep.files.writing import disk_advice, sync_folder
from vocprep.manifests import ExpectedFiles
from vocprep.parallel import map_ordered
from vocprep.progress import NO_PROGRESS

_GZIP_MAGIC = b"\x1f\x8b"
_BLOCK_BYTES = 1 << 20
_FLUSH_THREADS = 8
_MOST_HEADER_BYTES = 1 << 20
"""No tar header of an official archive is longer; tarfile reads a header into memory whole."""


def unpack(
    archive: Archive,
    data_dir: Path,
    *,
    partial: bool = False,
    advance: Callable[[int], None] = NO_PROGRESS.advance,
) -> UnpackedArchive:
    """Unpack an archive into the data dir and record its files; the caller holds the file's lock.

    ``advance`` is called with the bytes of the archive as they are read. With ``partial`` the
    manifest's expected counts are not compared. Raises ArchiveError when the archive is unsafe,
    damaged or incomplete; nothing of it is in place then. An interruption leaves no record, so the
    next run unpacks again.
    """
    folder = records_dir(data_dir) / _staging_name(archive)
    refuse_links(folder)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        files = extract(archive, folder, advance)
        if not partial:
            _check_counts(archive, files)
        _move_into(folder, data_dir, archive)
        _flush(data_dir, files)
        shutil.rmtree(folder)
    except OSError as error:
        where = error.filename2 or error.filename or data_dir
        raise ArchiveError(
            f"{archive.path}: cannot be unpacked into {data_dir}: {where}: {error.strerror}; "
            f"{disk_advice(error)}, then run the same command again"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    unpacked = UnpackedArchive(
        archive=archive.name, archive_sha256=archive.sha256, files=tuple(files)
    )
    write_unpacked(data_dir, unpacked)
    return unpacked


def _staging_name(archive: Archive) -> str:
    """Return the name of the folder for what of an archive is not in its place yet."""
    return f"{TEMPORARY_PREFIX}unpack-{archive.name.replace('/', '-')}"


def _flush(data_dir: Path, files: Sequence[UnpackedFile]) -> None:
    """Flush unpacked files and their folders: none may be recorded and empty after a power cut.

    Several at once: a file system then commits them together, ten times as fast.
    """
    paths = [data_dir / file.path for file in files]
    for _ in map_ordered(_flush_file, paths, _FLUSH_THREADS):
        pass
    folders = {parent for file in files for parent in PurePosixPath(file.path).parents}
    for folder in sorted(folders, reverse=True):
        sync_folder(data_dir / folder)


def _flush_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def extract(
    archive: Archive, folder: Path, advance: Callable[[int], None] = NO_PROGRESS.advance
) -> list[UnpackedFile]:
    """Write the archive's files into a new folder; return them in path order.

    Raises ArchiveError at the first member that is refused; the folder then holds what came before.
    """
    folder.mkdir(parents=True)
    names, files = MemberNames(archive), []
    with _tar_bytes(archive, advance) as stream:
        try:
            with tarfile.open(  # type: ignore[call-overload] # it calls read, seek and tell only
                fileobj=stream,
                mode="r:",
                encoding="utf-8",
                errors="surrogateescape",
            ) as tar:
                for member in tar:
                    path = names.check(member)
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
                f"{archive.path}: is not a readable tar archive: {error}; fetch it again"
            ) from error
    return sorted(files, key=lambda file: file.path)


def _write_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, path: str
) -> UnpackedFile:
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
    return UnpackedFile(path=path, size=member.size, sha256=hasher.hexdigest())


class _BoundedStream:
    """A forward-only stream that raises ArchiveError beyond the manifest's ``max_bytes``.

    Has the three methods that tarfile calls of a file.
    """

    def __init__(self, stream: BinaryIO | gzip.GzipFile, archive: Archive) -> None:
        self._stream = stream
        self._archive = archive
        self._position = 0
        self.at_end_mark = False
        """Whether the last read was the block of zeros that ends a tar, not required by tarfile."""

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._position

    def seek(self, position: int) -> None:
        """Read up to a position further on, so that skipped bytes are counted too."""
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
            raise bomb_error(self._archive, f"it unpacks to more than {self._position}")
        return data


class _CountedReader(io.BufferedReader):
    """A file that reports how many of its bytes were read."""

    def __init__(self, raw: io.FileIO, advance: Callable[[int], None]) -> None:
        super().__init__(raw, _BLOCK_BYTES)
        self._advance = advance

    def read(self, count: int | None = -1, /) -> bytes:
        """Return up to ``count`` bytes."""
        data = super().read(count)
        self._advance(len(data))
        return data


@contextmanager
def _tar_bytes(archive: Archive, advance: Callable[[int], None]) -> Iterator[_BoundedStream]:
    """Open the tar, gzipped or not: the first bytes decide, not the suffix."""
    with _CountedReader(archive.path.open("rb", buffering=0), advance) as raw:
        if raw.peek(len(_GZIP_MAGIC))[: len(_GZIP_MAGIC)] != _GZIP_MAGIC:
            yield _BoundedStream(raw, archive)
            return
        with gzip.GzipFile(fileobj=raw, mode="rb") as inner:
            yield _BoundedStream(inner, archive)


def _check_counts(archive: Archive, files: list[UnpackedFile]) -> None:
    """Compare with the counts of the official archive."""
    for expect in archive.unpack.expect:
        found = sum(_counts(expect, file.path) for file in files)
        if found != expect.count:
            raise ArchiveError(
                f"{archive.path}: expected {expect.count} {expect.suffix} files in "
                f"{expect.folder}, found {found}; nothing was unpacked; a subset of your own "
                "is accepted with --partial"
            )


def _counts(expect: ExpectedFiles, path: str) -> bool:
    place = PurePosixPath(path)
    return str(place.parent) == expect.folder and place.suffix == expect.suffix


def _move_into(folder: Path, target: Path, archive: Archive) -> None:
    """Move a folder's entries, whole folders by one rename where the target has none.

    Several archives of one source fill the same folders. A target on another file system, such as
    one behind a link or a mount point, gets copies first, which then move within it.
    """
    try:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            place = target / entry.name
            if entry.is_dir() and place.is_dir():
                _move_into(Path(entry.path), place, archive)
            elif entry.is_dir() == place.is_dir() or not os.path.lexists(place):
                Path(entry.path).replace(place)
            else:
                raise ArchiveError(
                    f"{place}: {archive.name} holds a {'folder' if entry.is_dir() else 'file'} of "
                    f"this name, found {_found(place)}; move it away and run the same command again"
                )
    except OSError as error:
        copies = target / _staging_name(archive)
        if error.errno != errno.EXDEV or folder == copies:
            raise
        _move_across(folder, copies, archive)


def _move_across(folder: Path, copies: Path, archive: Archive) -> None:
    """Move what is left in a folder to another file system, by way of a folder for copies there."""
    refuse_links(copies)
    shutil.rmtree(copies, ignore_errors=True)
    try:
        copies.mkdir()
        for path in sorted(folder.rglob("*")):
            copy = copies / path.relative_to(folder)
            copy.mkdir() if path.is_dir() else shutil.copyfile(path, copy)
        _move_into(copies, copies.parent, archive)
        shutil.rmtree(copies)
    finally:
        shutil.rmtree(copies, ignore_errors=True)


def _found(place: Path) -> str:
    """Return what is in the place of a file or folder, in words."""
    if place.is_dir():
        return "a folder"
    if place.is_symlink() and not place.exists():
        return f"a link to {place.readlink()}, where nothing is"
    return "a file"
