"""The viewer's HTTP interface: the page's files, and answers about versions and runs.

Below ``/TOKEN/``: the page itself, ``static/NAME``, and ``api/NAME``, which docs/guides/viewer.md
lists. Answers are computed by few threads: requests beyond those wait, and beyond a number of
waiting ones are refused, so that no number of requests takes the machine.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from vocprep.errors import UsageError
from vocprep.pages.viewer.answers.details import describe_picture
from vocprep.pages.viewer.answers.layers import EncodedImage, draw_layer
from vocprep.pages.viewer.answers.pictures import list_pictures
from vocprep.pages.viewer.answers.similar import similar_patches
from vocprep.pages.viewer.answers.tables import class_table, confused_patches, confusion_table
from vocprep.pages.viewer.queries import NotFoundError, NotReadyError, Query
from vocprep.pages.viewer.shown.background import REQUESTS, in_words
from vocprep.pages.viewer.shown.session import Session
from vocprep.pages.viewer.web.security import Guard
from vocprep.validation import printable

Answer = dict[str, Any] | EncodedImage
_log = logging.getLogger(__name__)


def describe_session(session: Session, query: Query) -> Answer:
    """Return the state of the viewer."""
    query.only(())
    return session.to_json()


ANSWERS: Final[Mapping[str, Callable[[Session, Query], Answer]]] = {
    "state": describe_session,
    "pictures": list_pictures,
    "picture": describe_picture,
    "image": draw_layer,
    "similar": similar_patches,
    "classes": class_table,
    "confusion": confusion_table,
    "confused": confused_patches,
}
"""By the name below ``api/``."""
_THREADS = 6
_MOST_WAITING = 256
"""Requests that are answered or wait."""
_STATIC = Path(__file__).parents[1] / "static"
_PAGE = "index.html"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_STATUS = {NotReadyError: 202, UsageError: 400, NotFoundError: 404}
"""202 is no error, which browsers would list; 500 where the data are at fault, and asking again is
in vain."""
_ASSETS = "private, max-age=3600"
_NOT_KEPT = "no-store"


def make_app(session: Session, token: str) -> ASGIApp:
    """Return the ASGI application of a session, whose paths begin with the token."""
    return Guard(_App(session), token)


class _App:
    """Answers the requests that the guard has let through."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._files = read_files()
        self._threads = anyio.CapacityLimiter(_THREADS)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._respond(Request(scope))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        path = request.scope["path"]
        if path == "/":
            return self._file(_PAGE, _NOT_KEPT)
        kind, _, name = path[1:].partition("/")
        if kind == "static" and name != _PAGE:
            return self._file(name, _ASSETS)
        if kind == "api" and name in ANSWERS:
            return await self._answer(name, request.scope["query_string"])
        return _problem(404, "no such page")

    def _file(self, name: str, cache: str) -> Response:
        if name not in self._files:
            return _problem(404, "no such file")
        media_type = _MEDIA_TYPES[Path(name).suffix]
        return Response(self._files[name], media_type=media_type, headers={"Cache-Control": cache})

    async def _answer(self, name: str, query: bytes) -> Response:
        if self._waiting >= _MOST_WAITING:
            return _problem(503, "too many requests at once; ask again")
        self._waiting += 1
        try:
            return await anyio.to_thread.run_sync(
                partial(self._compute, name, query), limiter=self._threads
            )
        finally:
            self._waiting -= 1

    def _compute(self, name: str, query: bytes) -> Response:
        try:
            with REQUESTS.answering():
                answer = ANSWERS[name](self._session, Query.parse(query.decode("ascii", "replace")))
        except Exception as error:
            return _failure(error)
        if isinstance(answer, EncodedImage):
            headers = {"Cache-Control": _ASSETS}
            return Response(answer.data, media_type=answer.media_type, headers=headers)
        return _json(200, answer)


def read_files() -> dict[str, bytes]:
    """Return the page's files by their paths below static/: nothing else is ever sent as a file."""
    return {
        path.relative_to(_STATIC).as_posix(): path.read_bytes()
        for path in sorted(_STATIC.rglob("*"))
        if path.suffix in _MEDIA_TYPES and path.is_file()
    }


def _failure(error: Exception) -> Response:
    """Return the answer to a request that could not be answered."""
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    _log.debug("a request failed", exc_info=error)
    return _problem(status, in_words(error))


def _problem(status: int, text: str) -> Response:
    return _json(status, {"error": printable(text)})


def _json(status: int, value: dict[str, Any]) -> Response:
    data = json.dumps(value, allow_nan=False, separators=(",", ":"))
    headers = {"Cache-Control": _NOT_KEPT}
    return Response(data, status, media_type="application/json", headers=headers)
