"""A server on 127.0.0.1 that answers with whatever bytes a test gives it, on plain sockets.

The first part of a request's path chooses its fault, so that one server does for a whole table.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Self
from urllib.parse import quote, unquote

MOST_SENT = 32 << 20
"""What an endless answer ends with, where its reader does not end it before."""
_BEATS = 100
"""Bytes of a trickle: five seconds of them."""


class Exchange:
    """One connection: the request that was read from it, and what can be done with it."""

    def __init__(self, faulty: FaultyServer, connection: socket.socket) -> None:
        self._faulty = faulty
        self._connection = connection
        self.name = ""
        self.start: int | None = None
        """Offset of the range requested, None for the whole file."""
        self.data = faulty.data

    def read_request(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head and head[:1] != b"\x16" and len(head) < 1 << 16:
            received = self._connection.recv(4096)
            if not received:
                break
            head += received
        self.name = self._faulty.alone or unquote(head.split(b" ")[1].split(b"/")[1].decode())
        match = re.search(rb"\r\nrange: bytes=(\d+)-", head, re.IGNORECASE)
        self.start = int(match[1]) if match else None
        with self._faulty.lock:
            self._faulty.requests[self.name] += 1

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)
        with self._faulty.lock:
            self._faulty.sent[self.name] += len(data)

    def send_endless(self, piece: bytes) -> None:
        block = piece * max(1, (64 << 10) // len(piece))
        for _ in range(MOST_SENT // len(block)):
            self.send(block)

    def trickle(self, data: bytes) -> None:
        for index in range(_BEATS):
            self.send(data[index % len(data)].to_bytes())
            if self._faulty.closing.wait(0.05):
                break

    def stall(self) -> None:
        self._faulty.closing.wait(5)

    def reset(self) -> None:
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def serve(self, start: int | None = None) -> None:
        """Answer as a good server does."""
        begin, size = start or 0, len(self.data)
        if begin >= size:
            self.send(b"HTTP/1.1 416 No\r\nContent-Range: bytes */%d\r\n\r\n" % size)
            return
        head = f"Content-Length: {size - begin}\r\nETag: {ETAG}\r\n\r\n"
        if start is not None:
            head = f"Content-Range: bytes {start}-{size - 1}/{size}\r\n{head}"
        status = "200 OK" if start is None else "206 Partial Content"
        self.send(f"HTTP/1.1 {status}\r\n{head}".encode() + self.data[begin:])


ETAG = '"v1"'
Fault = Callable[[Exchange], None]


class FaultyServer:
    """Serves ``/NAME/file.bin`` by the fault of that name; ``/good/`` well."""

    def __init__(
        self,
        data: bytes,
        faults: Mapping[str, Fault],
        alone: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.data = data
        self.faults = {"good": lambda exchange: exchange.serve(exchange.start), **faults}
        self.alone = alone
        """The fault of every connection, whatever is requested."""
        self.tls = tls
        self.sent: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def url(self, name: str, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}/{quote(name, safe='')}/file.bin"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
            try:
                if self.tls is not None:
                    connection = self.tls.wrap_socket(connection, server_side=True)
                with connection:
                    exchange = Exchange(self, connection)
                    exchange.read_request()
                    self.faults[exchange.name](exchange)
            except OSError:
                """The reader has left."""
