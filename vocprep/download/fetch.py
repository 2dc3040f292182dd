"""Fetch one file: walk over the mirrors until one gives the right bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vocprep.data_dir.digests import ExpectedDigests, FileDigests, differences
from vocprep.download.following import Follower
from vocprep.download.partial import Partial
from vocprep.download.transfer import OtherSize, Transfer, TransferOptions
from vocprep.download.transport import Refused
from vocprep.errors import DigestError, SourceUnavailableError, VocprepError
from vocprep.progress import Progress


def accept_any(_: Path) -> str | None:
    """Find nothing wrong with a file: the last check of files that need none."""
    return None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file to fetch: where it goes, who may have it and what proves it."""

    path: Path
    urls: Sequence[str]
    expected: ExpectedDigests
    check: Callable[[Path], str | None] = accept_any
    """The last check of the whole file before it gets its name: None, or what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file that is final."""

    url: str
    """The mirror that completed it."""
    found: FileDigests


def fetch(wanted: Wanted, options: TransferOptions, progress: Progress) -> Fetched:
    """Bring a file to its final name from the first mirror that gives the right bytes.

    The caller holds the file's lock. Raises DigestError when mirrors gave only wrong bytes,
    SourceUnavailableError when none gave a whole file; bytes fetched so far stay for the next run.
    """
    with Partial(wanted.path, wanted.expected, progress.advance) as partial:
        size = partial.size or wanted.expected.size
        progress.begin(wanted.path.name, size, partial.held)
        try:
            return _Walk(wanted, partial, options, progress).run()
        finally:
            progress.end()


class _Walk:
    """The mirrors in their order, and what was learnt on the way."""

    def __init__(
        self, wanted: Wanted, partial: Partial, options: TransferOptions, progress: Progress
    ) -> None:
        self._wanted = wanted
        self._partial = partial
        self._options = options
        self._watcher = progress
        self._follower = Follower(partial, wanted.expected.algorithms)
        self._failures: list[str] = []
        self._mismatched = False

    def run(self) -> Fetched:
        """Try each mirror; those that disagree about the size once more, on an empty file."""
        other_size = []
        for url in self._wanted.urls:
            try:
                if fetched := self._try(url):
                    return fetched
            except OtherSize as error:
                self._fail(url, str(error))
                other_size.append(url)
        # Only now is it worth forgetting what is here for a mirror that disagrees with it.
        for url in other_size:
            self._partial.reset()
            if fetched := self._try(url):
                return fetched
        raise self._none_left()

    def _try(self, url: str) -> Fetched | None:
        """Complete the file from one mirror; None when the mirror is no good."""
        mixed = self._partial.held > 0
        try:
            Transfer(url, self._partial, self._options, self._watcher).run()
            problem = self._problem()
            if problem and mixed:
                # The older bytes may be the wrong ones, so this mirror gets a clean file.
                self._watcher.note(f"{url} completed wrong bytes: {problem}; starting over")
                self._partial.reset()
                Transfer(url, self._partial, self._options, self._watcher).run()
                problem = self._problem()
        except Refused as refusal:
            self._fail(url, str(refusal))
            return None
        if problem:
            self._mismatched = True
            self._partial.reset()
            self._fail(url, f"gave wrong bytes: {problem}")
            return None
        found = self._follower.result()
        self._partial.publish()
        return Fetched(url=url, found=found)

    def _problem(self) -> str | None:
        """Return what is wrong with the complete file, None when all digests agree."""
        wrong = differences(self._wanted.expected, self._follower.result())
        return "; ".join(wrong) or self._wanted.check(self._partial.path)

    def _fail(self, url: str, reason: str) -> None:
        self._failures.append(f"{url} {reason}")
        self._watcher.note(self._failures[-1])

    def _none_left(self) -> VocprepError:
        """Name each mirror's fault and the way on."""
        name, faults = self._wanted.path, "; ".join(self._failures) or "none is listed"
        if self._mismatched:
            return DigestError(
                f"{name}: no mirror gave the right bytes, nothing was kept: {faults}; a proxy may "
                "have changed them, or the published file did: try --mirror or --from"
            )
        return SourceUnavailableError(
            f"{name}: no mirror gave the file: {faults}; run the same command again to go on from "
            f"byte {self._partial.held}, or try --mirror URL or --from DIR"
        )
