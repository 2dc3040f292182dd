"""Which requests the viewer answers: those of this machine's browser that know the token.

A page of another site must not read a version through the browser of its user. So the host name of
a request is that of this machine (else another name could lead here), its origin is the viewer
itself, and its path begins with a token that no other site knows.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST_NAMES: Final = ("127.0.0.1", "localhost")
"""With any port: a forwarded one may differ."""
METHODS: Final = ("GET", "HEAD")
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""On every answer."""
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Guard:
    """An ASGI application that hands on the requests which may be answered, without the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        status, rest = self._judge(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_RAW_HEADERS]
            await send(message)

        if status == 200:
            inner = {**scope, "path": rest, "raw_path": rest.encode(), "root_path": ""}
            await self._app(inner, receive, send_with_headers)
            return
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        if status == 405:
            headers.append((b"allow", ", ".join(METHODS).encode()))
        await send_with_headers(
            {"type": "http.response.start", "status": status, "headers": headers}
        )
        await send_with_headers({"type": "http.response.body", "body": b""})

    def _judge(self, scope: Scope) -> tuple[int, str]:
        """Return 200 and the path below the token, or the status of a refusal."""
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not is_own_host(hosts[0].decode("latin-1")):
            return 403, ""
        origins = [value for name, value in scope["headers"] if name == b"origin"]
        if any(origin != b"http://" + hosts[0] for origin in origins):
            return 403, ""
        first, slash, rest = scope["path"].removeprefix("/").partition("/")
        if not hmac.compare_digest(first.encode("utf-8", "replace"), self._token) or not slash:
            return 403, ""
        if scope["method"] not in METHODS:
            return 405, ""
        return 200, f"/{rest}"


def is_own_host(host: str) -> bool:
    """Return whether the value of a Host header names this machine.

    >>> is_own_host("127.0.0.1:8000"), is_own_host("localhost"), is_own_host("example.org:8000")
    (True, True, False)
    """
    name, _, port = host.partition(":")
    return name.lower() in HOST_NAMES and (port == "" or (port.isascii() and port.isdigit()))
