"""A real HTTP server on 127.0.0.1 that serves bytes from memory and misbehaves as told."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PAGE = b"<!DOCTYPE html><html><body>Access to this page is blocked</body></html>"

Fault = Callable[["Handler", bytes], None]
"""Answers one request in a way of its own, given the file's bytes."""


class Mirror:
    """A mirror with its files; ``faults`` are used up one a request, ``always`` stays."""

    def __init__(self, files: dict[str, bytes], *, rate: int = 0) -> None:
        self.files = dict(files)
        self.rate = rate
        self.faults: deque[Fault | None] = deque()
        self.always: Fault | None = None
        self.requests: list[tuple[str, str | None]] = []
        self.conditions: list[str | None] = []
        """The If-Range of each request."""
        self.sent = 0
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.mirror = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, name: str = "") -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}"

    def next_fault(self) -> Fault | None:
        with self.lock:
            return self.faults.popleft() if self.faults else self.always


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    mirror: Mirror

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed or turned away is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def mirror(self) -> Mirror:
        return self.server.mirror

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        with self.mirror.lock:
            self.mirror.requests.append((name, self.headers.get("Range")))
            self.mirror.conditions.append(self.headers.get("If-Range"))
        data = self.mirror.files.get(name)
        fault = self.mirror.next_fault()
        if data is None:
            self.answer(404, b"no such file")
        elif fault is not None:
            fault(self, data)
        else:
            serve(self, data)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.send(body)

    def send(self, body: bytes) -> None:
        rate = self.mirror.rate
        block = 16 << 10 if rate else 256 << 10
        for start in range(0, len(body), block):
            piece = body[start : start + block]
            self.wfile.write(piece)
            with self.mirror.lock:
                self.mirror.sent += len(piece)
            if rate:
                time.sleep(len(piece) / rate)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def span_of(handler: Handler, data: bytes) -> tuple[int, int] | None:
    """Return the range that a request may have, None for the whole file."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
    if match is None or handler.headers.get("If-Range") not in (None, etag(data)):
        return None
    return int(match[1]), min(int(match[2]) + 1, len(data)) if match[2] else len(data)


def serve(handler: Handler, data: bytes) -> None:
    """Answer as a good server does."""
    span = span_of(handler, data)
    if span is None:
        handler.answer(200, data, ETag=etag(data))
    elif span[0] >= len(data):
        handler.answer(416, b"", Content_Range=f"bytes */{len(data)}")
    else:
        where = f"bytes {span[0]}-{span[1] - 1}/{len(data)}"
        handler.answer(206, data[span[0] : span[1]], ETag=etag(data), Content_Range=where)


def status(code: int, **headers: str) -> Fault:
    return lambda handler, _: handler.answer(code, b"sorry", **headers)


def web_page(content_type: str = "text/html", page: bytes = PAGE) -> Fault:
    return lambda handler, _: handler.answer(200, page, Content_Type=content_type)


def ignore_range(handler: Handler, data: bytes) -> None:
    handler.answer(200, data, ETag=etag(data))


def close_after(count: int) -> Fault:
    """Promise the range, send so many bytes of it, hang up."""

    def fault(handler: Handler, data: bytes) -> None:
        promise(handler, data)
        start = (span_of(handler, data) or (0, 0))[0]
        handler.send(data[start : start + count])
        handler.close_connection = True

    return fault


def stall_after(count: int, released: threading.Event) -> Fault:
    """Send so many bytes, then nothing until the test is over."""

    def fault(handler: Handler, data: bytes) -> None:
        promise(handler, data)
        start = (span_of(handler, data) or (0, 0))[0]
        handler.send(data[start : start + count])
        handler.wfile.flush()
        released.wait(30)
        handler.close_connection = True

    return fault


def no_length(handler: Handler, data: bytes) -> None:
    """Answer as HTTP/1.0 did: the file ends where the connection does."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.send(data)
    handler.close_connection = True


def promise(handler: Handler, data: bytes) -> None:
    """Send the head of a good answer."""
    start, end = span_of(handler, data) or (0, len(data))
    if span_of(handler, data) is None:
        handler.send_response(200)
    else:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
    handler.send_header("Content-Length", str(end - start))
    handler.send_header("ETag", etag(data))
    handler.end_headers()


def chunked(handler: Handler, data: bytes) -> None:
    """Send the whole file in chunks that no header announced, whatever range was asked for."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for start in range(0, len(data), 50_000):
        piece = data[start : start + 50_000]
        handler.wfile.write(b"%x\r\n" % len(piece))
        handler.send(piece)
        handler.wfile.write(b"\r\n")
    handler.wfile.write(b"0\r\n\r\n")
