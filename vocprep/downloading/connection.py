"""HTTP connections whose responses are read within bounds of time and of bytes.

http.client applies a socket's timeout to one receive, and its limit of length to one line: a
server that sends a byte now and then, or short lines without end, is read for ever. Here the
timeout applies to a whole step, and each step has a limit of bytes. The steps are the head of a
response, with all interim responses before it, and each read of the body.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

HEAD_BYTES = 64 << 10
"""Most bytes before a body: status line and headers, of interim responses too."""
_FRAMING_BYTES = 64 << 10
"""Most bytes between the data of two chunks, or of all trailers."""
_FRAMING_PER_BYTE = 8
"""Most bytes of framing per byte of data; chunks of one byte need five."""
_LONGEST_SECONDS = 60.0
"""The timeout of a socket that has none."""
_SHORTEST_SECONDS = 0.001
_LENGTH = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")


class MalformedResponseError(http.client.HTTPException):
    """A response exceeds its bounds, or breaks the rules of HTTP: in words that follow its URL."""


class _Watchdog:
    """Shuts a TLS connection at a deadline.

    OpenSSL does not return from a handshake or a read while records arrive that bring nothing,
    whatever the timeout of the socket.
    """

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock = socket.fromfd(sock.fileno(), sock.family, sock.type)
        self.deadline = time.monotonic() + seconds
        self._stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with self._sock:
            while (seconds := self.deadline - time.monotonic()) > 0:
                if self._stopped.wait(seconds):
                    return
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Let the connection be."""
        self._stopped.set()


class _BoundedStream(io.RawIOBase):
    """The bytes of a socket, in steps that are bounded in time and in bytes."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._sock = sock
        self._raw = sock.makefile("rb").detach()
        self._seconds = sock.gettimeout() or _LONGEST_SECONDS
        self._watchdog = None
        if isinstance(sock, ssl.SSLSocket):
            self._watchdog = _Watchdog(sock, self._seconds)
        self._deadline, self._bytes_left = 0.0, 0
        self.start_step(HEAD_BYTES)

    def start_step(self, most_bytes: int) -> None:
        """Allow so many bytes, within the timeout that the socket had at first."""
        self._bytes_left = most_bytes
        self._deadline = time.monotonic() + self._seconds
        if self._watchdog is not None:
            self._watchdog.deadline = self._deadline

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what one receive brings; TimeoutError or MalformedResponseError past a bound."""
        if self._bytes_left <= 0:
            raise MalformedResponseError("sends headers, chunk sizes or trailers without end")
        self._sock.settimeout(max(self._deadline - time.monotonic(), _SHORTEST_SECONDS))
        count = self._raw.readinto(memoryview(buffer)[: self._bytes_left]) or 0
        if time.monotonic() >= self._deadline:
            raise TimeoutError("timed out")
        self._bytes_left -= count
        return count

    def close(self) -> None:
        """Close the socket's file."""
        self._raw.close()
        if self._watchdog is not None:
            self._watchdog.stop()
        super().close()


class _BoundedResponse(http.client.HTTPResponse):
    """A response of bounded steps; chunked framing is read strictly."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self._stream = _BoundedStream(sock)
        self.fp = io.BufferedReader(self._stream)
        self._in_chunk: int | None = None
        """Bytes left of the current chunk, None before the first."""
        self._data = self._framing = 0

    def begin(self) -> None:
        """Read the head, and over every interim response; http.client knows one kind of them."""
        super().begin()
        while 100 <= self.status < 200 and self.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self.headers = self.msg = None  # type: ignore[assignment]  # as before the first head
            super().begin()
        # http.client takes a line that is no header, and all that follow, for a message's text.
        if self.headers.get_payload():
            raise MalformedResponseError("sends a line among its headers that is none")
        self._check_length()

    def _check_length(self) -> None:
        """Raise unless the response states one length, or none; http.client accepts several."""
        found = ",".join(self.headers.get_all("Content-Length", ["0"]))
        lengths = {item.strip() for item in found.split(",")}
        if len(lengths) > 1 or not _LENGTH.fullmatch(lengths.pop()):
            raise MalformedResponseError(f"states the length {found[:40]!r}, which is none")
        if "Content-Length" in self.headers and "Transfer-Encoding" in self.headers:
            raise MalformedResponseError("states a length and sends chunks")

    def read1(self, n: int = -1) -> bytes:
        """Return the data that one receive brings, at most ``n`` bytes; none at the end."""
        if self.isclosed():
            return b""
        self._stream.start_step(max(n, 0) + _FRAMING_BYTES)
        return self._read_chunked(n) if self.chunked else super().read1(n)

    def _read_chunked(self, most: int) -> bytes:
        if not self._in_chunk:
            if self._in_chunk == 0 and self._line() not in (b"\r\n", b"\n"):
                raise MalformedResponseError("sends chunks that are longer than their sizes")
            self._in_chunk = self._chunk_size()
            if self._in_chunk == 0:
                while self._line(at_end=True) not in (b"\r\n", b"\n", b""):
                    """Trailers are read over."""
                self.close()
                return b""
        data = self.fp.read1(min(most, self._in_chunk))
        if not data:
            raise http.client.IncompleteRead(b"", self._in_chunk)
        self._in_chunk -= len(data)
        self._data += len(data)
        return data

    def _chunk_size(self) -> int:
        line = self._line()
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise MalformedResponseError(f"sends a malformed chunk size {line[:40]!r}")
        return int(match[1], 16)

    def _line(self, *, at_end: bool = False) -> bytes:
        line = self.fp.readline()
        if not line.endswith(b"\n") and not (at_end and not line):
            raise http.client.IncompleteRead(line[:40])
        self._framing += len(line)
        if self._framing > _FRAMING_BYTES + _FRAMING_PER_BYTE * self._data:
            raise MalformedResponseError("sends more framing than data")
        return line


class _Connection(HTTPConnection):
    response_class = _BoundedResponse


class _SecureConnection(HTTPSConnection):
    response_class = _BoundedResponse
    _watchdog: _Watchdog | None = None

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        self._watchdog = _Watchdog(sock, sock.gettimeout() or _LONGEST_SECONDS)
        return sock

    def connect(self) -> None:
        """Connect, pass the proxy and set up TLS, all within the timeout."""
        try:
            super().connect()
        except (OSError, http.client.HTTPException):
            if self._watchdog is not None and time.monotonic() >= self._watchdog.deadline:
                raise TimeoutError("timed out") from None
            raise
        finally:
            if self._watchdog is not None:
                self._watchdog.stop()


def _bounded(pools: Mapping[str, type[Any]]) -> dict[str, type[Any]]:
    """Return pools of the same kinds, those of SOCKS proxies too, with the connections above."""
    connections = {"http": _Connection, "https": _SecureConnection}
    bounded = {}
    for scheme, pool in pools.items():
        connection = type("_BoundedConnection", (connections[scheme], pool.ConnectionCls), {})
        bounded[scheme] = type("_BoundedPool", (pool,), {"ConnectionCls": connection})
    return bounded


class _BoundedAdapter(HTTPAdapter):
    """Bounded connections to servers and to proxies."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _bounded(self.poolmanager.pool_classes_by_scheme)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _bounded(manager.pool_classes_by_scheme)
        return manager


class MirrorSession(requests.Session):
    """A session of bounded responses that follows no redirect itself.

    requests would read the body of each redirect to its end.
    """

    def __init__(self) -> None:
        super().__init__()
        for prefix in ("http://", "https://"):
            self.mount(prefix, _BoundedAdapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return no target, whatever the response is."""
