"""Fetch one file over one connection at a time: mirrors in turn until the right bytes are here."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from vocprep.data_dir.digests import ExpectedDigests, FileDigests, differences
from vocprep.downloading.faults import (
    MirrorError,
    OtherFileError,
    RefusedError,
    Remedy,
    StalledError,
    TemporaryError,
    unavailable,
    wrong_bytes,
)
from vocprep.downloading.http import RangeRequest, RangeResponse, TransferOptions, open_range
from vocprep.downloading.partial import PartFile
from vocprep.downloading.schedule import Mirror, MirrorQueue, Pace
from vocprep.errors import VocprepError
from vocprep.manifests import MOST_BYTES
from vocprep.progress import Progress

_MOST_CHANGES = 2
"""How often a mirror's file may be another than the one begun before the mirror is given up."""
_PAGE_BYTES = 512
"""How much of a file shows whether it is a web page."""


@dataclass(frozen=True, kw_only=True)
class WantedFile:
    """A file to fetch: its final path, the mirrors that may have it, and what proves it."""

    path: Path
    urls: Sequence[str]
    expected: ExpectedDigests
    max_bytes: int = MOST_BYTES
    """The most that is accepted where no size is published."""
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
    with PartFile(file.path, file.expected, file.max_bytes) as part:
        progress.begin(file.path.name, part.size, 0)
        try:
            part.hash_kept(progress.advance)
            return MirrorLoop(file, part, options, progress).run()
        finally:
            progress.end()


class MirrorLoop:
    """The transfer of one file from its mirrors, one after the other.

    A mirror that refuses is given up. One that stalls or is slow, and one whose file is another
    than the one begun, waits for another turn; the next mirror goes on from the same byte.
    """

    def __init__(
        self, file: WantedFile, part: PartFile, options: TransferOptions, progress: Progress
    ) -> None:
        self._file = file
        self._part = part
        self._options = options
        self._progress = progress
        self._queue = MirrorQueue(file.urls)
        self._failures: list[tuple[str, MirrorError]] = []
        self._wrong_bytes = False
        self._mixed = False
        """Whether bytes of an earlier run or of another mirror's turn are here."""

    def run(self) -> FetchedFile:
        """Request mirrors until one completes the file; publish it."""
        while mirror := self._queue.take():
            try:
                if mirror.from_start:
                    self._reset()
                    mirror.from_start = False
                self._mixed = self._part.held > 0
                self._take_turn(mirror)
                if self._verify(mirror):
                    self._part.publish()
                    return FetchedFile(url=mirror.url, digests=self._part.digests)
            except RefusedError as error:
                self._failures.append((mirror.url, error))
                self._progress.note(f"{mirror.url} {error}")
            except (OtherFileError, TemporaryError) as error:
                self._progress.note(f"{mirror.url} {error}; the next mirror first")
                mirror.from_start |= isinstance(error, OtherFileError)
                self._queue.put_back(mirror)
        raise self._no_mirror_left()

    def _verify(self, mirror: Mirror) -> bool:
        """Return whether the complete file is right; drop its bytes when it is not.

        Where they are mixed, from an earlier run or several mirrors, this mirror gets another
        turn to give all of them; otherwise RefusedError is raised.
        """
        expected, part = self._file.expected, self._part
        if not expected.has_digest and _is_web_page(part.first_bytes(_PAGE_BYTES)):
            self._reset()
            raise RefusedError("gave a web page instead of the file", Remedy.WEB_PAGE)
        if not expected.to_json() and not part.held:
            self._reset()
            raise RefusedError("gave an empty file")
        problem = "; ".join(differences(expected, part.digests)) or self._file.check(part.path)
        if not problem:
            return True
        mixed = self._mixed
        self._reset()
        if not mixed:
            self._wrong_bytes = True
            raise RefusedError(f"gave wrong bytes: {problem}")
        self._progress.note(f"{mirror.url} completed wrong bytes: {problem}; starting over")
        mirror.alone = True
        self._queue.put_back(mirror)
        return False

    def _take_turn(self, mirror: Mirror) -> None:
        """Append a mirror's bytes until the file is complete, with retries from the same byte.

        Raises TemporaryError or OtherFileError where another mirror should be requested first.
        """
        self._wait_for(mirror, "")
        began, held_before = time.monotonic(), self._part.held
        since, held = began, held_before
        pace = self._queue.pace(mirror, self._options)
        while not self._part.complete:
            try:
                self._request(mirror, pace)
            except OtherFileError as error:
                self._count_change(mirror, error)
                held = 0
            except TemporaryError as fault:
                now, gained = time.monotonic(), self._part.held - held
                progressed = self._count_fault(mirror, fault, gained, now - since)
                since, held = now, self._part.held
                self._postpone(mirror, fault)
                stalled = isinstance(fault, StalledError)
                if self._queue.must_give_way(mirror) and (stalled or not progressed):
                    mirror.rate = (held - held_before) / max(now - began, 1e-6)
                    raise
                if stalled:
                    pace = self._queue.pace(mirror, self._options)
                self._wait_for(mirror, f" {fault};")

    def _request(self, mirror: Mirror, pace: Pace) -> None:
        """Send one request for the bytes that are missing and append those that come."""
        request = RangeRequest(
            url=mirror.url,
            start=self._part.held,
            validator=self._part.validators.get(mirror.url),
        )
        options = replace(self._options, read_seconds=pace.seconds)
        with open_range(request, options) as response:
            self._check_same_file(mirror.url, response)
            self._part.add_source(mirror.url, response.size, response.validator)
            if self._part.size is not None:
                self._progress.expect(self._part.size)
            self._append(response, pace)

    def _check_same_file(self, url: str, response: RangeResponse) -> None:
        """Raise unless a response belongs to the file that the bytes here come from."""
        part, expected = self._part, self._file.expected
        size = response.size
        if expected.size is not None and size not in (None, expected.size):
            raise RefusedError(f"offers {size} bytes, expected {expected.size}")
        if expected.size is None and (size or 0) > self._file.max_bytes:
            raise self._too_long(f"offers {size:,} bytes")
        if not part.held:
            return
        known = part.validators.get(url)
        fits = size is None or (part.held <= size if part.size is None else part.size == size)
        if known is None:
            proved = expected.has_digest or response.validator in part.validators.values()
            if not (fits and proved):
                raise OtherFileError(f"may have another file than the one begun ({size} bytes)")
        elif not fits or (known and response.validator not in (None, known)):
            raise OtherFileError(f"the file changed ({size} bytes, {response.validator})")

    def _append(self, response: RangeResponse, pace: Pace) -> None:
        """Append the bytes of a response that are not here yet."""
        part, position = self._part, response.start
        end = part.size if response.end is None else response.end
        while position != end:
            chunk = next(response.chunks, b"")
            if not chunk:
                break
            if position == 0 and _is_web_page(chunk):
                raise RefusedError("answered with a web page instead of the file", Remedy.WEB_PAGE)
            chunk = chunk if end is None else chunk[: end - position]
            if end is None and position + len(chunk) > self._file.max_bytes:
                raise self._too_long("does not end")
            fresh = chunk[max(part.held - position, 0) :]
            part.append(fresh)
            self._progress.advance(len(fresh))
            position += len(chunk)
            pace.add(len(chunk))
            if position != end:
                pace.check()
        if position == end:
            return
        if end is not None:
            raise TemporaryError(f"closed the connection at byte {position} of {end}")
        if position == 0:
            raise TemporaryError("closed the connection without a byte of the file")
        if position < part.held:
            raise OtherFileError(f"the file ended at byte {position}, {part.held} bytes are here")
        part.end_here()

    def _too_long(self, what: str) -> RefusedError:
        most = self._file.max_bytes
        return RefusedError(f"{what}, where at most {most:,} are accepted", Remedy.LIMIT)

    def _count_change(self, mirror: Mirror, error: OtherFileError) -> None:
        """Count that a mirror has another file; start over with it where little is lost.

        Raises the error again where other mirrors may go on from the bytes here, RefusedError
        when the mirror's file is another one each time.
        """
        mirror.changes += 1
        if mirror.changes > _MOST_CHANGES:
            raise RefusedError(f"{error}, again and again") from error
        options = self._options
        worth_keeping = self._part.held > options.slow_bytes_per_second * options.slow_seconds
        if self._queue.must_give_way(mirror) and worth_keeping:
            raise error
        self._progress.note(f"{mirror.url}: {error}; starting over")
        self._reset()

    def _count_fault(
        self, mirror: Mirror, fault: TemporaryError, gained: int, seconds: float
    ) -> bool:
        """Return whether there was progress; RefusedError after too many faults without any."""
        progressed = gained > 0 and gained >= self._options.least_bytes_per_second * seconds
        mirror.faults = 0 if progressed else mirror.faults + 1
        if mirror.faults > self._options.retries:
            raise RefusedError(f"{fault}, {mirror.faults} times in a row", fault.remedy) from fault
        return progressed

    def _postpone(self, mirror: Mirror, fault: TemporaryError) -> None:
        """Set when a mirror is requested again: doubling, with jitter, or as Retry-After states."""
        options = self._options
        if fault.wait_seconds > options.retry_after_most_seconds:
            raise RefusedError(
                f"{fault} and requests a wait of more than {options.retry_after_most_seconds:g} s",
                Remedy.LATER,
            ) from fault
        doubled = options.backoff_seconds * 2.0 ** max(mirror.faults - 1, 0)
        wait = min(doubled, options.backoff_most_seconds) * random.uniform(0.5, 1.0)
        mirror.ready_at = time.monotonic() + max(wait, fault.wait_seconds)

    def _wait_for(self, mirror: Mirror, why: str) -> None:
        """Wait until a mirror may be requested again after a fault."""
        wait = max(0.0, mirror.ready_at - time.monotonic())
        if wait or why:
            self._progress.note(f"{mirror.url}:{why} trying again in {wait:.1f} s")
            time.sleep(wait)

    def _reset(self) -> None:
        self._progress.advance(-self._part.held)
        self._part.reset()
        self._mixed = False

    def _no_mirror_left(self) -> VocprepError:
        path, expected = self._file.path, self._file.expected
        if self._wrong_bytes:
            recorded = expected.recorded_sha256 is not None
            return wrong_bytes(path, self._failures, recorded=recorded)
        return unavailable(path, self._failures, self._part.held)


def _is_web_page(chunk: bytes) -> bool:
    """Return whether bytes begin a page that a firewall sends, whatever type it claims."""
    start = chunk[:_PAGE_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html"))
