"""Several trainings at once, each in a process of its own with its own threads.

On a CPU the small operations of one step do not fill the cores: processes side by side take less
time than one that has all cores. Each is a whole training, so its bits are those of the same
training alone with as many threads.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from socket import socketpair
from typing import Any, Literal, NamedTuple

import torch

from vocprep.errors import RunError, VocprepError
from vocprep.files.writing import remove_unfinished
from vocprep.heads.runs.log import EpochMetrics
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.training.summary import RunSummary
from vocprep.progress import NoProgress
from vocprep.shards.reader import ShardDataset

_SOURCE = (
    "import sys; sys.path[:] = {path!r}; from vocprep.heads.training.train import train; "
    "from vocprep.heads.training.side_by_side import serve; serve({file}, train)"
)
_GRACE = 10.0
"""Seconds in which a process that is told to end removes its unfinished files."""


@dataclass(frozen=True, kw_only=True)
class TrainCall:
    """A call of ``train`` in another process."""

    dataset: ShardDataset
    run_dir: Path
    options: TrainOptions
    weights: str | Path | None
    threads: int
    """Of torch, in that process."""


class Message(NamedTuple):
    """What the process of a training reports.

    Sent as a plain pickle: ``Connection.send`` would pass tensors by files that only processes of
    ``multiprocessing`` can open.
    """

    kind: Literal["note", "epoch", "end", "error"]
    value: Any
    """A line of text, ``EpochMetrics``, the ``RunSummary``, or the exception that ended it."""


def train_side_by_side(
    calls: Sequence[TrainCall], at_once: int
) -> Iterator[tuple[TrainCall, Message]]:
    """Run trainings, so many at once, and yield what they report as it comes.

    The last message of each is its ``end`` or ``error``. All are ended with the iterator.
    """
    waiting, running = deque(calls), dict[Connection, _Child]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                child = _Child(waiting.popleft())
                running[child.connection] = child
            for connection in wait(list(running)):
                child = running[connection]  # type: ignore[index]  # of the list, so a Connection
                message = child.receive()
                if message.kind in ("end", "error"):
                    del running[child.connection]
                    child.end()
                yield child.call, message
    finally:
        for child in running.values():
            child.process.terminate()
        for child in running.values():
            child.end()


class _Child:
    """The process of one training."""

    def __init__(self, call: TrainCall) -> None:
        self.call = call
        ours, theirs = socketpair()
        with ours, theirs:
            source = _SOURCE.format(path=sys.path, file=theirs.fileno())
            self.process = subprocess.Popen(
                [sys.executable, "-c", source],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": str(call.threads)},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for this process, which then ends that one
            )
            self.connection = Connection(ours.detach())
        with suppress(BrokenPipeError, ConnectionResetError):  # what receive() reports
            self.connection.send_bytes(pickle.dumps(call))

    def receive(self) -> Message:
        """Return the next message; an error of its own where the process has ended without one."""
        try:
            message: Message = pickle.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            code = self.process.wait()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            error = RunError(
                f"{self.call.run_dir}: the process that trained it ended early, with {how}; see "
                "that memory suffices for all seeds at once, and continue with --resume"
            )
            return Message("error", error)
        return message

    def end(self) -> None:
        """Wait for the end of the process, which its training has reached or a signal brings."""
        self.connection.close()
        try:
            self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def serve(descriptor: int, train: Callable[..., RunSummary]) -> None:
    """Run the training that arrives on a descriptor, and report on it there."""
    signal.signal(signal.SIGTERM, lambda number, _frame: _leave(128 + number))
    connection = Connection(descriptor)
    call: TrainCall = pickle.loads(connection.recv_bytes())
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    torch.set_num_threads(call.threads)

    def report(kind: Literal["epoch", "end", "error"], value: Any) -> None:
        connection.send_bytes(pickle.dumps(Message(kind, value)))

    def on_epoch(metrics: EpochMetrics) -> None:
        report("epoch", metrics)

    progress = _Notes(connection)
    try:
        summary = train(call.dataset, call.run_dir, call.options, on_epoch, progress, call.weights)
    except (VocprepError, OSError) as error:
        report("error", error)
    except Exception as error:
        report("error", RuntimeError(f"{type(error).__name__}: {error}"))
        raise
    else:
        report("end", summary)


def _end_with(connection: Connection) -> None:
    """End this process when the other end of its connection is closed; nothing arrives any more."""
    with suppress(OSError, EOFError):
        connection.recv_bytes()
    _leave(1)


def _leave(code: int) -> None:
    """End this process at once, after removing its temporary files."""
    remove_unfinished()
    os._exit(code)


class _Notes(NoProgress):
    """Sends the notes of a training, and nothing else of its progress."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def note(self, text: str) -> None:
        """Send a note."""
        self._connection.send_bytes(pickle.dumps(Message("note", text)))
