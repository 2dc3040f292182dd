"""Throughput of a download against curl, from one local HTTP server.

vocprep hashes on the way (sha256, sha1 and md5, as the VOC archives publish them), keeps its state
file and flushes to the disk before a file gets its name; curl writes the bytes and leaves. The last
row is what one would type to be as sure. Two lines: as fast as the loopback goes, and held back to
a gigabit. Rows of one line take turns, so that changes of the machine's load affect all alike.

Run: python benchmarks/download.py [--mebibytes 256] [--repeats 3]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from _report import Column, Report, Table, command_line

from vocprep.data_dir.digests import ExpectedDigests
from vocprep.downloading.http import TransferOptions
from vocprep.downloading.mirrors import WantedFile, fetch
from vocprep.progress import NoProgress

MIB = 1 << 20
GIGABIT = 117_000_000
"""Bytes a second that a gigabit line carries beneath its headers."""
BLOCK = 256 << 10
CURL = "curl, nothing checked"


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
        """Return the seconds that the line is busy with these bytes."""
        now = time.monotonic()
        with Handler.line:
            Handler.free_at = max(Handler.free_at, now) + count / self.rate
            return Handler.free_at - now

    def handle(self) -> None:
        """Serve until the client leaves."""
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


class OnlyNotes(NoProgress):
    """A progress that prints what went wrong: a benchmark must not hide a retry."""

    def note(self, text: str) -> None:
        """Print it."""
        print(text, file=sys.stderr)


def rows(url: str, expected: ExpectedDigests) -> dict[str, Callable[[Path], None]]:
    """Return what is compared, by name: each fetches the file to a path."""

    def curl(path: Path) -> None:
        subprocess.run(["curl", "-sS", "-o", str(path), url], check=True)

    def curl_and_sums(path: Path) -> None:
        curl(path)
        for tool in ("sha256sum", "sha1sum", "md5sum"):
            subprocess.run([tool, str(path)], check=True, stdout=subprocess.DEVNULL)

    def vocprep(path: Path) -> None:
        fetch(WantedFile(path=path, urls=[url], expected=expected), TransferOptions(), OnlyNotes())

    works = {
        CURL: curl,
        "vocprep": vocprep,
        "curl, then sha256sum, sha1sum, md5sum": curl_and_sums,
    }
    return {name: work for name, work in works.items() if has_curl() or not name.startswith("curl")}


def has_curl() -> bool:
    """Return whether there is a curl to compare with."""
    return shutil.which("curl") is not None


def measure(
    source: Path, rate: int, repeats: int, expected: ExpectedDigests
) -> dict[str, list[float]]:
    """Return bytes a second of each row and repeat."""
    words = [sys.executable, __file__, "--serve", str(source), "--rate", str(rate)]
    speeds: dict[str, list[float]] = {}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/file.bin"
        try:
            for _ in range(repeats):
                for name, fetch_to in rows(url, expected).items():
                    target = source.with_name("target.bin")
                    began = time.perf_counter()
                    fetch_to(target)
                    seconds = time.perf_counter() - began
                    speeds.setdefault(name, []).append(target.stat().st_size / seconds)
                    target.unlink()
        finally:
            server.terminate()
    return speeds


def curl_version() -> str:
    """Return what curl calls itself."""
    if not has_curl():
        return "no curl"
    said = subprocess.run(["curl", "--version"], check=True, capture_output=True, text=True).stdout
    return " ".join(said.split()[:2])


def fill_table(title: str, speeds: dict[str, list[float]]) -> Table:
    """Return megabytes a second with their spread, and the ratio to curl."""
    first = statistics.median(speeds[CURL]) if CURL in speeds else None
    columns = (
        Column("name", ""),
        Column("mb_per_s", "MB/s", ".0f"),
        Column("spread", "spread"),
        Column("of_curl", "of curl", ".2f"),
    )
    rows: list[dict[str, str | float | None]] = [
        {
            "name": name,
            "mb_per_s": statistics.median(values) / 1e6,
            "spread": f"{min(values) / 1e6:.0f} to {max(values) / 1e6:.0f}",
            "of_curl": statistics.median(values) / first if first else None,
        }
        for name, values in speeds.items()
    ]
    return Table(title, columns, rows)


def expected_of(path: Path) -> ExpectedDigests:
    """Return the digests that the VOC archives publish."""
    data = path.read_bytes()
    return ExpectedDigests(
        sha256=hashlib.sha256(data).hexdigest(),
        sha1=hashlib.sha1(data).hexdigest(),
        md5=hashlib.md5(data).hexdigest(),
    )


def main() -> None:
    """Measure and print one table a line."""
    parser = command_line(__doc__)
    parser.add_argument("--mebibytes", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.rate)
        return
    report = Report(
        "download",
        {"mebibytes": options.mebibytes, "repeats": options.repeats},
        f"{curl_version()}; one file of {options.mebibytes} MiB, median of {options.repeats} "
        "(lowest to highest)",
        ("requests", "urllib3"),
    )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.bin"
        source.write_bytes(os.urandom(MIB) * options.mebibytes)
        expected = expected_of(source)
        for line, rate in (("loopback", 0), ("one gigabit", GIGABIT)):
            report.add(fill_table(line, measure(source, rate, options.repeats, expected)))
    if not has_curl():
        report.note("curl: left out, not installed")
    report.write(options.json)


if __name__ == "__main__":
    main()
