"""Which members of a tar archive may be written, and under which path."""

from __future__ import annotations

import tarfile
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vocprep.errors import ArchiveError
from vocprep.manifests import Unpack

RESERVED = (".vocprep", "downloads", "weights", "sources.lock.json", "labels.txt")
"""Names in a data dir that vocprep itself writes: no archive may write there."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive on disk whose digests agree."""

    name: str
    """Its path below the data dir, as in messages and in the record of the unpacked files."""
    path: Path
    sha256: str
    unpack: Unpack


@dataclass
class MemberNames:
    """The names of the members so far, and the rules that a further member must follow."""

    archive: Archive
    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    spelling: dict[str, str] = field(default_factory=dict)
    """By case-folded path: its first spelling."""

    def check(self, member: tarfile.TarInfo) -> str | None:
        """Return a member's path below the target folder, None for the target itself.

        Raises ArchiveError when it breaks a rule.
        """
        self._check_kind(member)
        path = self._relative(member)
        if path is None:
            return None
        if path in self.files or (path in self.folders and not member.isdir()):
            raise self._refuse(member, "is in the archive twice")
        parents = [str(parent) for parent in PurePosixPath(path).parents][:-1]
        if PurePosixPath(path).parts[0].casefold() in RESERVED:
            raise self._refuse(member, "would lie among vocprep's own files in the data dir")
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
            raise bomb_error(self.archive, f"member {member.name!r} alone unpacks to {member.size}")

    def _relative(self, member: tarfile.TarInfo) -> str | None:
        """Return a checked name without the leading folder, None for that folder itself."""
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


def bomb_error(archive: Archive, what: str) -> ArchiveError:
    """Return the error of an archive that unpacks to more than its manifest allows."""
    return ArchiveError(
        f"{archive.path}: {what} bytes, expected at most {archive.unpack.max_bytes} (max_bytes in "
        "the manifest); nothing was unpacked"
    )
