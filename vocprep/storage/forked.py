"""Requests to object stores in forked processes, through programs that such a process starts.

A fork lacks the threads that obstore makes requests with, where the process that it came from has
used it: workers of a PyTorch DataLoader are such forks.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from socket import socketpair
from typing import Any, Final, NoReturn

from vocprep.storage import client
from vocprep.storage.problems import StoreError

_SOURCE: Final = (
    "import sys; sys.path[:] = {path!r}; from vocprep.storage.forked import serve; serve({file})"
)
_LOOKS: Final = 5
"""Seconds after which a program without a request looks whether its process has ended."""


@dataclass(frozen=True, eq=False)
class _Program:
    """A program that makes the requests of one process, one at a time."""

    connection: Connection
    process: subprocess.Popen[bytes]
    owner: int
    """The process that started it; forks of that have programs of their own."""


_idle: list[_Program] = []
_lock = threading.Lock()


def call(name: str, *arguments: Any) -> Any:
    """Return what a function of ``client`` returns, or raise what it raises."""
    program = _begin(name, arguments, is_many=False)
    kind, value = _receive(program, arguments)
    _idle.append(program)
    if kind == "error":
        raise value
    return value


def iterate(name: str, *arguments: Any) -> Iterator[Any]:
    """Yield what a function of ``client`` yields, or raise what it raises.

    A program whose results are not read to their end is ended by its connection's.
    """
    program = _begin(name, arguments, is_many=True)
    kind, value = _receive(program, arguments)
    while kind == "item":
        yield value
        kind, value = _receive(program, arguments)
    _idle.append(program)
    if kind == "error":
        raise value


def serve(file: int) -> NoReturn:
    """Make the requests that come by an open connection, until it or its process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a terminal sends to all of a command
    connection, parent = Connection(file), os.getppid()
    try:
        while os.getppid() == parent:
            if connection.poll(_LOOKS):
                _answer(connection, *connection.recv())
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    os._exit(0)


def _answer(connection: Connection, name: str, arguments: tuple[Any, ...], is_many: bool) -> None:
    try:
        result = getattr(client, name)(*arguments)
        if is_many:
            for item in result:
                connection.send(("item", bytes(item) if isinstance(item, memoryview) else item))
    except Exception as error:
        connection.send(("error", error))
    else:
        connection.send(("end", None if is_many else result))


def _begin(name: str, arguments: tuple[Any, ...], *, is_many: bool) -> _Program:
    """Return a program that makes a request: one that is idle, or a new one."""
    sent = tuple(bytes(each) if isinstance(each, memoryview) else each for each in arguments)
    while (program := _take_idle()) is not None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it was killed
            program.connection.send((name, sent, is_many))
            return program
    program = _start()
    program.connection.send((name, sent, is_many))
    return program


def _take_idle() -> _Program | None:
    """Return a program of this process that is idle; None where there is none."""
    with _lock:
        mine = next((each for each in _idle if each.owner == os.getpid()), None)
        if mine is not None:
            _idle.remove(mine)
    return mine


def _start() -> _Program:
    ours, theirs = socketpair()
    with ours, theirs:
        source = _SOURCE.format(path=sys.path, file=theirs.fileno())
        process = subprocess.Popen([sys.executable, "-c", source], pass_fds=[theirs.fileno()])
        return _Program(Connection(ours.detach()), process, os.getpid())


def _receive(program: _Program, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        kind, value = program.connection.recv()
    except (EOFError, ConnectionResetError) as error:
        program.process.wait()
        words = "the program that makes requests of object stores ended"
        raise StoreError(errno.EIO, words, str(arguments[0])) from error
    return kind, value
