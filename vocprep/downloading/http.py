"""One request to one mirror for a file's bytes from an offset on: http, https and file URLs.

Raises the errors of ``vocprep.downloading.faults`` only.
"""

from __future__ import annotations

import email.utils
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

import requests
from pydantic import Field

from vocprep.downloading.connection import MirrorSession
from vocprep.downloading.faults import (
    OtherFileError,
    RefusedError,
    Remedy,
    StalledError,
    TemporaryError,
    shown,
    translated_errors,
)
from vocprep.files.reading import open_regular
from vocprep.validation import NotNegative, Positive, checked, explain

USER_AGENT = "vocprep"
_NUMBER = "([0-9]{1,18})"
_CONTENT_RANGE = re.compile(rf"bytes {_NUMBER}-{_NUMBER}/(?:{_NUMBER}|\*)")
_VALIDATOR = re.compile(r"[\x20-\x7e]{1,200}")
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
    connect_seconds: Seconds = 10.0
    """Time limit of a connection, TLS included."""
    read_seconds: Seconds = 30.0
    """Time limit of a whole response head, redirects included, and of each next byte."""
    least_bytes_per_second: NotNegative = 1000
    """A mirror slower than this over ``read_seconds`` counts as stalled."""
    slow_seconds: Seconds = 10.0
    """The limit in place of ``read_seconds`` while there are other mirrors to request."""
    slow_bytes_per_second: NotNegative = 50_000
    """A mirror slower than this over ``slow_seconds`` waits until all others have been tried."""


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


@contextmanager
def open_range(request: RangeRequest, options: TransferOptions) -> Iterator[RangeResponse]:
    """Yield the response to a request; its chunks are read inside the block.

    Each request has a connection of its own: what a server sends behind its response is never read.
    Raises TemporaryError, RefusedError or OtherFileError, also while chunks are read.
    """
    with translated_errors("answer", options.read_seconds):
        scheme = urlsplit(request.url).scheme
    if scheme not in ("http", "https", "file"):
        raise RefusedError("is no http, https or file URL")
    if scheme == "file":
        with _open_file(request, options.chunk_bytes) as file_response:
            yield file_response
        return
    with MirrorSession() as session, _get(session, request, options) as response:
        if response.status_code == 416 and request.start:
            yield _read_end(response, request)
            return
        _check_status(response, request)
        _check_encoding(response, request)
        yield _read_head(response, request, options)


def _get(
    session: MirrorSession, request: RangeRequest, options: TransferOptions
) -> requests.Response:
    """Send the request and follow redirects, whose bodies are not read.

    The file must come byte by byte as it is published, so no content encoding is accepted.
    """
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Connection": "close"}
    if request.start:
        headers["Range"] = f"bytes={request.start}-"
        # A weak validator promises no equal bytes; If-Range must not carry it (RFC 9110, 13.1.5).
        if request.validator and not request.validator.startswith("W/"):
            headers["If-Range"] = request.validator
    url, deadline = request.url, time.monotonic() + options.read_seconds
    for _ in range(_MOST_REDIRECTS):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise StalledError(f"redirects for more than {options.read_seconds:g} s")
        timeout = (options.connect_seconds, remaining)
        with translated_errors("answer", options.read_seconds):
            response = session.get(url, headers=headers, stream=True, timeout=timeout)
        if response.status_code not in _REDIRECT_STATUS or "Location" not in response.headers:
            return response
        response.close()
        url = _redirected(url, response.headers["Location"])
    raise RefusedError(f"redirects {_MOST_REDIRECTS} times in a row")


def _redirected(url: str, location: str) -> str:
    """Return where a redirect leads; RefusedError unless that may be requested."""
    try:
        target = urljoin(url, location.encode("latin-1").decode("utf-8", "replace"))
        scheme = urlsplit(target).scheme
    except ValueError as error:
        raise RefusedError(f"redirects to {shown(location)}, which is no URL") from error
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise RefusedError(f"redirects from https to {shown(target)}, which anybody could change")
    if scheme not in ("http", "https"):
        raise RefusedError(f"redirects to {shown(target)}, which is no http or https URL")
    return target


def _check_status(response: requests.Response, request: RangeRequest) -> None:
    """Raise for every status that comes without bytes of the file."""
    status = response.status_code
    answer = f"answered {status} {shown(response.reason or '')[1:-1]}".rstrip()
    if status in _TEMPORARY_STATUS:
        wait = retry_after(response.headers.get("Retry-After"))
        raise TemporaryError(answer, wait_seconds=wait)
    if status in _NOT_FOUND:
        raise RefusedError(f"{answer}: the file is not there")
    if status == 206 and not request.start:
        raise RefusedError(f"{answer} to a request for the whole file")
    if status not in (200, 206):
        raise RefusedError(answer)
    kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise RefusedError(f"{answer} with a web page instead of the file", Remedy.WEB_PAGE)


def _check_encoding(response: requests.Response, request: RangeRequest) -> None:
    """Raise where the bytes that come are not those of the file.

    Servers that name gzip for a file which is itself published as .gz mean the file as it is.
    """
    accepted = {"Content-Encoding": {"identity", ""}, "Transfer-Encoding": {"chunked"}}
    if urlsplit(request.url).path.lower().endswith((".gz", ".tgz")):
        accepted["Content-Encoding"] |= {"gzip", "x-gzip"}
    for name, encodings in accepted.items():
        found = response.headers.get(name)
        if found is not None and found.strip().lower() not in encodings:
            raise RefusedError(f"answered with {name} {shown(found)}, which was not asked for")


def _read_head(
    response: requests.Response, request: RangeRequest, options: TransferOptions
) -> RangeResponse:
    """Return which bytes of the file a response holds; RefusedError for others than requested."""
    length = response.headers.get("Content-Length")
    start, size = 0, int(length.split(",")[0]) if length is not None else None
    end = size
    if response.status_code == 206:
        found = response.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(found)
        if match is None or not request.start == int(match[1]) <= int(match[2]):
            raise RefusedError(
                f"answered Content-Range {shown(found)} to bytes from {request.start} on"
            )
        start, end = int(match[1]), int(match[2]) + 1
        if size not in (None, end - start) or (match[3] and int(match[3]) < end):
            raise RefusedError(
                f"answered Content-Range {shown(found)} with {size} bytes, which contradict it"
            )
        size = int(match[3]) if match[3] else end  # the rest was requested, so it ends the file
    return RangeResponse(
        start=start,
        end=end,
        size=size,
        validator=_validator(response),
        chunks=_chunks(response, options),
    )


def _read_end(response: requests.Response, request: RangeRequest) -> RangeResponse:
    """Return the empty rest of a file that ends where the requested range begins."""
    start = request.start
    if response.headers.get("Content-Range") != f"bytes */{start}":
        raise OtherFileError(f"answered 416 to bytes from {start} on")
    return RangeResponse(
        start=start, end=start, size=start, validator=_validator(response), chunks=iter(())
    )


def _validator(response: requests.Response) -> str | None:
    found = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    return found if is_validator(found) else None


def is_validator(text: str) -> bool:
    """Return whether an ETag or a date can be sent back to its server."""
    return _VALIDATOR.fullmatch(text) is not None


def _chunks(response: requests.Response, options: TransferOptions) -> Iterator[bytes]:
    """Yield the body undecoded as it arrives: ``read1`` returns what one receive brought."""
    with translated_errors("send a byte", options.read_seconds):
        while chunk := response.raw.read1(options.chunk_bytes, decode_content=False):
            yield chunk


@contextmanager
def _open_file(request: RangeRequest, chunk_bytes: int) -> Iterator[RangeResponse]:
    """Yield the bytes of a file URL; its validator is its size and time of change."""
    try:
        stream = open_regular(Path(unquote(urlsplit(request.url).path)))
    except (OSError, ValueError) as error:
        raise RefusedError(f"is not a file that can be read ({explain(error)})") from error
    with stream:
        facts = os.fstat(stream.fileno())
        if request.start > facts.st_size:
            raise OtherFileError(f"has {facts.st_size} bytes now")
        stream.seek(request.start)
        yield RangeResponse(
            start=request.start,
            end=facts.st_size,
            size=facts.st_size,
            validator=f"{facts.st_size}-{facts.st_mtime_ns}",
            chunks=_file_chunks(stream, chunk_bytes),
        )


def _file_chunks(stream: BinaryIO, chunk_bytes: int) -> Iterator[bytes]:
    try:
        while chunk := stream.read(chunk_bytes):
            yield chunk
    except OSError as error:
        raise RefusedError(f"cannot be read ({explain(error)})") from error


def retry_after(value: str | None) -> float:
    """Return the seconds from now of a Retry-After header (seconds or a date), 0 without one.

    >>> retry_after("7"), retry_after("-7"), retry_after("9" * 5000)
    (7.0, 0.0, inf)
    """
    text = (value or "").strip()
    if re.fullmatch("[0-9]+", text):
        return float(text) if len(text) < 10 else math.inf
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text[:60]).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
