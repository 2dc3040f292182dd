"""Object stores: S3, Google Cloud Storage and Azure, through obstore, which only this module uses.

What goes wrong is an OSError, as with files: FileNotFoundError for an object that is not there,
PermissionError for credentials that are refused, StoreError for a store that does not answer.
Credentials come from the environment, as each store's own tools read them; no message, ``repr`` or
file holds them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self

from vocprep.errors import UsageError
from vocprep.validation import printable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES: Final = ("s3", "gs", "az")
SHA256_FIELD: Final = "sha256"
"""Metadata of an object that holds the sha256 of its bytes."""
MOST_IN_ONE_PIECE: Final = 5 << 30
"""Bytes that S3 takes in one request, which is how objects are written: all of one or nothing."""
CHUNK: Final = 1 << 20
"""Bytes of an object that are handed out at once."""
_RETRIES: Final = 8
_RETRY_SECONDS: Final = 60
_CONNECT_SECONDS: Final = 5
_ANSWER_SECONDS: Final = 60
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_SETTINGS: Final = ("AWS_", "GOOGLE_", "AZURE_", "HTTP", "http")
"""How the names of environment variables begin that clients read when they are made."""
_LONGEST_REASON: Final = 200


class StoreError(OSError):
    """An object store that does not answer, or not as expected."""


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
        if not bucket or "@" in bucket or {*url} & {"?", "#"} or not url.isprintable():
            raise UsageError(
                f"{scheme}://…: expected {scheme}://BUCKET/FOLDER without user, query or fragment; "
                "credentials are taken from the environment"
            )
        parts = [part for part in key.split("/") if part]
        if {"..", "."} & {*parts}:
            raise UsageError(f"{printable(url)}: expected a URL without . and .. in its path")
        return cls(scheme.lower(), bucket, "/".join(parts))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.key}" if self.key else "")

    def __repr__(self) -> str:
        return f"StorePath('{self}')"

    def __truediv__(self, name: str) -> StorePath:
        return StorePath(self.scheme, self.bucket, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """Last part of its key."""
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> StorePath:
        """The folder that it is in."""
        return StorePath(self.scheme, self.bucket, self.key.rpartition("/")[0])

    def read(self, max_bytes: int) -> bytes:
        """Return the bytes of an object; OSError when it is not there or is larger."""
        with _translated(self):
            import obstore  # noqa: PLC0415  # an extra

            result = obstore.get(_client(self), self.key)
            size = result.meta["size"]
            if size > max_bytes:
                raise StoreError(
                    errno.EFBIG,
                    f"{size:,} bytes, where at most {max_bytes:,} are expected",
                    str(self),
                )
            return bytes(result.bytes())

    def read_range(self, start: int, stop: int) -> bytes:
        """Return the bytes of an object from ``start`` to ``stop``, which must not be empty."""
        with _translated(self):
            import obstore  # noqa: PLC0415  # an extra

            return bytes(obstore.get_range(_client(self), self.key, start=start, end=stop))

    def chunks(self) -> Iterator[memoryview]:
        """Yield the bytes of an object in pieces of about ``CHUNK`` while they come in."""
        with _translated(self):
            import obstore  # noqa: PLC0415  # an extra

            for chunk in obstore.get(_client(self), self.key).stream(min_chunk_size=CHUNK):
                yield memoryview(chunk)

    def facts(self) -> ObjectFacts | None:
        """Return size and digest of an object as the store has them; None when there is none."""
        try:
            with _translated(self):
                import obstore  # noqa: PLC0415  # an extra

                result = obstore.get(_client(self), self.key, options={"head": True})
                sha256 = result.attributes.get(SHA256_FIELD)
                return ObjectFacts(name=self.name, bytes=result.meta["size"], sha256=sha256)
        except FileNotFoundError:
            return None

    def put_new(self, data: bytes | memoryview, sha256: str) -> bool:
        """Write an object that is not there yet; False, with nothing done, where there is one."""
        return self._put(data, sha256, "create")

    def put(self, data: bytes | memoryview, sha256: str) -> None:
        """Write an object, or replace it as a whole."""
        self._put(data, sha256, "overwrite")

    def _put(self, data: bytes | memoryview, sha256: str, mode: Any) -> bool:
        if len(data) > MOST_IN_ONE_PIECE:
            raise StoreError(
                errno.EFBIG,
                f"{len(data):,} bytes, where an object store takes at most "
                f"{MOST_IN_ONE_PIECE:,} in one piece",
                str(self),
            )
        with _translated(self):
            import obstore  # noqa: PLC0415  # an extra

            try:
                obstore.put(
                    _client(self),
                    self.key,
                    data,
                    attributes={SHA256_FIELD: sha256},
                    mode=mode,
                    use_multipart=False,
                )
            except obstore.exceptions.AlreadyExistsError:
                return False
        return True

    def delete(self) -> None:
        """Delete an object, if there is one."""
        try:
            with _translated(self):
                import obstore  # noqa: PLC0415  # an extra

                obstore.delete(_client(self), self.key)
        except FileNotFoundError:
            pass

    def names(self) -> frozenset[str]:
        """Return the names in a folder: of its objects, and of the folders in it."""
        prefix = f"{self.key}/" if self.key else ""
        with _translated(self):
            import obstore  # noqa: PLC0415  # an extra

            found = obstore.list_with_delimiter(_client(self), prefix=prefix or None)
            objects = [each["path"] for each in found["objects"]]
            return frozenset(
                path.removeprefix(prefix).strip("/")
                for path in (*objects, *found["common_prefixes"])
            )

    def list(self) -> Iterator[ObjectFacts]:
        """Yield the objects of a folder, those of folders in it too, in no order."""
        prefix = f"{self.key}/" if self.key else ""
        with _translated(self):
            import obstore  # noqa: PLC0415  # an extra

            for objects in obstore.list(_client(self), prefix=prefix or None):
                for each in objects:
                    yield ObjectFacts(name=each["path"].removeprefix(prefix), bytes=each["size"])


def require_obstore(url: str) -> None:
    """Raise UsageError where the library is not installed that talks to object stores."""
    try:
        import obstore  # noqa: F401, PLC0415  # an extra
    except ImportError as error:
        raise UsageError(
            f"{printable(url)}: object stores need the extra cloud: run pip install "
            "'vocprep[cloud]', or name a folder"
        ) from error


def _client(path: StorePath) -> ObjectStore:
    return _client_of(path.scheme, path.bucket, os.getpid(), _settings())


def _settings() -> int:
    """Return a number for the environment's settings of object stores, which clients keep."""
    return hash(frozenset((k, v) for k, v in os.environ.items() if k.startswith(_SETTINGS)))


@lru_cache(maxsize=32)
def _client_of(scheme: str, bucket: str, _process: int, _settings: int) -> ObjectStore:
    """Return the client of a bucket: another one in a forked process, and with other settings."""
    from obstore.store import from_url  # noqa: PLC0415  # an extra

    options: Any = {
        "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
        "timeout": timedelta(seconds=_ANSWER_SECONDS),
    }
    if any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS):
        options["allow_http"] = True
    retries: Any = {
        "max_retries": _RETRIES,
        "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
    }
    return from_url(f"{scheme}://{bucket}", client_options=options, retry_config=retries)


@contextmanager
def _translated(path: StorePath) -> Iterator[None]:
    """Turn obstore's errors into an OSError about a path; credentials are in none of them."""
    import obstore.exceptions as raised  # noqa: PLC0415  # an extra

    try:
        yield
    except (FileNotFoundError, raised.NotFoundError) as error:
        raise FileNotFoundError(errno.ENOENT, "no such object", str(path)) from error
    except (raised.PermissionDeniedError, raised.UnauthenticatedError) as error:
        raise PermissionError(
            errno.EACCES, "the object store refuses the credentials of the environment", str(path)
        ) from error
    except raised.BaseError as error:
        raise StoreError(
            errno.EIO, f"the object store failed: {_reason(error)}", str(path)
        ) from None


def _reason(error: Exception) -> str:
    """Return the first line of an error, bounded, without headers and the rest of a request."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return printable(lines[0])[:_LONGEST_REASON]
