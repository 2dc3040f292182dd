"""Requests to a viewer, as a program makes them that sets every byte of a head."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vocprep.pages.viewer.web.server import Server


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    def pixels(self) -> NDArray[np.uint8]:
        kind = {b"\x89P": "image/png", b"\xff\xd8": "image/jpeg"}[self.body[:2]]
        assert self.headers["content-type"] == kind
        return np.asarray(Image.open(io.BytesIO(self.body)).convert("RGB"))


def send(
    server: Server, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> Answer:
    """Ask for a path as it is written, with a Host header unless the headers have another."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        given = {"Host": f"127.0.0.1:{server.port}", **(headers or {})}
        for name, value in given.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())
    finally:
        connection.close()


def ask(server: Server, name: str, **query: object) -> Answer:
    """Ask for what is below ``api/``; once more while it is not ready."""
    fields = {key.rstrip("_"): value for key, value in query.items()}
    while True:
        answer = send(server, f"/{server.token}/api/{name}?{urlencode(fields)}")
        if answer.status != 202:  # the server has waited a moment
            return answer
        assert "not ready yet" in answer.json()["error"]


def get(server: Server, name: str, **query: object) -> Any:
    """The JSON of an answer that must succeed."""
    answer = ask(server, name, **query)
    assert answer.status == 200, answer.body
    return answer.json()


def refused(server: Server, status: int, name: str, **query: object) -> str:
    """The sentence of an answer that must fail so."""
    answer = ask(server, name, **query)
    assert answer.status == status, answer.body
    assert list(answer.json()) == ["error"]
    return str(answer.json()["error"])
