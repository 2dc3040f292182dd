"""Places: what a user names as a folder, on this machine or in an object store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeAlias
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, PlainValidator
from pydantic_core import PydanticCustomError

from vocprep.errors import UsageError
from vocprep.storage.client import require_obstore
from vocprep.storage.store import SCHEMES, StorePath
from vocprep.validation import printable

Place: TypeAlias = Path | StorePath
"""A folder, or a file in it; either kind has ``/``, ``name``, ``parent`` and prints as its path."""
_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):/+")
_ACCEPTED = ", ".join(f"{scheme}://" for scheme in (*SCHEMES, "file"))


def parse_place(text: str | Place) -> Place:
    """Return the place that a path or URL names; UsageError for a URL that cannot be used here.

    >>> parse_place("shards/voc"), parse_place("file:///data/shards")
    (PosixPath('shards/voc'), PosixPath('/data/shards'))
    >>> parse_place("http://example.org/shards")
    Traceback (most recent call last):
    ...
    vocprep.errors.UsageError: http://example.org/shards: expected a folder or a URL of s3://, \
gs://, az://, file://, found one of http://; copy the files to a folder, or name such a URL
    """
    if isinstance(text, StorePath):
        return text
    scheme = url_scheme(text)
    if scheme is None:
        return Path(text)
    url = str(text)
    if scheme == "file":
        return _file_path(url)
    if scheme not in SCHEMES:
        raise UsageError(
            f"{shown_url(url)}: expected a folder or a URL of {_ACCEPTED}, found one of "
            f"{scheme}://; copy the files to a folder, or name such a URL"
        )
    require_obstore(url)
    return StorePath.parse(_URL.sub(r"\1://", url))


def path_below(place: Place, folder: Place) -> Path | None:
    """Return the path of a place below a folder; None where it is not below it."""
    if isinstance(place, Path) and isinstance(folder, Path):
        return place.relative_to(folder) if place.is_relative_to(folder) else None
    if isinstance(place, StorePath) and isinstance(folder, StorePath):
        return Path(place.relative_to(folder)) if place.is_relative_to(folder) else None
    return None


def local_path(text: str | Place, name: str = "") -> Path:
    """Return a path; UsageError for the URL of an object store, where nothing else will do.

    ``name`` says in the error what the path was given for, e.g. ``--out``.

    >>> local_path("s3://bucket/run")
    Traceback (most recent call last):
    ...
    vocprep.errors.UsageError: s3://bucket/run: expected a path of this machine, found a URL; \
give a path
    """
    scheme = url_scheme(text)
    if scheme is None:
        return Path(str(text))
    if scheme == "file":
        return _file_path(str(text))
    url = " ".join(filter(None, (name, shown_url(_URL.sub(r"\1://", str(text))))))
    raise UsageError(f"{url}: expected a path of this machine, found a URL; give a path")


def _checked_path(value: Any) -> Any:
    """Return the path of what a user gave for one; other values as they are."""
    return local_path(value) if isinstance(value, str | Path | StorePath) else value


def _checked_place(value: Any) -> Place:
    if isinstance(value, str | Path | StorePath):
        return parse_place(value)
    raise PydanticCustomError("path_type", "expected a path")


LocalPath = Annotated[Path, BeforeValidator(_checked_path)]
"""A path among checked options; the URL of an object store is refused."""
AnyPlace = Annotated[Place, PlainValidator(_checked_place)]
"""A place among checked options, from a path or URL."""


def url_scheme(text: str | Place) -> str | None:
    """Return the scheme of a URL in small letters; None for a path.

    ``s3:/bucket``, which a path makes of a URL, counts as one, so that no folder ``s3:`` is made.
    """
    match = _URL.match(str(text))
    return match[1].lower() if match else None


def shown_url(url: str) -> str:
    """Return a URL for messages, without what stands before an ``@`` and after a ``?``."""
    head, separator, rest = url.partition("://")
    path = rest.partition("?")[0]
    host = path.partition("/")[0]
    if "@" in host or ":" in host:  # credentials, whose characters may be slashes
        path = path.rpartition("@")[2]
    return printable(f"{head}{separator}{path}")


def _file_path(url: str) -> Path:
    """Return the path of a ``file://`` URL; UsageError when it is not of this machine."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise UsageError(
            f"{shown_url(url)}: expected file:// and an absolute path, such as file:///data/shards"
        )
    return Path(unquote(parts.path))
