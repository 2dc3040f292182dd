"""Object stores: S3, Google Cloud Storage and Azure.

What goes wrong is an OSError, as with files: FileNotFoundError for an object that is not there,
PermissionError for credentials that are refused, StoreError for a store that does not answer.
Credentials come from the environment, as each store's own tools read them; no message, ``repr`` or
file holds them.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from typing import Any, Final, Self

from vocprep.errors import UsageError
from vocprep.storage import client, forked
from vocprep.storage.client import CHUNK, SHA256_FIELD
from vocprep.storage.problems import StoreError
from vocprep.validation import printable

__all__ = ["CHUNK", "SHA256_FIELD", "ObjectFacts", "StoreError", "StorePath"]
SCHEMES: Final = ("s3", "gs", "az")
MOST_IN_ONE_PIECE: Final = 5 << 30
"""Bytes that S3 takes in one request, which is how objects are written: all of one or nothing."""
_BUCKET: Final = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]{2,221}")


@dataclass(frozen=True, kw_only=True)
class ObjectFacts:
    """What a store tells of an object."""

    name: str
    """Below the folder that was listed."""
    bytes: int
    sha256: str | None = None
    """Of its metadata; None where it has none, or where objects were only listed."""


@dataclass(frozen=True)
class StorePath:
    """An object of a store, or the folder of all objects whose names begin with it and a slash.

    Small and picklable: the client that it uses is made once per process and bucket.
    """

    scheme: str
    bucket: str
    key: str
    """Below the bucket, without slashes at its ends; empty for the bucket itself."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL such as ``s3://bucket/shards/voc``; UsageError for one without a bucket."""
        scheme, _, rest = url.partition("://")
        bucket, _, key = rest.partition("/")
        # The characters of a secret may be slashes.
        has_user = "@" in bucket or (":" in bucket and "@" in key)
        if not bucket or has_user or {*url} & {"?", "#"} or not url.isprintable():
            raise UsageError(
                f"{scheme}://…: expected {scheme}://BUCKET/FOLDER without user, query or fragment; "
                "credentials are taken from the environment"
            )
        if not _BUCKET.fullmatch(bucket):
            raise UsageError(
                f"{scheme}://{printable(bucket, 60)}: expected the name of a bucket, three or more "
                "letters, digits, . _ or -, and an address in the environment, not in the URL"
            )
        parts = [part for part in key.split("/") if part]
        if {"..", "."} & {*parts}:
            raise UsageError(f"{printable(url)}: expected a URL without . and .. in its path")
        return cls(scheme.lower(), bucket, "/".join(parts))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.key}" if self.key else "")

    def __repr__(self) -> str:
        return f"StorePath('{self}')"

    def __truediv__(self, name: str | PurePath) -> StorePath:
        parts = PurePosixPath(name).parts
        if "/" in parts or ".." in parts:
            raise UsageError(
                f"{printable(f'{self}/{name}')}: expected a path below the URL, found one that "
                "leads out of it; use a folder of this machine, or move the files"
            )
        return StorePath(self.scheme, self.bucket, "/".join((*filter(None, [self.key]), *parts)))

    @property
    def name(self) -> str:
        """Last part of its key."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """Last part of its key, without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Suffix of its name, with its dot; empty where there is none."""
        return PurePosixPath(self.name).suffix

    def absolute(self) -> Self:
        """Return itself, as paths return what does not depend on the working folder."""
        return self

    def is_relative_to(self, folder: StorePath) -> bool:
        """Return whether it is below a folder, or the folder itself."""
        is_same = (self.scheme, self.bucket) == (folder.scheme, folder.bucket)
        return is_same and PurePosixPath(self.key).is_relative_to(folder.key)

    def relative_to(self, folder: StorePath) -> PurePosixPath:
        """Return its path below a folder; ValueError where it is not below it."""
        if not self.is_relative_to(folder):
            raise ValueError(f"{self} is not below {folder}")
        return PurePosixPath(self.key).relative_to(folder.key)

    @property
    def parent(self) -> StorePath:
        """The folder that it is in."""
        return StorePath(self.scheme, self.bucket, self.key.rpartition("/")[0])

    def read(self, max_bytes: int) -> bytes:
        """Return the bytes of an object; OSError when it is not there or is larger."""
        data: bytes = _call("read", self, max_bytes)
        return data

    def read_own(self, max_bytes: int) -> bytes:
        """Return the bytes of an object that vocprep writes; ValueError when it is larger."""
        try:
            return self.read(max_bytes)
        except StoreError as error:
            if error.errno != errno.EFBIG:
                raise
            raise ValueError(error.strerror) from error

    def read_range(self, start: int, stop: int) -> bytes:
        """Return the bytes of an object from ``start`` to ``stop``, which must not be empty."""
        data: bytes = _call("read_range", self, start, stop)
        return data

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes of an object in pieces of about ``CHUNK`` while they come in."""
        return _iterate("chunks", self)

    def facts(self) -> ObjectFacts | None:
        """Return size and digest of an object as the store has them; None when there is none."""
        found = _call("facts", self)
        return found and ObjectFacts(name=self.name, bytes=found[0], sha256=found[1])

    def put_new(self, data: bytes | memoryview, sha256: str) -> bool:
        """Write an object that is not there yet; False, with nothing done, where there is one."""
        return self._put(data, sha256, "create")

    def put(self, data: bytes | memoryview, sha256: str) -> None:
        """Write an object, or replace it as a whole."""
        self._put(data, sha256, "overwrite")

    def _put(self, data: bytes | memoryview, sha256: str, mode: str) -> bool:
        if len(data) > MOST_IN_ONE_PIECE:
            raise StoreError(
                errno.EMSGSIZE,
                f"{len(data):,} bytes, where an object store takes at most "
                f"{MOST_IN_ONE_PIECE:,} in one piece",
                str(self),
            )
        is_written: bool = _call("put", self, data, sha256, mode)
        return is_written

    def delete(self) -> None:
        """Delete an object, if there is one."""
        _call("delete", self)

    def names(self) -> frozenset[str]:
        """Return the names in a folder: of its objects, and of the folders in it."""
        found: frozenset[str] = _call("names_in", self)
        return found

    def list(self) -> Iterator[ObjectFacts]:
        """Yield the objects of a folder, those of folders in it too, in no order."""
        for page in _iterate("list_below", self):
            for name, size in page:
                yield ObjectFacts(name=name, bytes=size)


def _call(name: str, *arguments: Any) -> Any:
    """Return what a function of ``client`` returns."""
    if client.is_lost():
        return forked.call(name, *arguments)
    return getattr(client, name)(*arguments)


def _iterate(name: str, *arguments: Any) -> Iterator[Any]:
    """Return what a function of ``client`` yields."""
    if client.is_lost():
        return forked.iterate(name, *arguments)
    return iter(getattr(client, name)(*arguments))
