"""Get a file's bytes out of one mirror: retries, restarts and parallel parts.

Which bytes are here is ``partial``'s business, how a server is asked ``transport``'s, which mirror
comes next ``fetch``'s.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

import requests

from vocprep.download.partial import Partial
from vocprep.download.transport import Answer, Changed, Question, Refused, Timeouts, Transient, ask
from vocprep.progress import Progress

_MOST_RESTARTS = 2
"""How often a mirror's file may change under our hands before the mirror is given up."""


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """How to talk to mirrors. Nothing here changes which bytes are accepted."""

    connections: int = 4
    """Parallel ranged requests for a large file."""
    large_bytes: int = 64 << 20
    """Files from this size on are fetched in parts."""
    part_bytes: int = 16 << 20
    """Bytes a ranged request of a large file."""
    chunk_bytes: int = 1 << 20
    """The most that is read at a time."""
    retries: int = 5
    """Failures in a row without one new byte before a mirror is given up."""
    backoff_seconds: float = 1.0
    """Wait after the first failure; doubles with each, up to ``backoff_most_seconds``."""
    backoff_most_seconds: float = 60.0
    """Longest wait of one's own accord."""
    retry_after_most_seconds: float = 300.0
    """Longest wait that a server may ask for; one that asks for more is passed over."""
    least_bytes_per_second: int = 64
    """A mirror slower than this over ``timeouts.read_seconds`` counts as stalled."""
    timeouts: Timeouts = field(default_factory=Timeouts)
    """How long to wait for a connection and for the next byte."""


class OtherSize(Exception):  # noqa: N818 - a turn in the walk over the mirrors, never shown
    """A mirror's file has another size than the one that the bytes so far belong to."""


class Transfer:
    """The bytes of one file from one mirror into a partial file."""

    def __init__(
        self, url: str, partial: Partial, options: TransferOptions, progress: Progress
    ) -> None:
        self._url = url
        self._partial = partial
        self._options = options
        self._watcher = progress
        self._connections = options.connections
        self._asked = False
        self._stop = threading.Event()
        """Set when no further range is to be asked for; what is on its way is still taken in."""
        self._abort = threading.Event()
        """Set when what is on its way is of no use either."""
        self._helpers: list[threading.Thread] = []
        self._faults: list[Exception] = []

    def run(self) -> None:
        """Go on until every byte is here. Raises Refused or OtherSize when the mirror will not."""
        failures = restarts = 0
        while not self._partial.complete:
            held = self._partial.held
            try:
                self._pull()
            except Changed as change:
                restarts += 1
                if restarts > _MOST_RESTARTS:
                    raise Refused(f"{change}, again and again") from change
                self._watcher.note(f"{self._url}: {change}; starting over")
                self._partial.reset()
            except Transient as fault:
                failures = 1 if self._partial.held > held else failures + 1
                self._connections = max(1, self._connections // 2)
                if failures > self._options.retries:
                    raise Refused(f"{fault}, {failures} times in a row") from fault
                self._pause(fault, failures)

    def _pull(self) -> None:
        """Work through what is missing, with helpers once the mirror proves to serve ranges."""
        self._stop.clear()
        self._abort.clear()
        self._faults.clear()
        try:
            self._run(may_help=True)
            for helper in self._helpers:
                helper.join()
        except KeyboardInterrupt:
            # Helpers may wait for a silent server: they end by themselves, and late bytes of
            # theirs find the partial file closed.
            self._stop.set()
            self._abort.set()
            raise
        self._helpers.clear()
        self._partial.release_claims()
        if self._faults:
            raise min(self._faults, key=lambda fault: isinstance(fault, Transient))

    def _run(self, *, may_help: bool) -> None:
        """Work in this thread and keep its fault for the end."""
        try:
            with requests.Session() as session:
                self._work(session, may_help=may_help)
        except Exception as fault:
            self._faults.append(fault)
            self._stop.set()
            if not isinstance(fault, Transient):
                self._abort.set()

    def _work(self, session: requests.Session, *, may_help: bool) -> None:
        """Claim a range, ask for it, copy it; until nothing is left or another thread failed."""
        while not self._stop.is_set() and (claim := self._partial.claim(self._most())):
            start, end = claim
            question = Question(
                url=self._url,
                start=start,
                end=end,
                validator=self._partial.validator(self._url),
            )
            options = self._options
            with ask(session, question, options.timeouts, options.chunk_bytes) as answer:
                self._admit(answer)
                if not answer.ranged:
                    if not may_help:
                        raise Transient("ignored the range of a parallel request")
                    self._copy(answer, None)
                    return
                if end is None and self._partial.size is not None:
                    end = (self._partial.claim(self._most()) or claim)[1]
                if may_help:
                    self._start_helpers()
                self._copy(answer, end)

    def _most(self) -> int | None:
        """Return the longest range to ask for: parts of a large file, else all that is missing."""
        size = self._partial.size
        parallel = self._connections > 1 and size is not None and size >= self._options.large_bytes
        return self._options.part_bytes if parallel else None

    def _start_helpers(self) -> None:
        if self._helpers or self._most() is None:
            return
        for _ in range(self._connections - 1):
            helper = threading.Thread(target=self._run, kwargs={"may_help": False}, daemon=True)
            self._helpers.append(helper)
            helper.start()

    def _admit(self, answer: Answer) -> None:
        """See that the answer belongs to the file that the bytes so far come from."""
        partial = self._partial
        expected, known = partial.expected_size, partial.validator(self._url)
        if expected is not None and answer.size not in (None, expected):
            raise Refused(f"offers {answer.size} bytes, expected {expected}")
        if self._touched and known and answer.validator not in (None, known):
            raise Changed(f"the file changed (version {known}, now {answer.validator})")
        if partial.size is not None and answer.size not in (None, partial.size):
            text = (
                f"offers {answer.size} bytes, the {partial.held} bytes here are of {partial.size}"
            )
            raise Changed(text) if self._asked or known else OtherSize(text)
        self._asked = True
        size = answer.size or expected
        if (size, answer.validator) != (partial.size, known):
            partial.note_mirror(self._url, size, answer.validator)
            if size is not None:
                self._watcher.expect(size)

    @property
    def _touched(self) -> bool:
        """Whether bytes of the file may be here already."""
        return self._asked or self._partial.held > 0

    def _copy(self, answer: Answer, end: int | None) -> None:
        """Write the answer's bytes up to ``end``, or all when only their end tells how many."""
        end = answer.end if end is None else min(end, answer.end or end)
        end = self._partial.size if end is None else end
        position, pace = answer.start, _Pace(self._options)
        for chunk in answer.chunks:
            if self._abort.is_set():
                return
            if position == 0 and _is_web_page(chunk):
                raise Refused("answered with a web page instead of the file")
            wanted = chunk if end is None else chunk[: end - position]
            self._partial.write(position, wanted)
            position += len(wanted)
            if position == end:
                return
            pace.check(len(chunk))
        if end is not None:
            raise Transient(f"closed the connection at byte {position} of {end}")
        self._partial.end_at(position)

    def _pause(self, fault: Transient, failures: int) -> None:
        """Wait before the next try: doubling, with jitter, and as long as the server asks."""
        options = self._options
        wait = min(options.backoff_seconds * 2 ** (failures - 1), options.backoff_most_seconds)
        wait *= random.uniform(0.5, 1.0)
        asked = fault.wait_seconds or 0.0
        if asked > options.retry_after_most_seconds:
            raise Refused(f"{fault} and asks to wait {asked:.0f} s") from fault
        wait = max(wait, asked)
        self._watcher.note(f"{self._url}: {fault}; trying again in {wait:.1f} s")
        time.sleep(wait)


class _Pace:
    """Finds the server that sends a byte now and then, which no read timeout ever meets."""

    def __init__(self, options: TransferOptions) -> None:
        self._options = options
        self._since, self._count = time.monotonic(), 0

    def check(self, count: int) -> None:
        """Count new bytes; raise Transient after a window with too few."""
        self._count += count
        seconds = time.monotonic() - self._since
        if seconds < self._options.timeouts.read_seconds:
            return
        if self._count < self._options.least_bytes_per_second * seconds:
            raise Transient(f"sent {self._count} bytes in {seconds:.0f} s")
        self._since, self._count = time.monotonic(), 0


def _is_web_page(chunk: bytes) -> bool:
    """Tell a page that a firewall sends in place of a file, whatever type it claims."""
    start = chunk[:64].lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html"))
