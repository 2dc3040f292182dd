"""Which mirror is requested next, and how slow it may be: decisions only, no requests.

Every mirror gets a turn before any gets a second one; a fault that no progress follows, or too low
a rate, ends a turn. Then the fastest goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from vocprep.downloading.faults import StalledError
from vocprep.downloading.http import TransferOptions


@dataclass
class Mirror:
    """One mirror of a file and how it has done."""

    url: str
    number: int
    """Its place in the manifest's order."""
    tried: bool = False
    """Whether it has had a turn."""
    rate: float = 0.0
    """Bytes per second in its last turn."""
    faults: int = 0
    """Temporary faults in a row, without progress between them."""
    changes: int = 0
    """How often its file was not the one that the bytes here come from."""
    from_start: bool = False
    """Whether the bytes here must be dropped first: they are not of this mirror's file."""
    alone: bool = False
    """Whether it must give all bytes by itself, since those of several mirrors were wrong."""
    ready_at: float = 0.0
    """``time.monotonic`` of its next request, after a fault."""


class MirrorQueue:
    """The mirrors that have not been given up."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._waiting = [Mirror(url, number) for number, url in enumerate(urls)]

    def take(self) -> Mirror | None:
        """Return the next mirror, None when none is left.

        First one that must give all bytes by itself, then those that can go on from the bytes here;
        of them those that are ready, then those not tried yet, in order, then the fastest.
        """
        candidates = self._continuing() or self._waiting
        if not candidates:
            return None
        now = time.monotonic()
        chosen = min(
            candidates,
            key=lambda item: (
                not item.alone,
                max(item.ready_at - now, 0),
                item.tried,
                -item.rate,
                item.number,
            ),
        )
        self._waiting.remove(chosen)
        chosen.tried = True
        return chosen

    def put_back(self, mirror: Mirror) -> None:
        """Let a mirror wait for another turn."""
        self._waiting.append(mirror)

    def must_give_way(self, mirror: Mirror) -> bool:
        """Return whether another mirror can go on from the bytes of the one that was taken."""
        return not mirror.alone and bool(self._continuing())

    def pace(self, mirror: Mirror, options: TransferOptions) -> Pace:
        """Return the lowest pace for the turn of the mirror that was taken."""
        others = self._continuing()
        if not self.must_give_way(mirror):
            return Pace(options.read_seconds, options.least_bytes_per_second)
        if all(other.tried for other in others):
            fastest = max(other.rate for other in others)
            least = max(options.least_bytes_per_second, fastest / 2)
        else:
            least = options.slow_bytes_per_second
        return Pace(min(options.slow_seconds, options.read_seconds), least)

    def _continuing(self) -> list[Mirror]:
        return [mirror for mirror in self._waiting if not mirror.from_start]


class Pace:
    """The bytes of one mirror's turn over time, in windows from its first byte on.

    What passes between two requests of a turn counts too: a mirror that closes again and again is
    as slow as one that trickles.
    """

    def __init__(self, seconds: float, least_bytes_per_second: float) -> None:
        self.seconds = seconds
        self._least = least_bytes_per_second
        self._since: float | None = None
        self._received = 0

    def add(self, count: int) -> None:
        """Count bytes that were received."""
        if self._since is None:
            self._since = time.monotonic()
        self._received += count

    def check(self) -> None:
        """Raise StalledError when a window has passed and too few bytes came in it."""
        now, received = time.monotonic(), self._received
        seconds = now - (self._since or now)
        if seconds < self.seconds:
            return
        self._since, self._received = now, 0
        if received < self._least * seconds:
            raise StalledError(f"sent {received:,} bytes in {seconds:.1f} s")
