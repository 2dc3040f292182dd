"""The web server of one viewer: on 127.0.0.1 alone, in a thread, until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import threading
from types import TracebackType
from typing import Any, Self

import uvicorn

from vocprep.errors import UsageError
from vocprep.pages.viewer.shown.session import Session
from vocprep.pages.viewer.web.app import make_app
from vocprep.validation import explain

ADDRESS = "127.0.0.1"
_TOKEN_BYTES = 24
_STOP_SECONDS = 5.0
_BACKLOG = 128
_log = logging.getLogger(__name__)


class Server:
    """Serves a session while it is entered."""

    def __init__(self, session: Session, port: int = 0) -> None:
        """``port`` is 0 for a free one."""
        self._session = session
        self._socket: socket.socket | None = None
        self.port = port
        self.token = secrets.token_urlsafe(_TOKEN_BYTES)
        config = uvicorn.Config(
            make_app(session, self.token),
            http="h11",
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="viewer-server", daemon=True)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{ADDRESS}:{self.port}/{self.token}/"

    def __enter__(self) -> Self:
        """Take the port and begin; UsageError where the port cannot be had."""
        self._socket = _listen(self.port)
        self.port = self._socket.getsockname()[1]
        self._session.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._session.stop()
        self._thread.join(_STOP_SECONDS)
        if self._socket is not None:
            self._socket.close()

    def wait(self) -> None:
        """Return when the server has ended, which it does not by itself."""
        self._thread.join()

    def _serve(self) -> None:
        assert self._socket is not None
        asyncio.run(self._answer([self._socket]))

    async def _answer(self, sockets: list[socket.socket]) -> None:
        asyncio.get_running_loop().set_exception_handler(_log_fault)
        await self._server.serve(sockets)


def _log_fault(loop: asyncio.AbstractEventLoop, fault: dict[str, Any]) -> None:
    """Log what a connection has failed with: thousands of them must not fill the terminal."""
    _log.debug("%s", fault.get("message"), exc_info=fault.get("exception"))


def _listen(port: int) -> socket.socket:
    """Return a listening socket of this machine alone."""
    # Named as TCP: asyncio sends short answers at once on sockets that it knows to be.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((ADDRESS, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise UsageError(
            f"port {port}: cannot be listened at on {ADDRESS}: {explain(error)}; give another "
            "--port, or leave it out for a free one"
        ) from error
    return listening
