"""What can go wrong with one mirror; the errors of the HTTP libraries in these terms.

Every fault is raised as one of the errors below, by what the caller can do about it; none of them
leaves ``vocprep.downloading``.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

import requests
import urllib3

from vocprep.downloading.connection import MalformedResponseError
from vocprep.errors import DigestError, SourceUnavailableError
from vocprep.validation import printable

_LONGEST_SHOWN = 80


class Remedy(Enum):
    """What a user can do about a fault."""

    CONNECTION = "check the network connection and the proxy settings of the environment"
    CERTIFICATE = (
        "check this machine's clock, and where a proxy signs certificates of its own, name them "
        "with REQUESTS_CA_BUNDLE"
    )
    SOCKS = "run pip install pysocks, or unset the proxy"
    WEB_PAGE = "open the URL in a browser: a firewall or a login page answers in its place"
    LIMIT = "if the file is really so large, set its max_bytes in a manifest of your own"
    LATER = "run the same command again later"
    ELSEWHERE = "name another place with --mirror URL or --from DIR"


_PARTICULAR = (Remedy.CERTIFICATE, Remedy.SOCKS, Remedy.WEB_PAGE, Remedy.LIMIT)


def advice(remedies: Set[Remedy], held: int) -> str:
    """Return what to do when all mirrors failed, for which there were these remedies.

    The connection is worth a look only where no mirror answered.

    >>> advice({Remedy.CONNECTION, Remedy.ELSEWHERE}, 0)
    'name another place with --mirror URL or --from DIR'
    """
    only_unreached = remedies == {Remedy.CONNECTION}
    words = [Remedy.CONNECTION.value] if only_unreached else []
    if only_unreached or Remedy.LATER in remedies:
        words.append(Remedy.LATER.value + (f" to go on from byte {held}" if held else ""))
    words += [item.value for item in _PARTICULAR if item in remedies]
    return ", or ".join([*words, Remedy.ELSEWHERE.value])


class MirrorError(Exception):
    """A fault of one mirror, in words that follow its URL."""

    def __init__(self, message: str, remedy: Remedy = Remedy.ELSEWHERE) -> None:
        super().__init__(message)
        self.remedy = remedy


Failures = Sequence[tuple[str, MirrorError]]
"""The mirrors that were given up, by URL, each with its last fault."""


class TemporaryError(MirrorError):
    """The same request may succeed later."""

    def __init__(
        self, message: str, remedy: Remedy = Remedy.LATER, *, wait_seconds: float = 0.0
    ) -> None:
        super().__init__(message, remedy)
        self.wait_seconds = wait_seconds
        """The wait that the server requested with Retry-After."""


class StalledError(TemporaryError):
    """The mirror sent nothing, or next to nothing, for too long; another may be faster."""


class RefusedError(MirrorError):
    """This mirror cannot give the file; another may."""


class OtherFileError(MirrorError):
    """The mirror's file cannot be shown to be the one that the bytes here come from."""


def shown(text: str) -> str:
    """Return a server's text for people: quoted, one line, a few words at most.

    >>> shown("Not Found\x1b[2J")
    "'Not Found\\\\x1b[2J'"
    """
    quoted = repr(text[:_LONGEST_SHOWN])
    return printable(quoted if len(text) <= _LONGEST_SHOWN else f"{quoted[:_LONGEST_SHOWN]}…")


def unavailable(path: Path, failures: Failures, held: int) -> SourceUnavailableError:
    """Return the error that names each mirror's fault and what to do."""
    remedies = {error.remedy for _, error in failures}
    return SourceUnavailableError(
        f"{path}: no mirror gave the file: {_listed(failures)}; {advice(remedies, held)}"
    )


def wrong_bytes(path: Path, failures: Failures, *, recorded: bool) -> DigestError:
    """Return the error of mirrors that gave other bytes; ``recorded``: than in an earlier run."""
    delete = " (then delete its entry in sources.lock.json)" if recorded else ""
    return DigestError(
        f"{path}: no mirror gave the right bytes, nothing was kept: {_listed(failures)}; a proxy "
        f"may have changed them, the published file may be another one now{delete}, or the "
        f"manifest states another one's digests: {Remedy.ELSEWHERE.value}"
    )


def _listed(failures: Failures) -> str:
    return "; ".join(f"{url} {error}" for url, error in failures) or "none is listed"


@contextmanager
def translated_errors(task: str, seconds: float) -> Iterator[None]:
    """Turn the errors of the HTTP libraries into those above.

    ``task`` is what the mirror has not done when it is not done within ``seconds``.
    """
    try:
        yield
    except (OSError, ValueError, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
        raise _translated(error, f"did not {task} within {seconds:g} s") from error


def _translated(error: Exception, too_slow: str) -> MirrorError:
    """Return what an error means: the libraries nest up to four, the innermost says most."""
    if isinstance(error, requests.exceptions.ProxyError):
        return TemporaryError("is not reached through the proxy", Remedy.CONNECTION)
    if isinstance(error, requests.exceptions.InvalidSchema) and "SOCKS" in str(error):
        return RefusedError("needs PySocks for the SOCKS proxy of the environment", Remedy.SOCKS)
    if isinstance(error, requests.ConnectTimeout):
        return TemporaryError("did not accept the connection in time", Remedy.CONNECTION)
    chain = _chain(error)
    meanings = (_meaning(inner, too_slow) for inner in reversed(chain))
    known = next((meaning for meaning in meanings if meaning is not None), None)
    if known is None and isinstance(error, requests.ConnectionError):
        return TemporaryError(f"broke off the connection: {shown(str(chain[-1]))}")
    return known or RefusedError(f"cannot be requested: {shown(str(chain[-1]))}")


def _meaning(error: BaseException, too_slow: str) -> MirrorError | None:
    if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError):
        return StalledError(too_slow)
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        return TemporaryError("is not reached from this network", Remedy.CONNECTION)
    if isinstance(error, MalformedResponseError):
        return RefusedError(str(error))
    for kind, make, words, remedy in _MEANINGS:
        if isinstance(error, kind):
            return make(words.format(shown(str(error))), remedy)
    return None


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return an error and those that it was raised from, the innermost last."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return chain


_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
_EARLY = "closed the connection early"
_MEANINGS: tuple[tuple[type[BaseException], type[MirrorError], str, Remedy], ...] = (
    (socket.gaierror, TemporaryError, "has a host name that is not found", Remedy.CONNECTION),
    (
        ssl.SSLCertVerificationError,
        RefusedError,
        "has a certificate that does not verify",
        Remedy.CERTIFICATE,
    ),
    (ssl.SSLEOFError, TemporaryError, _EARLY, Remedy.LATER),
    (ssl.SSLError, RefusedError, "does not set up TLS: {}", Remedy.ELSEWHERE),
    (ConnectionRefusedError, TemporaryError, "refused the connection", Remedy.LATER),
    (http.client.RemoteDisconnected, TemporaryError, _EARLY, Remedy.LATER),
    (http.client.IncompleteRead, TemporaryError, _EARLY, Remedy.LATER),
    (urllib3.exceptions.IncompleteRead, TemporaryError, _EARLY, Remedy.LATER),
    (ConnectionError, TemporaryError, "reset the connection", Remedy.LATER),
    (http.client.HTTPException, RefusedError, "does not answer in HTTP: {}", Remedy.ELSEWHERE),
)
"""By type, the first that fits: the fault, its words, its remedy."""
