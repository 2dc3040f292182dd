"""Calls before the requests that the code under test sends to an object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from vocprep.storage.store import StorePath

REQUESTS = ("read", "facts", "put", "put_new", "delete", "list", "chunks")


class Killed(BaseException):
    """In the place of the end of a process: nothing handles it, nothing is cleaned up."""


@contextmanager
def before_requests(function: Callable[[str, StorePath], object]) -> Iterator[None]:
    """Call a function with kind and path of each request before it is sent, during a block."""

    def calling(kind: str, request: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: StorePath, *arguments: Any) -> Any:
            function(kind, path)
            return request(path, *arguments)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for kind in REQUESTS:
            patch.setattr(StorePath, kind, calling(kind, getattr(StorePath, kind)))
        yield


def killing(at: int) -> Callable[[str, StorePath], None]:
    """Return a function that raises Killed at the request of a number, and at all later ones."""
    seen = [0]

    def count(_kind: str, _path: StorePath) -> None:
        seen[0] += 1
        if seen[0] > at:
            raise Killed

    return count
