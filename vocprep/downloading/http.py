"""One request to one mirror for a file's bytes from an offset on: http, https and file URLs.

Every fault is raised as one of the errors below, by what the caller can do about it. They do not
leave ``vocprep.downloading``.
"""

from __future__ import annotations

import email.utils
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urljoin, urlsplit

import requests
import urllib3
from pydantic import Field

from vocprep.validation import NotNegative, Positive, checked

USER_AGENT = "vocprep"
_NUMBER = "([0-9]{1,18})"
_CONTENT_RANGE = re.compile(rf"bytes {_NUMBER}-{_NUMBER}/(?:{_NUMBER}|\*)")
_TEMPORARY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECT_STATUS = frozenset({301, 302, 303, 307, 308})
_NOT_FOUND = frozenset({404, 410})
_MOST_REDIRECTS = 10

Seconds = Annotated[float, Field(ge=0)]


@checked
class TransferOptions:
    """How mirrors are requested. Nothing here changes which bytes are accepted."""

    chunk_bytes: Positive = 1 << 20
    """The most that is read at a time."""
    retries: NotNegative = 5
    """Faults in a row, without progress between them, before a mirror is given up."""
    backoff_seconds: Seconds = 1.0
    """Wait after the first fault; doubles with each further one."""
    backoff_most_seconds: Seconds = 60.0
    """Longest wait that no server requested."""
    retry_after_most_seconds: Seconds = 300.0
    """Longest wait that a server may request; one that requests more is given up."""
    least_bytes_per_second: NotNegative = 64
    """A mirror slower than this over ``read_seconds`` counts as stalled."""
    connect_seconds: Seconds = 10.0
    """Time limit of a connection."""
    read_seconds: Seconds = 30.0
    """Time limit of the next byte."""


class TemporaryError(Exception):
    """The same request may succeed later."""

    def __init__(self, message: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds
        """The wait that the server requested with Retry-After."""


class StalledError(TemporaryError):
    """The mirror sent nothing, or next to nothing, for too long; another may be faster."""


class RefusedError(Exception):
    """This mirror cannot give the file; another may."""


class FileChangedError(Exception):
    """The mirror's file is no longer the one that the earlier bytes come from."""


@dataclass(frozen=True, kw_only=True)
class RangeRequest:
    """A request for a mirror's file from an offset to its end."""

    url: str
    start: int = 0
    validator: str | None = None
    """ETag or Last-Modified of the file that the bytes before ``start`` come from."""


@dataclass(frozen=True, kw_only=True)
class RangeResponse:
    """The head of a mirror's response, and its bytes to come."""

    start: int
    """Offset of the first byte: 0 when the server ignores ranges or the file changed."""
    end: int | None
    """One past the last byte, None when the response does not state it."""
    size: int | None
    """Bytes of the whole file, where stated."""
    validator: str | None
    chunks: Iterator[bytes]


class MirrorSession(requests.Session):
    """A session that follows no redirect itself: requests would read each one's body to its end."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return no target, whatever the response is."""


@contextmanager
def open_range(
    session: MirrorSession, request: RangeRequest, options: TransferOptions
) -> Iterator[RangeResponse]:
    """Yield the response to a request; its chunks are read inside the block.

    Raises TemporaryError, RefusedError or FileChangedError, also while chunks are read.
    """
    if urlsplit(request.url).scheme == "file":
        with _open_file(request, options.chunk_bytes) as file_response:
            yield file_response
        return
    with _translated_errors():
        response = _get(session, request, options)
    with response:
        with _translated_errors():
            _check_status(response, request)
            head = _read_head(response, request, options.chunk_bytes)
        yield head


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Turn the errors of the HTTP libraries into those of this module."""
    try:
        yield
    except (requests.exceptions.SSLError, ValueError) as error:  # ValueError: a malformed URL
        raise RefusedError(_short(error)) from error
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise StalledError(_short(error)) from error
    except (requests.ConnectionError, urllib3.exceptions.HTTPError) as error:
        raise TemporaryError(_short(error)) from error
    except requests.RequestException as error:
        raise RefusedError(_short(error)) from error


def _get(
    session: MirrorSession, request: RangeRequest, options: TransferOptions
) -> requests.Response:
    """Send the request and follow redirects, whose bodies are not read.

    The file must come byte by byte as it is published, so no content encoding is accepted.
    """
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if request.start:
        headers["Range"] = f"bytes={request.start}-"
        # A weak validator promises no equal bytes; If-Range must not carry it (RFC 9110, 13.1.5).
        if request.validator and not request.validator.startswith("W/"):
            headers["If-Range"] = request.validator
    url, timeout = request.url, (options.connect_seconds, options.read_seconds)
    for _ in range(_MOST_REDIRECTS):
        response = session.get(url, headers=headers, stream=True, timeout=timeout)
        location = response.headers.get("Location")
        if response.status_code not in _REDIRECT_STATUS or location is None:
            return response
        response.close()
        url = urljoin(url, location)
    raise RefusedError(f"redirected {_MOST_REDIRECTS} times in a row")


def _check_status(response: requests.Response, request: RangeRequest) -> None:
    """Raise for every status that comes without bytes of the file."""
    status, answer = response.status_code, f"answered {response.status_code} {response.reason}"
    if status in _TEMPORARY_STATUS:
        raise TemporaryError(answer, retry_after(response.headers.get("Retry-After")))
    if status == 416 and request.start:
        raise FileChangedError(f"answered 416 to bytes from {request.start} on")
    if status in _NOT_FOUND:
        raise RefusedError(f"{answer}: the file is not there")
    if status not in (200, 206):
        raise RefusedError(answer)
    kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise RefusedError(f"{answer} with a web page instead of the file")


def _read_head(
    response: requests.Response, request: RangeRequest, chunk_bytes: int
) -> RangeResponse:
    """Return which bytes of the file a response holds; RefusedError for others than requested."""
    validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
    start, end, size = 0, None, None
    if response.status_code == 206:
        found = response.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(found)
        if match is None or not request.start == int(match[1]) <= int(match[2]):
            raise RefusedError(f"answered Content-Range {found!r} to bytes from {request.start} on")
        start, end = int(match[1]), int(match[2]) + 1
        size = int(match[3]) if match[3] else end  # the rest was requested, so it ends the file
    elif re.fullmatch(_NUMBER, response.headers.get("Content-Length", "")):
        end = size = int(response.headers["Content-Length"])
    chunks = _chunks(response, chunk_bytes)
    return RangeResponse(start=start, end=end, size=size, validator=validator, chunks=chunks)


def _chunks(response: requests.Response, chunk_bytes: int) -> Iterator[bytes]:
    """Yield the body undecoded as it arrives: ``read1`` returns what one receive brought."""
    with _translated_errors():
        while chunk := response.raw.read1(chunk_bytes, decode_content=False):
            yield chunk


@contextmanager
def _open_file(request: RangeRequest, chunk_bytes: int) -> Iterator[RangeResponse]:
    """Yield the bytes of a file URL; its validator is its size and time of change."""
    path = Path(unquote(urlsplit(request.url).path))
    if not path.is_file() or not os.access(path, os.R_OK):
        raise RefusedError("is not a file that can be read")
    with path.open("rb") as stream:
        facts = os.fstat(stream.fileno())
        if request.start > facts.st_size:
            raise FileChangedError(f"the file has {facts.st_size} bytes now")
        stream.seek(request.start)
        yield RangeResponse(
            start=request.start,
            end=facts.st_size,
            size=facts.st_size,
            validator=f"{facts.st_size}-{facts.st_mtime_ns}",
            chunks=iter(lambda: stream.read(chunk_bytes), b""),
        )


def retry_after(value: str | None) -> float:
    """Return the seconds from now of a Retry-After header (seconds or a date), 0 without one."""
    if value is None:
        return 0.0
    if re.fullmatch("[0-9]+", value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _short(error: Exception) -> str:
    """Name a transport error in one phrase: libraries nest four of them into a paragraph."""
    text = str(error)
    for sign, phrase in _PHRASES:
        if re.search(sign, text):
            return phrase
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no reason given'}"


_PHRASES = (
    ("IncompleteRead|RemoteDisconnected|ended prematurely", "closed the connection early"),
    ("[Rr]ead timed out", "sent nothing for too long"),
    ("[Cc]onnect.*timed out|ConnectTimeout", "did not accept the connection in time"),
    ("Connection refused", "refused the connection"),
    ("Connection reset|ConnectionReset", "reset the connection"),
    ("Name or service not known|NameResolutionError|getaddrinfo", "has a host name not found"),
    ("CERTIFICATE_VERIFY_FAILED|certificate", "has a certificate that does not verify"),
)
