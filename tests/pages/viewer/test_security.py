"""Who is answered: a browser of this machine that knows the token, reading, and nobody else."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Mapping
from urllib.parse import quote

import pytest
from builders.shown import Shown
from builders.viewing import get, send

from vocprep.pages.viewer.shown.session import Session
from vocprep.pages.viewer.web.security import HEADERS
from vocprep.pages.viewer.web.server import Server

pytestmark = pytest.mark.slow
EVERYWHERE = ("content-security-policy", "x-content-type-options", "referrer-policy")


def test_it_listens_on_this_machine_alone(viewer: Server) -> None:
    assert viewer.url.startswith(f"http://127.0.0.1:{viewer.port}/{viewer.token}/")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", viewer.port), timeout=5)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "example.org"},
        {"Host": "example.org:{port}"},
        {"Host": "127.0.0.1.example.org:{port}"},
        {"Host": "localhost@example.org"},
        {"Host": "[::1]:{port}"},
        {"Host": ""},
        {"Host": "127.0.0.1:x"},
        {"Origin": "http://example.org"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1:1"},
    ],
    ids=str,
)
def test_a_foreign_site_is_refused(viewer: Server, headers: Mapping[str, str]) -> None:
    filled = {name: value.format(port=viewer.port) for name, value in headers.items()}
    for path in (f"/{viewer.token}/", f"/{viewer.token}/api/state"):
        answer = send(viewer, path, filled)
        assert (answer.status, answer.body) == (403, b"")


@pytest.mark.parametrize(
    "headers",
    [{"Host": "localhost:{port}"}, {"Host": "LOCALHOST:9"}, {"Origin": "http://127.0.0.1:{port}"}],
    ids=str,
)
def test_a_page_of_this_machine_is_answered(viewer: Server, headers: Mapping[str, str]) -> None:
    filled = {name: value.format(port=viewer.port) for name, value in headers.items()}
    assert send(viewer, f"/{viewer.token}/api/state", filled).status == 200


def test_a_wrong_token_is_refused(viewer: Server) -> None:
    wrong = viewer.token[:-1] + ("A" if viewer.token[-1] != "A" else "B")
    for path in (
        "/",
        "/api/state",
        f"/{wrong}/",
        f"/{wrong}/api/state",
        f"/{viewer.token}",
        f"/{viewer.token}x/",
        f"//{viewer.token}/",
        "/%E2%82%AC/",
        "/%FF/",
        "*",
    ):
        answer = send(viewer, path)
        assert (answer.status, answer.body) == (403, b""), path


def test_nothing_can_be_changed(viewer: Server) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        answer = send(viewer, f"/{viewer.token}/api/state", method=method)
        assert (answer.status, answer.body) == (405, b""), method
        assert answer.headers["allow"] == "GET, HEAD"


def test_every_answer_has_the_headers(viewer: Server) -> None:
    base = f"/{viewer.token}"
    paths = {
        f"{base}/": 200,
        f"{base}/static/main.js": 200,
        f"{base}/api/state": 200,
        f"{base}/api/none": 404,
        f"{base}/api/picture": 400,
        "/": 403,
    }
    for path, status in paths.items():
        answer = send(viewer, path)
        assert answer.status == status
        for name, value in HEADERS.items():
            assert answer.headers[name.lower()] == value
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
    policy = send(viewer, f"{base}/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_head_of_an_answer_is_that_of_it(viewer: Server) -> None:
    for path in ("", "static/main.js", "api/pictures?status=quarantined"):
        whole = send(viewer, f"/{viewer.token}/{path}")
        head = send(viewer, f"/{viewer.token}/{path}", method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.body))


def test_no_path_leads_to_a_file(viewer: Server, shown: Shown) -> None:
    base = f"/{viewer.token}"
    for path in (
        "static/",
        "static/../app.py",
        "static/..%2Fapp.py",
        "static/%2e%2e/app.py",
        f"static/{quote(str(shown.version))}/dataset.json",
        "static//etc/passwd",
        "static/index.html",
        "static/main.js/",
        "static",
        "etc/passwd",
        "api/",
        "api/state/",
    ):
        assert send(viewer, f"{base}/{path}").status == 404, path


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("v=c", "v 'c': expected one of a"),
        ("v=a&v=a", "each name once"),
        ("v", "name=value"),
        ("limit=501", "a whole number from 0 to 500"),
        ("limit=-1", "a whole number from 0 to 500"),
        ("limit=%D9%A3", "a whole number from 0 to 500"),
        ("limit=1e2", "a whole number from 0 to 500"),
        ("offset=99999999999999999999", "a whole number"),
        ("class=65536", "a whole number from 0 to 65,535"),
        ("split=../train", "expected one of"),
        ("sort=score:7", "no such run"),
        ("sort=changed:b", "expected one of"),
        ("sort=__class__", "expected one of"),
        ("status=ok", "expected one of record, quarantined"),
        ("order=up", "expected one of asc, desc"),
        (f"text={'x' * 301}", "at most 300 characters"),
        (f"text={'x' * 5000}", "at most 4,096 bytes"),
        ("text=%FF", "UTF-8"),
        ("&".join(f"a{n}=1" for n in range(40)), "name=value"),
        ("colour=red", "expected a query of v, split"),
    ],
)
def test_queries_are_bounded(viewer: Server, query: str, words: str) -> None:
    answer = send(viewer, f"/{viewer.token}/api/pictures?{query}")
    assert answer.status in (400, 404)
    assert words in answer.json()["error"]


def test_slow_and_broken_clients_harm_nobody(viewer: Server) -> None:
    address = ("127.0.0.1", viewer.port)
    path = f"/{viewer.token}/api/pictures?limit=500"
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    slow = [socket.create_connection(address, timeout=60) for _ in range(40)]
    for number, client in enumerate(slow):
        client.sendall(head[: 20 + number])
    for _ in range(40):  # asks, and goes away
        with socket.create_connection(address, timeout=60) as client:
            client.sendall(head)
    for garbage in (b"\x00" * 100, b"GET / HTTP/9\r\n\r\n", b"A" * 100_000):
        with socket.create_connection(address, timeout=60) as client:
            client.sendall(garbage)
    assert get(viewer, "pictures")["total"] == 24
    slow[0].sendall(head[20:])
    assert slow[0].recv(12) == b"HTTP/1.1 200"
    for client in slow:
        client.close()


def test_two_viewers_have_two_tokens(shown: Shown) -> None:
    session = Session.open([shown.other], shown.options)
    tokens = {Server(session).token for _ in range(5)}
    assert len(tokens) == 5
    assert min(map(len, tokens)) >= 32


def test_connections_that_fail_say_nothing(
    shown: Shown, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = socket.socket.accept
    refusals = [OSError(errno.EMFILE, "Too many open files")]

    def refuse_once(self: socket.socket) -> object:
        if refusals:
            raise refusals.pop()
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", refuse_once)
    with Server(Session.open([shown.version], shown.options)) as server:
        assert send(server, f"/{server.token}/").status == 200  # tried again after a second
    assert not refusals
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
