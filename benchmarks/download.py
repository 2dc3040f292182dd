"""Throughput of a download against curl, from one local HTTP server.

vocprep hashes on the way (sha256, sha1 and md5, as the VOC archives publish them), keeps its state
file and flushes to the disk before a file gets its name; curl writes the bytes and leaves. The last
row is what one would type to be as sure. Two lines: as fast as the loopback goes, and held back to
a gigabit. Rows of one line take turns, so that the machine's moods fall on all of them alike.

Run: python benchmarks/download.py [--mebibytes 512] [--repeats 5]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

from vocprep.sources.digests import Expected
from vocprep.sources.fetch import Wanted, fetch
from vocprep.sources.transfer import TransferOptions

MIB = 1 << 20
GIGABIT = 117_000_000
"""Bytes a second that a gigabit line carries beneath its headers."""
BLOCK = 256 << 10


class Handler(BaseHTTPRequestHandler):
    """Serves one file, whole or by range, straight from the page cache."""

    protocol_version = "HTTP/1.1"
    path_served: Path
    rate: int
    line = threading.Lock()
    free_at = 0.0

    def do_GET(self) -> None:
        """Answer 206 to a range and 200 otherwise."""
        size = self.path_served.stat().st_size
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        end = int(match[2]) + 1 if match and match[2] else size
        self.send_response(206 if match else 200)
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", '"benchmark"')
        if match:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        self.wfile.flush()
        with self.path_served.open("rb") as stream:
            self._send(stream.fileno(), start, end)

    def _send(self, source: int, start: int, end: int) -> None:
        while start < end:
            count = os.sendfile(self.connection.fileno(), source, start, min(BLOCK, end - start))
            start += count
            if self.rate:
                time.sleep(self._wait(count))

    def _wait(self, count: int) -> float:
        """Return the seconds that the line is busy with these bytes: all connections share it."""
        now = time.monotonic()
        with Handler.line:
            Handler.free_at = max(Handler.free_at, now) + count / self.rate
            return Handler.free_at - now

    def handle(self) -> None:
        """Serve until the client leaves, as it does after the first part of a file in parts."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(path: Path, rate: int) -> None:
    """Serve a file for ever; print the port first."""
    Handler.path_served, Handler.rate = path, rate
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


class Quiet:
    """A watcher that shows nothing."""

    def begin(self, name: str, total: int | None, done: int) -> None:
        """Show nothing."""

    def expect(self, total: int) -> None:
        """Show nothing."""

    def advance(self, count: int) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show what went wrong: a benchmark must not hide a retry."""
        print(text, file=sys.stderr)

    def end(self) -> None:
        """Show nothing."""


def rows(url: str, expected: Expected) -> dict[str, Callable[[Path], None]]:
    """Return what is compared, by name: each brings the file to a path."""

    def curl(path: Path) -> None:
        subprocess.run(["curl", "-sS", "-o", str(path), url], check=True)

    def curl_and_sums(path: Path) -> None:
        curl(path)
        for tool in ("sha256sum", "sha1sum", "md5sum"):
            subprocess.run([tool, str(path)], check=True, stdout=subprocess.DEVNULL)

    def vocprep(connections: int) -> Callable[[Path], None]:
        options = TransferOptions(connections=connections)
        return lambda path: void(
            fetch(Wanted(path=path, urls=[url], expected=expected), options, Quiet())
        )

    return {
        "curl, nothing checked": curl,
        "vocprep, 1 connection": vocprep(1),
        "vocprep, 4 connections": vocprep(4),
        "curl, then sha256sum, sha1sum, md5sum": curl_and_sums,
    }


def void(_: object) -> None:
    """Drop a result."""


def measure(source: Path, rate: int, repeats: int, expected: Expected) -> dict[str, list[float]]:
    """Return bytes a second of each row and repeat."""
    words = [sys.executable, __file__, "--serve", str(source), "--rate", str(rate)]
    speeds: dict[str, list[float]] = {}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/file.bin"
        try:
            for _ in range(repeats):
                for name, bring in rows(url, expected).items():
                    target = source.with_name("target.bin")
                    began = time.perf_counter()
                    bring(target)
                    seconds = time.perf_counter() - began
                    speeds.setdefault(name, []).append(target.stat().st_size / seconds)
                    target.unlink()
        finally:
            server.terminate()
    return speeds


def header(mebibytes: int, repeats: int) -> str:
    """Say what this ran on."""
    curl = subprocess.run(["curl", "--version"], check=True, capture_output=True, text=True).stdout
    return (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, requests {version('requests')}, "
        f"urllib3 {version('urllib3')}, {' '.join(curl.split()[:2])}; "
        f"one file of {mebibytes} MiB, median of {repeats} (lowest to highest)"
    )


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.rate)
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.bin"
        block = os.urandom(MIB)
        source.write_bytes(block * options.mebibytes)
        data = source.read_bytes()
        expected = Expected(
            sha256=hashlib.sha256(data).hexdigest(),
            sha1=hashlib.sha1(data).hexdigest(),
            md5=hashlib.md5(data).hexdigest(),
        )
        del data
        print(header(options.mebibytes, options.repeats))
        for line, rate in (("loopback", 0), ("one gigabit", GIGABIT)):
            speeds = measure(source, rate, options.repeats, expected)
            curl = statistics.median(speeds["curl, nothing checked"])
            print(f"\n{line:<40}{'MB/s':>8}{'spread':>14}{'of curl':>9}")
            for name, values in speeds.items():
                median = statistics.median(values)
                spread = f"{min(values) / 1e6:.0f} to {max(values) / 1e6:.0f}"
                print(f"{name:<40}{median / 1e6:>8.0f}{spread:>14}{median / curl:>9.2f}")


if __name__ == "__main__":
    main()
