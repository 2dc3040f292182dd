"""An unfinished download: the bytes so far, and a small state file that says which they are.

Beside ``NAME`` stand ``NAME.part`` (the bytes, each at its final offset) and ``NAME.part.json``
(mirrors and validators, expected digests, size, ranges done). A killed process loses at most
``SAVE_SECONDS`` of progress; after a power cut only the ranges that were flushed are trusted.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vocprep.data_dir.digests import BLOCK_BYTES, ExpectedDigests
from vocprep.download.spans import Span, add_span, first_gap, missing_spans, total

SAVE_SECONDS = 0.02
"""The state file is rewritten so often: what a kill can cost, less than a read up to 12 MB/s."""
FLUSH_SECONDS = 1.0
"""The bytes are flushed to the disk so often: what a power cut can cost."""

Advance = Callable[[int], None]


@dataclass
class _State:
    """What the state file holds."""

    expected: dict[str, Any]
    size: int | None
    """Bytes of the whole file, once any mirror has said it."""
    validators: dict[str, str]
    """By mirror: its ETag or Last-Modified."""
    done: list[Span]
    flushed: list[Span]
    """The part of ``done`` that survives a power cut."""
    boot: str
    """Which start of the machine wrote this; ``done`` is trusted only within the same one."""


class Partial:
    """The one writer of an unfinished file; safe to call from several threads.

    The caller holds the file's lock. Use it as a context manager: leaving it saves the state.
    """

    def __init__(self, final: Path, expected: ExpectedDigests, advance: Advance) -> None:
        self.final = final
        self.path = final.with_name(final.name + ".part")
        self.state_path = final.with_name(final.name + ".part.json")
        self._expected = expected
        self._advance = advance
        self.condition = threading.Condition()
        """Notified whenever bytes come, are forgotten, or the file is closed."""
        self._claimed: list[Span] = []
        self._saved_at = time.monotonic()
        self.closed = False
        self.generation = 0
        """Counts the resets, so that a reader of the bytes knows that they are no more."""
        final.parent.mkdir(parents=True, exist_ok=True)
        self._state = self._load()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.run_beside(self._flush_now_and_then)
        return self

    def __exit__(self, *_: object) -> None:
        with self.condition:
            if not self.closed:
                self._save(flush=True)
                self._close()
        for thread in self._threads:
            thread.join()

    def run_beside(self, target: Callable[[], None]) -> None:
        """Run in a thread of its own what ends by itself once the file is closed."""
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    @property
    def size(self) -> int | None:
        """Bytes of the whole file, None while no mirror has told."""
        return self._state.size

    @property
    def expected_size(self) -> int | None:
        """Bytes that the manifest states."""
        return self._expected.size

    @property
    def held(self) -> int:
        """Bytes that are here already."""
        with self.condition:
            return total(self._state.done)

    @property
    def complete(self) -> bool:
        """Whether every byte is here."""
        with self.condition:
            return self.size is not None and not missing_spans(self._state.done, self.size)

    def validator(self, url: str) -> str | None:
        """Return what a mirror said of the file's version when it was asked last."""
        return self._state.validators.get(url)

    def note_mirror(self, url: str, size: int | None, validator: str | None) -> None:
        """Record a mirror's word on the file before its bytes are written."""
        with self.condition:
            if size is not None:
                self._state.size = size
            if validator is not None:
                self._state.validators[url] = validator
            self._save()
            self.condition.notify_all()

    def end_at(self, size: int) -> None:
        """Record the size of a file whose mirror told it only by ending the answer."""
        with self.condition:
            self._state.size = size
            self.condition.notify_all()

    def reset(self) -> None:
        """Forget every byte: the file changed, or the whole failed its digests."""
        with self.condition:
            self._advance(-self.held)
            self._state = self._fresh()
            self.generation += 1
            self._claimed = []
            os.ftruncate(self._descriptor, 0)
            self._save()
            self.condition.notify_all()

    def claim(self, most: int | None = None) -> tuple[int, int | None] | None:
        """Reserve the first range that is neither here nor reserved, at most ``most`` bytes.

        Returns (start, end), end None while the size is unknown; None when nothing is left.
        """
        with self.condition:
            taken = self._state.done
            for start, end in self._claimed:
                taken = add_span(taken, start, end)
            if self.size is None:
                return (first_gap(self._state.done), None)
            gaps = missing_spans(taken, self.size)
            if not gaps:
                return None
            start, end = gaps[0]
            end = end if most is None else min(end, start + most)
            self._claimed = add_span(self._claimed, start, end)
            return (start, end)

    def release_claims(self) -> None:
        """Give back every reservation, after the threads that held them ended."""
        with self.condition:
            self._claimed = []

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes at their place; after ``close`` this is ignored."""
        with self.condition:
            skip = min(max(first_gap(self._state.done) - offset, 0), len(data))
            if self.closed or skip == len(data):
                return
            end = offset + len(data)
            view = memoryview(data)[skip:]
            while view:
                view = view[os.pwrite(self._descriptor, view, end - len(view)) :]
            held, prefix = self.held, first_gap(self._state.done)
            self._state.done = add_span(self._state.done, offset + skip, end)
            self._wake_readers(prefix)
            self._advance(self.held - held)
            if time.monotonic() - self._saved_at >= SAVE_SECONDS:
                self._save()

    def _wake_readers(self, before: int) -> None:
        """Wake those who wait for the prefix once a block, not at each chunk: that costs speed."""
        prefix = first_gap(self._state.done)
        if prefix // BLOCK_BYTES > before // BLOCK_BYTES or prefix == self.size:
            self.condition.notify_all()

    def publish(self) -> None:
        """Flush the bytes and give them their final name; the state file goes away."""
        with self.condition:
            os.fsync(self._descriptor)
            self._close()
            self.path.replace(self.final)
            self.state_path.unlink(missing_ok=True)

    def wait_for_prefix(self, beyond: int, generation: int) -> int | None:
        """Wait until more than ``beyond`` bytes stand in one piece from the start; return how many.

        Returns ``beyond`` itself when that is the whole file, None when there is nothing to wait
        for: the file was closed, or its bytes were forgotten since ``generation``.
        """
        with self.condition:
            while not self.closed and self.generation == generation:
                prefix = first_gap(self._state.done)
                if prefix > beyond or prefix == self.size:
                    return prefix
                self.condition.wait()
            return None

    def _load(self) -> _State:
        """Read the state file; one that is missing, damaged or of another file starts afresh."""
        try:
            value = json.loads(self.state_path.read_bytes())
            state = _State(
                expected=value["expected"],
                size=value["size"],
                validators=dict(value["validators"]),
                done=[(int(start), int(end)) for start, end in value["done"]],
                flushed=[(int(start), int(end)) for start, end in value["flushed"]],
                boot=value["boot"],
            )
            length = self.path.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            return self._fresh()
        if state.boot != boot_id():
            state.done, state.boot = state.flushed, boot_id()
        if state.expected != self._expected.to_json() or any(end > length for _, end in state.done):
            return self._fresh()
        return state

    def _fresh(self) -> _State:
        return _State(self._expected.to_json(), self._expected.size, {}, [], [], boot_id())

    def _flush_now_and_then(self) -> None:
        """Flush beside the writers, who would stall if they had to wait for the disk."""
        while True:
            with self.condition:
                if self.condition.wait_for(lambda: self.closed, timeout=FLUSH_SECONDS):
                    return
                descriptor, done, generation = (
                    os.dup(self._descriptor),
                    self._state.done,
                    self.generation,
                )
            try:
                os.fsync(descriptor)
            except OSError:
                continue  # whoever gives the file its name flushes again, and says what failed
            finally:
                os.close(descriptor)
            with self.condition:
                if generation == self.generation:
                    self._state.flushed = done

    def _save(self, *, flush: bool = False) -> None:
        """Rewrite the state file by a rename: a kill leaves the old one or the new one."""
        if self.closed:
            return  # a thread that was still reading when the file was given its final name
        if flush:
            os.fsync(self._descriptor)
            self._state.flushed = self._state.done
        temporary = self.state_path.with_name(self.state_path.name + ".new")
        temporary.write_text(json.dumps(vars(self._state)))
        temporary.replace(self.state_path)
        self._saved_at = time.monotonic()

    def _close(self) -> None:
        self.closed = True
        os.close(self._descriptor)
        self.condition.notify_all()


def boot_id() -> str:
    """Return what tells this start of the machine from the last; empty where nothing does.

    Without it all ranges are trusted, and the digests find what a power cut spoilt.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
