"""Fetch one file over one connection at a time: mirrors in turn until the right bytes are here."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vocprep.data_dir.digests import ExpectedDigests, FileDigests, differences
from vocprep.downloading.http import (
    FileChangedError,
    MirrorSession,
    RangeRequest,
    RangeResponse,
    RefusedError,
    StalledError,
    TemporaryError,
    TransferOptions,
    open_range,
)
from vocprep.downloading.partial import PartFile
from vocprep.errors import DigestError, SourceUnavailableError, VocprepError
from vocprep.progress import Progress

_MOST_CHANGES = 2
"""How often a mirror's file may change during its transfer before the mirror is given up."""


@dataclass(frozen=True, kw_only=True)
class WantedFile:
    """A file to fetch: its final path, the mirrors that may have it, and what proves it."""

    path: Path
    urls: Sequence[str]
    expected: ExpectedDigests
    check: Callable[[Path], str | None] = lambda _: None
    """The last check of the whole file before it gets its name: None, or what is wrong."""


class FetchedFile(NamedTuple):
    """A file that has its final name: the mirror that completed it, and its digests."""

    url: str
    digests: FileDigests


def fetch(file: WantedFile, options: TransferOptions, progress: Progress) -> FetchedFile:
    """Fetch a file from the first mirror that gives the right bytes, and publish it.

    The caller holds the file's lock. Raises DigestError when mirrors gave only wrong bytes,
    SourceUnavailableError when none gave a whole file; the bytes so far stay for the next run.
    """
    with PartFile(file.path, file.expected) as part:
        progress.begin(file.path.name, part.size, 0)
        try:
            part.hash_kept(progress.advance)
            return MirrorLoop(file, part, options, progress).run()
        finally:
            progress.end()


class _OtherFileError(Exception):
    """A mirror's file cannot be shown to be the one that the bytes here come from."""


@dataclass
class _Mirror:
    url: str
    faults: int = 0
    """Temporary faults in a row, without progress between them."""
    changes: int = 0
    from_start: bool = False
    """Whether the bytes here must be dropped first: they are not of this mirror's file."""


class MirrorLoop:
    """The transfer of one file from its mirrors, one after the other.

    A mirror that fails is given up. One that stalls, or whose file is another than the one that
    the bytes here come from, is left for later; the next mirror goes on from the same byte.
    """

    def __init__(
        self, file: WantedFile, part: PartFile, options: TransferOptions, progress: Progress
    ) -> None:
        self._file = file
        self._part = part
        self._options = options
        self._progress = progress
        self._waiting = deque(_Mirror(url) for url in file.urls)
        self._failures: list[str] = []
        self._wrong_bytes = False

    def run(self) -> FetchedFile:
        """Request mirrors until one completes the file; publish it."""
        while self._waiting:
            mirror = self._waiting.popleft()
            try:
                if mirror.from_start:
                    self._reset()
                    mirror.from_start = False
                mixed = self._part.held > 0
                self._transfer(mirror)
                if self._verify(mirror, mixed=mixed):
                    self._part.publish()
                    return FetchedFile(url=mirror.url, digests=self._part.digests)
            except RefusedError as error:
                self._failures.append(f"{mirror.url} {error}")
                self._progress.note(self._failures[-1])
            except (_OtherFileError, StalledError) as error:
                self._progress.note(f"{mirror.url} {error}; the next mirror first")
                mirror.from_start |= isinstance(error, _OtherFileError)
                self._waiting.append(mirror)
        raise self._no_mirror_left()

    def _verify(self, mirror: _Mirror, *, mixed: bool) -> bool:
        """Return whether the complete file is right; drop its bytes when it is not.

        Where they are ``mixed``, from an earlier run or several mirrors, this mirror gets another
        turn to give all of them; otherwise RefusedError is raised.
        """
        wrong = differences(self._file.expected, self._part.digests)
        problem = "; ".join(wrong) or self._file.check(self._part.path)
        if not problem:
            return True
        self._reset()
        if not mixed:
            self._wrong_bytes = True
            raise RefusedError(f"gave wrong bytes: {problem}")
        self._progress.note(f"{mirror.url} completed wrong bytes: {problem}; starting over")
        self._waiting.appendleft(mirror)
        return False

    def _transfer(self, mirror: _Mirror) -> None:
        """Append a mirror's bytes until the file is complete, with retries from the same byte."""
        since, held = time.monotonic(), self._part.held
        with MirrorSession() as session:
            while not self._part.complete:
                try:
                    self._request(session, mirror)
                except FileChangedError as change:
                    mirror.changes += 1
                    if mirror.changes > _MOST_CHANGES:
                        raise RefusedError(f"{change}, again and again") from change
                    self._progress.note(f"{mirror.url}: {change}; starting over")
                    self._reset()
                    held = 0
                except TemporaryError as fault:
                    now = time.monotonic()
                    self._count_fault(mirror, fault, self._part.held - held, now - since)
                    since, held = now, self._part.held
                    if isinstance(fault, StalledError) and self._waiting:
                        raise
                    self._pause(mirror, fault)

    def _request(self, session: MirrorSession, mirror: _Mirror) -> None:
        """Send one request for the bytes that are missing and append those that come."""
        request = RangeRequest(
            url=mirror.url,
            start=self._part.held,
            validator=self._part.validators.get(mirror.url),
        )
        with open_range(session, request, self._options) as response:
            self._check_same_file(mirror.url, response)
            self._part.add_source(mirror.url, response.size, response.validator)
            if self._part.size is not None:
                self._progress.expect(self._part.size)
            self._append(response)

    def _check_same_file(self, url: str, response: RangeResponse) -> None:
        """Raise unless a response belongs to the file that the bytes here come from."""
        part, expected = self._part, self._file.expected
        if expected.size is not None and response.size not in (None, expected.size):
            raise RefusedError(f"offers {response.size} bytes, expected {expected.size}")
        if not part.held:
            return
        size, known = response.size, part.validators.get(url)
        fits = size is None or (part.held <= size if part.size is None else part.size == size)
        if known is None:
            proved = expected.has_digest or response.validator in part.validators.values()
            if not (fits and proved):
                raise _OtherFileError(f"may have another file than the one begun ({size} bytes)")
        elif not fits or (known and response.validator not in (None, known)):
            raise FileChangedError(f"the file changed ({size} bytes, {response.validator})")

    def _append(self, response: RangeResponse) -> None:
        """Append the bytes of a response that are not here yet."""
        part, options, position = self._part, self._options, response.start
        end = part.size if response.end is None else response.end
        since, received = time.monotonic(), 0
        while position != end:
            chunk = next(response.chunks, b"")
            if not chunk:
                break
            if position == 0 and _is_web_page(chunk):
                raise RefusedError("answered with a web page instead of the file")
            chunk = chunk if end is None else chunk[: end - position]
            fresh = chunk[max(part.held - position, 0) :]
            part.append(fresh)
            self._progress.advance(len(fresh))
            position += len(chunk)
            received += len(chunk)
            seconds = time.monotonic() - since
            if seconds >= options.read_seconds and position != end:
                if received < options.least_bytes_per_second * seconds:
                    raise StalledError(f"sent {received} bytes in {seconds:.0f} s")
                since, received = time.monotonic(), 0
        if position == end:
            return
        if end is not None:
            raise TemporaryError(f"closed the connection at byte {position} of {end}")
        if position < part.held:
            raise FileChangedError(f"the file ended at byte {position}, {part.held} bytes are here")
        part.end_here()

    def _count_fault(
        self, mirror: _Mirror, fault: TemporaryError, gained: int, seconds: float
    ) -> None:
        """Count the faults without progress between them; RefusedError after too many."""
        progressed = gained > 0 and gained >= self._options.least_bytes_per_second * seconds
        mirror.faults = 1 if progressed else mirror.faults + 1
        if mirror.faults > self._options.retries:
            raise RefusedError(f"{fault}, {mirror.faults} times in a row") from fault

    def _pause(self, mirror: _Mirror, fault: TemporaryError) -> None:
        """Wait before the next request: doubling, with jitter, or as Retry-After states."""
        options = self._options
        if fault.wait_seconds > options.retry_after_most_seconds:
            raise RefusedError(
                f"{fault} and requests a wait of {fault.wait_seconds:.0f} s"
            ) from fault
        wait = min(options.backoff_seconds * 2 ** (mirror.faults - 1), options.backoff_most_seconds)
        wait = max(wait * random.uniform(0.5, 1.0), fault.wait_seconds)
        self._progress.note(f"{mirror.url}: {fault}; trying again in {wait:.1f} s")
        time.sleep(wait)

    def _reset(self) -> None:
        self._progress.advance(-self._part.held)
        self._part.reset()

    def _no_mirror_left(self) -> VocprepError:
        """Return the error that names each mirror's fault and what to do."""
        name, faults = self._file.path, "; ".join(self._failures) or "none is listed"
        if self._wrong_bytes:
            return DigestError(
                f"{name}: no mirror gave the right bytes, nothing was kept: {faults}; a proxy may "
                "have changed them, or the published file did: try --mirror or --from"
            )
        return SourceUnavailableError(
            f"{name}: no mirror gave the file: {faults}; run the same command again to go on from "
            f"byte {self._part.held}, or try --mirror URL or --from DIR"
        )


def _is_web_page(chunk: bytes) -> bool:
    """Return whether bytes begin a page that a firewall sends, whatever type it claims."""
    start = chunk[:64].lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html"))
