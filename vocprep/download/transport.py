"""Ask one mirror for one range of bytes: http, https and file URLs, faults sorted by what helps.

A fault is one of three: ``Transient`` (wait and ask again), ``Refused`` (this mirror will not do)
or ``Changed`` (the file is another one than before). They never leave ``vocprep.download``.
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
from urllib.parse import unquote, urlsplit

import requests
import urllib3

USER_AGENT = "vocprep"
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_UNSATISFIED = re.compile(r"bytes \*/(\d+)")
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_NOT_FOUND = frozenset({404, 410})


class Transient(Exception):  # noqa: N818 - named for what it is; caught by fetch.py, never shown
    """The same question may be answered later."""

    def __init__(self, message: str, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds
        """What the server asked for by Retry-After."""


class Refused(Exception):  # noqa: N818 - likewise
    """This mirror cannot give the file; another may."""


class Changed(Exception):  # noqa: N818 - likewise
    """The mirror's file is another one than the bytes so far come from."""


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long to wait for a server."""

    connect_seconds: float = 10.0
    """For a connection."""
    read_seconds: float = 30.0
    """For the next byte: longer is a stall."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One range of one mirror's file."""

    url: str
    start: int = 0
    end: int | None = None
    """One past the last byte wanted; None for the rest of the file."""
    validator: str | None = None
    """The version that the earlier bytes come from."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The head of an answer, with the bytes to come."""

    start: int
    """Offset of the first byte."""
    end: int | None
    """One past the last byte, None when only the end of the answer will tell."""
    size: int | None
    """Bytes of the whole file, where told."""
    validator: str | None
    ranged: bool
    """Whether the server gave the range that it was asked for, not the whole file."""
    chunks: Iterator[bytes]


@contextmanager
def ask(
    session: requests.Session, question: Question, timeouts: Timeouts, chunk_bytes: int
) -> Iterator[Answer]:
    """Yield the answer to one question; its bytes are read inside the block.

    Raises Transient, Refused or Changed, also from the block's reads.
    """
    if urlsplit(question.url).scheme == "file":
        with _ask_file(question, chunk_bytes) as answer:
            yield answer
        return
    try:
        with _get(session, question, timeouts) as response:
            _check_status(response, question)
            yield _head(response, question, chunk_bytes)
    except (requests.exceptions.SSLError, requests.exceptions.InvalidURL) as error:
        raise Refused(_short(error)) from error
    except (requests.exceptions.InvalidSchema, requests.exceptions.TooManyRedirects) as error:
        raise Refused(_short(error)) from error
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        raise Transient(_short(error)) from error
    except requests.RequestException as error:
        raise Refused(_short(error)) from error


def _get(session: requests.Session, question: Question, timeouts: Timeouts) -> requests.Response:
    """Send the request. The bytes must come as they are kept, so no encoding is accepted."""
    last = "" if question.end is None else question.end - 1
    headers = {
        "User-Agent": USER_AGENT,
        "Accept-Encoding": "identity",
        "Range": f"bytes={question.start}-{last}",
    }
    # A weak validator promises no equal bytes, and If-Range may not carry it (RFC 9110, 13.1.5).
    if question.start and question.validator and not question.validator.startswith("W/"):
        headers["If-Range"] = question.validator
    timeout = (timeouts.connect_seconds, timeouts.read_seconds)
    return session.get(question.url, headers=headers, stream=True, timeout=timeout)


def _check_status(response: requests.Response, question: Question) -> None:
    """Sort the statuses that bring no bytes."""
    status, said = response.status_code, f"answered {response.status_code} {response.reason}"
    if status in _TRANSIENT_STATUS:
        raise Transient(said, retry_after(response.headers.get("Retry-After")))
    if status == 416:
        _explain_416(response, question)
    if status in _NOT_FOUND:
        raise Refused(f"{said}: the file is not there")
    if status not in (200, 206):
        raise Refused(said)
    kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise Refused(f"{said} with a web page instead of the file")


def _explain_416(response: requests.Response, question: Question) -> None:
    """Tell an empty file (any range of it is refused) from one that shrank."""
    match = _UNSATISFIED.fullmatch(response.headers.get("Content-Range", ""))
    if question.start == 0:
        raise Refused(f"answered 416 to the file's first bytes (size {match and match[1]})")
    raise Changed(f"answered 416 to bytes from {question.start} on (size {match and match[1]})")


def _head(response: requests.Response, question: Question, chunk_bytes: int) -> Answer:
    """Read where the bytes belong; refuse a range that was not asked for."""
    validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
    chunks = _chunks(response, chunk_bytes)
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        size = int(length) if length.isdigit() else None
        return Answer(
            start=0, end=size, size=size, validator=validator, ranged=False, chunks=chunks
        )
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != question.start:
        found = response.headers.get("Content-Range")
        raise Refused(f"answered Content-Range {found!r} to bytes from {question.start} on")
    end = int(match[2]) + 1
    # Who was asked for the rest and gives no total means that the rest is the total.
    told = match[3] if match[3] != "*" else None
    size = int(told) if told else end if question.end is None else None
    return Answer(
        start=question.start,
        end=end,
        size=size,
        validator=validator,
        ranged=True,
        chunks=chunks,
    )


def _chunks(response: requests.Response, chunk_bytes: int) -> Iterator[bytes]:
    """Yield the body as it comes in, undecoded: ``read1`` hands out what one receive brought."""
    while chunk := response.raw.read1(chunk_bytes, decode_content=False):
        yield chunk


@contextmanager
def _ask_file(question: Question, chunk_bytes: int) -> Iterator[Answer]:
    """Answer from a file URL; its version is its size and time of change."""
    path = Path(unquote(urlsplit(question.url).path))
    try:
        stream = path.open("rb")
    except OSError as error:
        raise Refused(f"cannot be read: {error.strerror}") from error
    with stream:
        facts = os.fstat(stream.fileno())
        stream.seek(question.start)
        yield Answer(
            start=question.start,
            end=facts.st_size if question.end is None else min(question.end, facts.st_size),
            size=facts.st_size,
            validator=f"{facts.st_size}-{facts.st_mtime_ns}",
            ranged=True,
            chunks=iter(lambda: stream.read(chunk_bytes), b""),
        )


def retry_after(value: str | None) -> float | None:
    """Read a Retry-After header, seconds or a date, as seconds from now."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


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
