"""A table of what servers do wrong: each ends in the right file or in one sentence, in bounds."""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders.faulty import ETAG, Exchange, Fault, FaultyServer
from builders.progress import RecordedProgress
from builders.tls import PEM

from vocprep.downloading.download import DownloadOptions, download
from vocprep.downloading.http import TransferOptions
from vocprep.downloading.outcomes import DownloadOutcome
from vocprep.manifests import SourceFile, SourceManifest

DATA = random.Random(12).randbytes(20_000)
HALF = len(DATA) // 2
LIMIT = 40_000
MOST_READ = 8 << 20
"""Bytes that a server can send before it notices that nobody reads: socket buffers, mostly."""
OPTIONS = DownloadOptions(
    transfer=TransferOptions(
        retries=1,
        backoff_seconds=0.001,
        retry_after_most_seconds=0.1,
        connect_seconds=0.4,
        read_seconds=0.4,
        slow_seconds=0.3,
        slow_bytes_per_second=5000,
    )
)
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(DATA)
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = OK + LENGTH + b"\r\n" + DATA
RIGHT = ""
"""In place of words: the file is taken from this server."""


def raw(*parts: bytes) -> Fault:
    """Send these bytes, then close."""
    return lambda exchange: exchange.send(b"".join(parts))


def head(*lines: bytes, status: bytes = b"200 OK", body: bytes = DATA) -> Fault:
    return raw(b"HTTP/1.1 ", status, b"\r\n", *(line + b"\r\n" for line in lines), b"\r\n", body)


def then(first: bytes, act: Callable[[Exchange], None]) -> Fault:
    def fault(exchange: Exchange) -> None:
        exchange.send(first)
        act(exchange)

    return fault


def endless(piece: bytes) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.send_endless(piece)


def trickle(piece: bytes) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.trickle(piece)


def resumed(
    *lines: bytes, status: bytes = b"206 Partial Content", body: bytes = DATA[HALF:]
) -> Fault:
    """Give half of the file, and the odd answer to the request for the rest."""
    odd = head(*lines, status=status, body=body)

    def fault(exchange: Exchange) -> None:
        if exchange.start is None:
            exchange.send(OK + LENGTH + b"ETag: %s\r\n\r\n" % ETAG.encode() + DATA[:HALF])
        else:
            odd(exchange)

    return fault


def in_parts(exchange: Exchange) -> None:
    """Give no more than 5,000 bytes for a range."""
    if exchange.start is None:
        resumed()(exchange)
        return
    part = exchange.data[exchange.start : exchange.start + 5000]
    last = exchange.start + len(part) - 1
    exchange.send(
        b"HTTP/1.1 206 Part\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n"
        % (exchange.start, last, len(exchange.data), len(part))
    )
    exchange.send(part)


def redirect(location: bytes, body: bytes = b"") -> Fault:
    return head(
        b"Location: " + location, b"Content-Length: %d" % len(body), status=b"302 Found", body=body
    )


def retry(value: bytes, status: bytes = b"503 Service Unavailable") -> Fault:
    return head(b"Retry-After: " + value, b"Content-Length: 0", status=status, body=b"")


def status(line: bytes, *lines: bytes) -> Fault:
    return head(*lines, b"Content-Length: 5", status=line, body=b"sorry")


def chunks(*parts: bytes) -> Fault:
    return raw(CHUNKED, *parts)


def in_chunks(data: bytes, size: int, extension: bytes = b"", end: bytes = b"\r\n") -> bytes:
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x%s%s%s%s" % (len(piece), extension, end, piece, end) for piece in pieces)


HALF_CHUNK = b"%x\r\n" % len(DATA) + DATA[:HALF]
LAST = b"0\r\n\r\n"
FULLWIDTH = "\uff12\uff10\uff10".encode()
RANGE = b"Content-Range: bytes %d-%d/%d" % (HALF, len(DATA) - 1, len(DATA))


@dataclass(frozen=True)
class Row:
    """One fault, and the words of the error when there is no other mirror."""

    fault: Fault
    words: str
    digest: bool = False
    """Whether a digest is published: without it nothing but the answer itself shows the fault."""
    wrong_bytes: bool = False


EARLY = "closed the connection early, 2 times in a row"
SLOW = "did not answer within 0.4 s, 2 times in a row"
SILENT = "did not send a byte within 0.4 s, 2 times in a row"
NO_HTTP = "does not answer in HTTP"
NO_END = "sends headers, chunk sizes or trailers without end"
NO_LENGTH = ", which is none"
NO_BYTE = "closed the connection without a byte of the file"

QUICK_ROWS = {
    # the first bytes
    "closed at once": Row(raw(), EARLY),
    "reset at once": Row(lambda exchange: exchange.reset(), "reset the connection, 2 times"),
    "zeros": Row(raw(bytes(300)), NO_HTTP),
    "no head at all": Row(raw(DATA), NO_HTTP),
    "a page without a head": Row(raw(b"<html>blocked</html>"), NO_HTTP),
    "ICY": Row(raw(b"ICY 200 OK\r\n\r\n", DATA), NO_HTTP),
    "HTTP/2": Row(raw(b"HTTP/2 200\r\n", LENGTH, b"\r\n", DATA), NO_HTTP),
    "HTTP/0.9 status": Row(raw(b"HTTP/ 200 OK\r\n", LENGTH, b"\r\n", DATA), NO_HTTP),
    "version alone": Row(raw(b"HTTP/1.1\r\n\r\n", DATA), NO_HTTP),
    "fullwidth status": Row(head(LENGTH.strip(), status=FULLWIDTH), NO_HTTP),
    "status of two digits": Row(head(LENGTH.strip(), status=b"20 OK"), NO_HTTP),
    "status of four digits": Row(head(LENGTH.strip(), status=b"2000 OK"), NO_HTTP),
    "negative status": Row(head(LENGTH.strip(), status=b"-200 OK"), NO_HTTP),
    "status of 5000 digits": Row(head(LENGTH.strip(), status=b"2" * 5000), NO_HTTP),
    "status line of 70 kB": Row(head(LENGTH.strip(), status=b"200 " + b"O" * 70_000), NO_END),
    "status without reason": Row(head(LENGTH.strip(), status=b"200"), RIGHT),
    # statuses
    "101": Row(status(b"101 Switching Protocols"), "answered 101"),
    "204": Row(status(b"204 No Content"), "answered 204"),
    "205": Row(status(b"205 Reset Content"), "answered 205"),
    "206": Row(status(b"206 Partial Content"), "to a request for the whole file"),
    "206 with the whole": Row(
        head(b"Content-Range: bytes 0-19999/20000", LENGTH.strip(), status=b"206 OK"),
        "to a request for the whole file",
    ),
    "300": Row(status(b"300 Multiple Choices"), "answered 300"),
    "302 to nowhere": Row(status(b"302 Found"), "answered 302"),
    "304": Row(status(b"304 Not Modified"), "answered 304"),
    "401": Row(status(b"401 Unauthorized"), "answered 401 Unauthorized"),
    "403": Row(status(b"403 Forbidden"), "answered 403 Forbidden"),
    "403 of 60 kB": Row(status(b"403 " + b"no " * 20_000), "answered 403 no no"),
    "403 with escapes": Row(status(b"403 \x1b[2J\x07"), "answered 403 \\x1b[2J"),
    "404": Row(status(b"404 Not Found"), "the file is not there"),
    "416": Row(status(b"416 Range Not Satisfiable"), "answered 416"),
    "500": Row(status(b"500 Oops"), "answered 500 Oops, 2 times in a row"),
    "999": Row(status(b"999 Request denied"), "answered 999"),
    "an endless error": Row(then(b"HTTP/1.1 404 No\r\n\r\n", endless(b"x" * 1000)), "answered 404"),
    # interim answers
    "100 before": Row(raw(b"HTTP/1.1 100 Continue\r\n\r\n", WHOLE), RIGHT),
    "103 before": Row(raw(b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n", WHOLE), RIGHT),
    "100 without end": Row(endless(b"HTTP/1.1 100 Continue\r\n\r\n"), NO_END),
    "103 without end": Row(endless(b"HTTP/1.1 103 Hints\r\n\r\n"), NO_END),
    "100 and closed": Row(raw(b"HTTP/1.1 100 Continue\r\n\r\n"), EARLY),
    # headers
    "a status line without end": Row(endless(b"HTTP/1.1 200 "), NO_END),
    "a header without end": Row(then(OK, endless(b"X-Padding: 1")), NO_END),
    "headers without end": Row(then(OK, endless(b"X-Padding: " + b"x" * 30_000 + b"\r\n")), NO_END),
    "many headers": Row(then(OK, endless(b"A: b\r\n")), NO_HTTP),
    "closed in the headers": Row(raw(OK, b"Server: x"), NO_BYTE),
    "closed behind the length": Row(raw(OK, LENGTH), EARLY),
    "a line that is no header": Row(raw(OK, b"sorry\r\n", LENGTH, b"\r\n", DATA), "that is none"),
    "binary headers": Row(raw(OK, b"X: \xff\xfe\x00\r\n", LENGTH, b"\r\n", DATA), RIGHT),
    "an odd ETag": Row(head(LENGTH.strip(), b"ETag: " + b"\xe9" * 9000), RIGHT),
    # lengths
    "length ²": Row(head(b"Content-Length: \xb2"), NO_LENGTH),
    "length of fullwidth digits": Row(head(b"Content-Length: " + FULLWIDTH), NO_LENGTH),
    "length +": Row(head(b"Content-Length: +20000"), NO_LENGTH),
    "length -": Row(head(b"Content-Length: -1"), NO_LENGTH),
    "length 1e3": Row(head(b"Content-Length: 1e3"), NO_LENGTH),
    "length 0x": Row(head(b"Content-Length: 0x4e20"), NO_LENGTH),
    "length 2_0": Row(head(b"Content-Length: 20_000"), NO_LENGTH),
    "length empty": Row(head(b"Content-Length:"), NO_LENGTH),
    "length of two words": Row(head(b"Content-Length: 200 00"), NO_LENGTH),
    "length of 5000 digits": Row(head(b"Content-Length: " + b"9" * 5000), NO_LENGTH),
    "two lengths": Row(head(LENGTH.strip(), b"Content-Length: 5"), NO_LENGTH),
    "two lengths in one": Row(head(b"Content-Length: 20000, 5"), NO_LENGTH),
    "the same length twice": Row(head(LENGTH.strip(), LENGTH.strip()), RIGHT),
    "length and chunks": Row(
        raw(OK, LENGTH, b"Transfer-Encoding: chunked\r\n\r\n", in_chunks(DATA, 999), LAST),
        "states a length and sends chunks",
    ),
    "length beyond the limit": Row(
        head(b"Content-Length: 999999999999"), "offers 999,999,999,999 bytes, where at most 40,000"
    ),
    "length 0": Row(raw(OK, b"Content-Length: 0\r\n\r\n"), "an empty file"),
    "length too large": Row(head(b"Content-Length: 30000"), EARLY),
    "length too small": Row(head(b"Content-Length: 9"), "expected sha256", True, True),
    "bytes behind the length": Row(raw(WHOLE, WHOLE), RIGHT),
    # bodies
    "closed in the body": Row(raw(OK, LENGTH, b"\r\n", DATA[:HALF]), EARLY),
    "closed before the body": Row(raw(OK, LENGTH, b"\r\n"), EARLY),
    "reset before the body": Row(then(OK + LENGTH + b"\r\n", Exchange.reset), "the connection"),
    "no length": Row(head(), RIGHT),
    "no length and no byte": Row(head(body=b""), NO_BYTE),
    "no end": Row(
        then(OK + b"\r\n", endless(b"x" * 999)), "does not end, where at most 40,000 are"
    ),
    "no end, with a digest": Row(then(OK + b"\r\n", endless(b"x" * 999)), "does not end", True),
    "wrong bytes": Row(head(LENGTH.strip(), body=bytes(len(DATA))), "expected sha256", True, True),
    "a web page by type": Row(head(b"Content-Type: text/html; x"), "web page"),
    "a web page by bytes": Row(head(body=b"\n <!DOCTYPE HTML><p>Log in"), "web page"),
    # chunks
    "a web page behind a mark": Row(head(body=b"\xef\xbb\xbf\n<html>Log in"), "web page"),
    "chunks": Row(chunks(in_chunks(DATA, 999), LAST), RIGHT),
    "chunks of one byte": Row(chunks(in_chunks(DATA, 1), LAST), RIGHT),
    "chunks with extensions": Row(chunks(in_chunks(DATA, 999, b" ;a=b"), LAST), RIGHT),
    "chunks with bare newlines": Row(chunks(in_chunks(DATA, 999, end=b"\n"), b"0\n\n"), RIGHT),
    "chunks with trailers": Row(chunks(in_chunks(DATA, 999), b"0\r\nA: b\r\nC: d\r\n\r\n"), RIGHT),
    "chunks without trailers": Row(chunks(in_chunks(DATA, 999), b"0\r\n"), RIGHT),
    "chunk size -": Row(chunks(b"-5\r\nhello\r\n", LAST), "a malformed chunk size"),
    "chunk size +": Row(chunks(b"+5\r\nhello\r\n", LAST), "a malformed chunk size"),
    "chunk size 0x": Row(chunks(b"0x5\r\nhello\r\n", LAST), "a malformed chunk size"),
    "chunk size 1_0": Row(chunks(b"1_0\r\nhello\r\n", LAST), "a malformed chunk size"),
    "chunk size ²": Row(chunks(b"\xb2\r\nhello\r\n", LAST), "a malformed chunk size"),
    "chunk size empty": Row(chunks(b"\r\nhello\r\n", LAST), "a malformed chunk size"),
    "chunk size g": Row(chunks(b"g\r\nhello\r\n", LAST), "a malformed chunk size"),
    "chunk size of 5000 digits": Row(chunks(b"9" * 5000, b"\r\nhello"), "a malformed chunk size"),
    "chunk size beyond the limit": Row(
        chunks(b"fffffffffff\r\n", bytes(LIMIT + 9)), "does not end"
    ),
    "chunk size without end": Row(then(CHUNKED, endless(b"0")), NO_END),
    "chunk extension without end": Row(then(CHUNKED + b"5;", endless(b"a=b;")), NO_END),
    "chunk extensions of 4 kB": Row(
        then(CHUNKED, endless(b"1;" + b"x" * 4000 + b"\r\nA\r\n")), "more framing than data"
    ),
    "chunks longer than their sizes": Row(chunks(b"5\r\nhello you\r\n", LAST), "longer than their"),
    "closed in a chunk": Row(chunks(HALF_CHUNK), EARLY),
    "closed in a chunk size": Row(chunks(in_chunks(DATA, 999), b"0"), EARLY),
    "closed between chunks": Row(chunks(in_chunks(DATA, 999)), EARLY),
    "no chunk": Row(chunks(), EARLY),
    "trailers without end": Row(
        then(CHUNKED + in_chunks(DATA, 999) + b"0\r\n", endless(b"A: b\r\n")), "framing"
    ),
    "chunks without end": Row(
        then(CHUNKED, endless(b"3e8\r\n" + b"x" * 1000 + b"\r\n")), "does not end"
    ),
    # encodings
    "content gzip": Row(head(b"Content-Encoding: gzip", LENGTH.strip()), "was not asked for"),
    "content br": Row(head(b"Content-Encoding: br", LENGTH.strip()), "was not asked for"),
    "content identity": Row(head(b"Content-Encoding: identity", LENGTH.strip()), RIGHT),
    "transfer gzip": Row(head(b"Transfer-Encoding: gzip"), "was not asked for"),
    "transfer gzip, chunked": Row(
        raw(OK, b"Transfer-Encoding: gzip, chunked\r\n\r\n", LAST), "was not asked for"
    ),
    "transfer identity": Row(head(b"Transfer-Encoding: identity"), "was not asked for"),
    # redirects
    "redirect": Row(redirect(b"/good/file.bin"), RIGHT),
    "redirect with an endless body": Row(
        then(b"HTTP/1.1 307 Go\r\nLocation: /good/file.bin\r\n\r\n", endless(b"x" * 999)), RIGHT
    ),
    "redirect to itself": Row(redirect(b"file.bin"), "redirects 10 times in a row"),
    "redirect to nothing": Row(redirect(b""), "redirects 10 times in a row"),
    "redirect to a file": Row(redirect(b"file:///etc/passwd"), "which is no http or https URL"),
    "redirect to ftp": Row(redirect(b"ftp://127.0.0.1/file.bin"), "which is no http or https URL"),
    "redirect to javascript": Row(
        redirect(b"javascript:alert(1)"), "which is no http or https URL"
    ),
    "redirect to http://[": Row(redirect(b"http://["), "which is no URL"),
    "redirect to http://": Row(redirect(b"http://"), "redirects 10 times in a row"),
    "redirect to no port": Row(redirect(b"http://127.0.0.1:99999/"), "cannot be requested"),
    "redirect to port ²": Row(redirect(b"http://127.0.0.1:\xb2/"), "cannot be requested"),
    "redirect to a label of 64": Row(
        redirect(b"http://" + b"a" * 64 + b".localhost/"), "cannot be requested"
    ),
    "redirect to 60 kB": Row(redirect(b"http://[" + b"a" * 60_000), "which is no URL"),
    # waits
    "wait -1": Row(retry(b"-1"), "answered 503 Service Unavailable, 2 times in a row"),
    "wait ²": Row(retry(b"\xb2"), "2 times in a row"),
    "wait 1e3": Row(retry(b"1e3"), "2 times in a row"),
    "wait nan": Row(retry(b"nan"), "2 times in a row"),
    "wait 0": Row(retry(b"0", b"429 Too Many Requests"), "answered 429 Too Many Requests, 2 times"),
    "wait in the past": Row(retry(b"Mon, 01 Jan 0001 00:00:00 GMT"), "2 times in a row"),
    "wait until 99999": Row(retry(b"Mon, 01 Jan 99999 00:00:00 GMT"), "2 times in a row"),
    "wait until 9999": Row(retry(b"Fri, 31 Dec 9999 23:59:59 GMT"), "requests a wait of more than"),
    "wait of 5000 digits": Row(retry(b"9" * 5000), "requests a wait of more than 0.1 s"),
    # ranges
    "the whole for a range": Row(resumed(LENGTH.strip(), status=b"200 OK", body=DATA), RIGHT),
    "range": Row(resumed(RANGE, b"Content-Length: %d" % HALF), RIGHT),
    "range of unknown size": Row(resumed(b"Content-Range: bytes 10000-19999/*"), RIGHT),
    "range in parts": Row(in_parts, RIGHT),
    "no range": Row(resumed(), "answered Content-Range ''"),
    "range from 0": Row(
        resumed(b"Content-Range: bytes 0-19999/20000", body=DATA), "answered Content-Range"
    ),
    "range from later": Row(
        resumed(b"Content-Range: bytes 10001-19999/20000"), "answered Content-Range"
    ),
    "range reversed": Row(
        resumed(b"Content-Range: bytes 10000-9999/20000"), "answered Content-Range"
    ),
    "range beyond the size": Row(
        resumed(b"Content-Range: bytes 10000-29999/20000"), "contradict it"
    ),
    "range of another size": Row(
        resumed(b"Content-Range: bytes 10000-29999/30000"), "the file changed"
    ),
    "range and length": Row(resumed(RANGE, b"Content-Length: 7"), "contradict it"),
    "range */": Row(resumed(b"Content-Range: bytes */20000"), "answered Content-Range"),
    "range of items": Row(
        resumed(b"Content-Range: items 10000-19999/20000"), "answered Content-Range"
    ),
    "range ²": Row(resumed(b"Content-Range: bytes 10000-19999/\xb2"), "answered Content-Range"),
    "range of 5000 digits": Row(
        resumed(b"Content-Range: bytes 10000-" + b"9" * 5000 + b"/*"), "answered Content-Range"
    ),
    "byte ranges in parts": Row(
        resumed(b"Content-Type: multipart/byteranges; boundary=x", body=b"--x\r\n"),
        "answered Content-Range ''",
    ),
    "416 for the rest": Row(
        resumed(b"Content-Range: bytes */20000", status=b"416 No"), "answered 416"
    ),
    "another ETag": Row(resumed(RANGE, b'ETag: "v2"'), "the file changed"),
    "closed at the rest": Row(resumed(RANGE, body=b""), "at byte 10000 of 20000, 2 times in a row"),
    "404 for the rest": Row(resumed(status=b"404 Not Found"), "the file is not there"),
    "gzip for the rest": Row(resumed(RANGE, b"Content-Encoding: gzip"), "was not asked for"),
}

SLOW_ROWS = {
    "silence": Row(Exchange.stall, SLOW),
    "a trickled status line": Row(trickle(b"H"), SLOW),
    "100 trickled": Row(trickle(b"HTTP/1.1 100 Continue\r\n\r\n"), SLOW),
    "silence behind 100": Row(then(b"HTTP/1.1 100 Continue\r\n\r\n", Exchange.stall), SLOW),
    "silence in the headers": Row(then(OK, Exchange.stall), SLOW),
    "a trickled header": Row(then(OK, trickle(b"X")), SLOW),
    "trickled headers": Row(then(OK, trickle(b"A:\r\n")), SLOW),
    "silence in the body": Row(then(OK + LENGTH + b"\r\n" + DATA[:100], Exchange.stall), SILENT),
    "a trickled body": Row(then(OK + LENGTH + b"\r\n", trickle(DATA)), "bytes in "),
    "a trickled body of no length": Row(then(OK + b"\r\n", trickle(DATA)), "bytes in "),
    "a trickled web page": Row(then(OK + b"\r\n", trickle(b"<html>")), "bytes in "),
    "silence behind the chunks": Row(then(CHUNKED + in_chunks(DATA, 999), Exchange.stall), SILENT),
    "a trickled chunk size": Row(then(CHUNKED, trickle(b"0")), SILENT),
    "a trickled chunk extension": Row(then(CHUNKED + b"5;", trickle(b"a")), SILENT),
    "trickled chunks": Row(then(CHUNKED, trickle(b"1\r\nA\r\n")), "bytes in "),
    "trickled trailers": Row(
        then(CHUNKED + in_chunks(DATA, 999) + b"0\r\n", trickle(b"A: b\r\n")), SILENT
    ),
    "a trickled redirect": Row(
        then(b"HTTP/1.1 302 Go\r\nLocation: /good/file.bin\r\n", trickle(b"A: b\r\n")), SLOW
    ),
    "a redirect with a silent body": Row(
        then(
            b"HTTP/1.1 302 Go\r\nLocation: /good/file.bin\r\nContent-Length: 9\r\n\r\n",
            Exchange.stall,
        ),
        RIGHT,
    ),
    "an error with a silent body": Row(
        then(b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n", Exchange.stall), "answered 404"
    ),
    "silence behind the file": Row(then(WHOLE, Exchange.stall), RIGHT),
}

TLS_ROWS = {
    "TLS silence": Row(Exchange.stall, "within 0.4 s, 2 times in a row"),
    "TLS closed": Row(raw(), "closed the connection early, 2 times in a row"),
    "TLS reset": Row(Exchange.reset, "the connection"),
    "plain HTTP": Row(raw(WHOLE), "does not set up TLS"),
    "TLS alert": Row(raw(bytes.fromhex("15030300020228")), "does not set up TLS"),
    "TLS trickle": Row(trickle(bytes.fromhex("1603030400020003fc0303")), "within 0.4 s, 2 times"),
    "TLS records without end": Row(endless(bytes.fromhex("160303000100")), "within 0.4 s"),
}
PROXY_ROWS = {
    "proxy 407": Row(
        raw(b"HTTP/1.1 407 Authentication\r\n\r\n"), "is not reached through the proxy"
    ),
    "proxy closed": Row(raw(), EARLY),
    "proxy silence": Row(Exchange.stall, "within 0.4 s, 2 times"),
    "proxy trickle": Row(trickle(b"HTTP/1.1 200 OK\r\nA: b\r\nA: b\r\n"), "within 0.4 s, 2 times"),
    "proxy headers without end": Row(then(OK, endless(b"A: " + b"b" * 30_000 + b"\r\n")), NO_END),
}
PLAIN_ROWS = QUICK_ROWS | SLOW_ROWS
ROWS = PLAIN_ROWS | TLS_ROWS | PROXY_ROWS


def marked(names: Iterator[str] | dict[str, Row]) -> list[object]:
    """Leave what takes time, and every other row of the rest, to the whole suite."""
    return [
        pytest.param(name, marks=[pytest.mark.slow] if name not in QUICK_ROWS or index % 2 else [])
        for index, name in enumerate(names)
    ]


@pytest.fixture(autouse=True)
def _nothing_is_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power fails here, and a disk takes longer than all servers together."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    with FaultyServer(DATA, {name: row.fault for name, row in PLAIN_ROWS.items()}) as running:
        yield running


@pytest.fixture
def faulty(
    request: pytest.FixtureRequest, server: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FaultyServer, str, Row]]:
    """The server of a row, and the URL at which the row's fault is met."""
    name = request.param
    if name in PLAIN_ROWS:
        yield server, server.url(name), PLAIN_ROWS[name]
        return
    row = ROWS[name]
    with FaultyServer(DATA, {name: row.fault}, alone=name) as own:
        url = own.url("file", "https")
        if name in PROXY_ROWS:
            monkeypatch.setenv("https_proxy", own.url(""))
            url = "https://voc.example/file.bin"
        yield own, url, row


def fetch(folder: Path, row: Row, *urls: str) -> DownloadOutcome:
    """Download the file as a program does."""
    file = SourceFile(
        path="file.bin",
        urls=urls,
        max_bytes=LIMIT,
        sha256=hashlib.sha256(DATA).hexdigest() if row.digest else None,
    )
    source = SourceManifest(name="faults", title="t", terms="t", files=(file,))
    return download(source, folder, OPTIONS, RecordedProgress())[0]


@pytest.mark.parametrize("faulty", marked(ROWS), indirect=True)
def test_a_fault_ends_in_the_file_or_in_one_sentence(
    faulty: tuple[FaultyServer, str, Row], server: FaultyServer, tmp_path: Path
):
    bad, url, row = faulty
    before = bad.sent.total()
    outcome = fetch(tmp_path, row, url)
    assert bad.sent.total() - before < MOST_READ
    if row.words == RIGHT:
        assert outcome.error is None
        assert (tmp_path / "file.bin").read_bytes() == DATA
        return
    assert outcome.error is not None
    assert url in outcome.error
    assert row.words in outcome.error
    assert outcome.error.isprintable()
    assert len(outcome.error) < 700
    assert outcome.exit_code == (3 if row.wrong_bytes else 4)
    assert not (tmp_path / "file.bin").exists()
    # What is left of it does no harm: the next run takes the right file from another place.
    assert fetch(tmp_path, row, server.url("good")).error is None
    assert (tmp_path / "file.bin").read_bytes() == DATA
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize("faulty", marked(ROWS), indirect=True)
def test_another_mirror_gives_the_file_instead(
    faulty: tuple[FaultyServer, str, Row], server: FaultyServer, tmp_path: Path
):
    bad, url, row = faulty
    before = bad.sent.total()
    outcome = fetch(tmp_path, row, url, server.url("good"))
    assert bad.sent.total() - before < MOST_READ
    assert outcome.error is None
    assert outcome.mirror == (url if row.words == RIGHT else server.url("good"))
    assert (tmp_path / "file.bin").read_bytes() == DATA


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    path.write_text(PEM)
    return path


@pytest.fixture
def secure(certificate: Path) -> Iterator[FaultyServer]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    faults = {
        "cut": then(OK + LENGTH + b"\r\n" + DATA[:HALF], lambda exchange: exchange.reset()),
        "downgrade": redirect(b"http://127.0.0.1/file.bin"),
        "trickle": then(OK, trickle(b"A: b\r\n")),
    }
    with FaultyServer(DATA, faults, tls=context) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("good", RIGHT),
        ("cut", "the connection"),
        ("downgrade", "redirects from https to 'http://127.0.0.1/file.bin', which anybody could"),
        ("trickle", SLOW),
    ],
)
def test_faults_of_a_server_with_a_certificate(
    secure: FaultyServer,
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    words: str,
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    row = Row(raw(), words)
    outcome = fetch(tmp_path / "data", row, secure.url(name, "https"))
    assert outcome.ok == (words == RIGHT)
    assert words in (outcome.error or "")


def test_a_certificate_that_nobody_signed_says_what_to_do(secure: FaultyServer, tmp_path: Path):
    error = str(fetch(tmp_path / "data", Row(raw(), ""), secure.url("good", "https")).error)
    assert "has a certificate that does not verify; check this machine's clock" in error
    assert "REQUESTS_CA_BUNDLE" in error
    assert "network connection" not in error


def test_the_connection_is_doubted_only_where_no_mirror_answered(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    look_up = socket.getaddrinfo

    def look_up_here(host: str, *args: object, **kwargs: object) -> object:
        if host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr("socket.getaddrinfo", look_up_here)
    nowhere = "http://no-such-host.invalid/file.bin"
    doubt = "check the network connection"
    assert doubt in str(fetch(tmp_path, Row(raw(), ""), nowhere, nowhere).error)
    assert doubt not in str(fetch(tmp_path, Row(raw(), ""), nowhere, server.url("404")).error)


def test_a_socks_proxy_needs_its_library(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "socks", None)
    error = str(fetch(tmp_path, Row(raw(), ""), server.url("good")).error)
    assert "needs PySocks for the SOCKS proxy of the environment; run pip install pysocks" in error


@pytest.mark.parametrize("seed", range(6))
def test_whatever_three_mirrors_do_a_download_ends(seed: int, tmp_path: Path):
    """Every request meets another fault; half of the seeds have a digest to prove the file by."""
    draw = random.Random(seed)
    names = sorted(QUICK_ROWS)

    def any_fault(exchange: Exchange) -> None:
        QUICK_ROWS[draw.choice(names)].fault(exchange)

    mirrors = dict.fromkeys("abc", any_fault)
    with FaultyServer(DATA, mirrors) as running:
        row = Row(any_fault, "", digest=seed % 2 == 0)
        outcome = fetch(tmp_path, row, *(running.url(name) for name in mirrors))
        assert running.requests.total() < 100
        if outcome.ok:
            held = (tmp_path / "file.bin").read_bytes()
            assert held == DATA or not row.digest
        else:
            assert not (tmp_path / "file.bin").exists()
            assert str(outcome.error).isprintable()
            assert fetch(tmp_path, row, running.url("good")).ok
            assert (tmp_path / "file.bin").read_bytes() == DATA


def test_the_table_is_long_enough():
    assert len(ROWS) >= 100
