"""Requests to object stores through obstore, which only this module uses.

Requests are repeated for ``PATIENCE`` seconds while a store cannot be reached or is busy. In the
main thread they are made by another one, so that Ctrl-C is not kept waiting.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from vocprep.errors import UsageError
from vocprep.storage.problems import StoreError, as_os_error, as_usage_error
from vocprep.validation import printable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    from vocprep.storage.store import StorePath

SHA256_FIELD: Final = "sha256"
"""Metadata of an object that holds the sha256 of its bytes."""
CHUNK: Final = 4 << 20
"""Bytes of an object that are handed out at once."""
PATIENCE: Final = 30
"""Seconds for which a store may be away."""
_CONNECT_SECONDS: Final = 5
_SECONDS_UNTIL_NOTE: Final = 5
"""For which the main thread waits without a word."""
_READ_SECONDS: Final = 60
"""Until the next bytes of an answer come in."""
_SLOWEST: Final = 256 << 10
"""Bytes per second at which an object is expected to be written at least."""
_LONG_TRIES: Final = 3
"""How often an object is written whose writing breaks off after more than ``PATIENCE``."""
_PAUSE: Final = 0.3
_SETTINGS: Final = ("AWS_", "GOOGLE_", "AZURE_")
"""How the names of environment variables begin that clients read when they are made."""
_ADDRESS: Final = re.compile(
    r"(?:AWS|GOOGLE|AZURE)_(?:\w+_)?(?:ENDPOINT(?:_URL)?(?:_S3)?|BASE_URL)"
)
_HTTP: Final = re.compile(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")
_SENT_AS_IT_IS: Final = re.compile(r"(?:AWS|GOOGLE|AZURE)_\w*(?:KEY|KEY_ID|TOKEN|REGION|SECRET)")
_waited_for: set[str] = set()
"""URLs of buckets whose first long wait was noted."""
_log = logging.getLogger(__name__)
_used = {"process": 0}
"""The process in which obstore has its threads; 0 before its first request."""
Result = TypeVar("Result")


def require_obstore(url: str) -> None:
    """Raise UsageError where the library is not installed that talks to object stores."""
    try:
        import obstore  # noqa: F401, PLC0415  # an extra
    except ImportError as error:
        raise UsageError(
            f"{printable(url)}: object stores need the extra cloud: run pip install "
            "'vocprep[cloud]', or name a folder"
        ) from error


def is_lost() -> bool:
    """Return whether this is the fork of a process that has used obstore, whose threads it lacks.

    A request would wait for ever.
    """
    return _used["process"] not in (0, os.getpid())


def read(path: StorePath, max_bytes: int) -> bytes:
    """Return the bytes of an object; OSError when it is not there or is larger."""

    def read() -> bytes:
        import obstore  # noqa: PLC0415  # an extra

        result = obstore.get(_reader(path), path.key)
        size = result.meta["size"]
        if size > max_bytes:
            words = f"{size:,} bytes, where at most {max_bytes:,} are expected"
            raise StoreError(errno.EFBIG, words, str(path))
        return bytes(result.bytes())

    return _request(path, read)


def read_range(path: StorePath, start: int, stop: int) -> bytes:
    """Return some bytes of an object."""

    def read() -> bytes:
        import obstore  # noqa: PLC0415  # an extra

        return bytes(obstore.get_range(_reader(path), path.key, start=start, end=stop))

    return _request(path, read)


def chunks(path: StorePath) -> Iterator[memoryview]:
    """Yield the bytes of an object while they come in.

    obstore goes on by itself where an answer breaks off, within ``PATIENCE`` of its begin; a new
    request goes on after that, as long as each of them brings something.
    """
    done, e_tag = 0, None
    while True:
        begun = done
        try:
            for tag, chunk in _rest(path, begun, e_tag):
                e_tag, done = tag, done + len(chunk)
                yield chunk
        except StoreError:
            if done == begun:
                raise
        else:
            return


def _rest(
    path: StorePath, start: int, e_tag: str | None
) -> Iterator[tuple[str | None, memoryview]]:
    """Yield the bytes of an object from ``start`` on, each piece with the object's tag."""
    options: Any = {"range": {"offset": start}, "if_match": e_tag} if start else None

    def begin() -> tuple[str | None, Iterator[Any]]:
        import obstore  # noqa: PLC0415  # an extra

        result = obstore.get(_reader(path), path.key, options=options)
        return result.meta["e_tag"], iter(result.stream(min_chunk_size=CHUNK))

    tag, stream = _request(path, begin)
    while (chunk := _request(path, lambda: next(stream, None))) is not None:
        yield tag, memoryview(chunk)


def facts(path: StorePath) -> tuple[int, str | None] | None:
    """Return the size of an object and the digest in its metadata; None when there is none."""

    def head() -> tuple[int, str | None]:
        import obstore  # noqa: PLC0415  # an extra

        result = obstore.get(_reader(path), path.key, options={"head": True})
        return result.meta["size"], result.attributes.get(SHA256_FIELD)

    try:
        return _request(path, head)
    except FileNotFoundError:
        return None


def put(path: StorePath, data: bytes | memoryview, sha256: str, mode: Any) -> bool:
    """Write an object in one request; False where ``mode`` is ``create`` and there is one."""

    def write() -> bool:
        import obstore  # noqa: PLC0415  # an extra
        from obstore.exceptions import AlreadyExistsError  # noqa: PLC0415

        try:
            obstore.put(
                _writer(path, len(data)),
                path.key,
                data,
                attributes={SHA256_FIELD: sha256},
                mode=mode,
                use_multipart=False,
            )
        except AlreadyExistsError:
            return False
        return True

    first, long_ones = 0.0, 0
    while True:
        begun = time.monotonic()
        try:
            return _request(path, write)
        except StoreError as error:
            # obstore repeats no request of which a store may have got a part.
            now = time.monotonic()
            is_long = now - begun > PATIENCE + 2 * _CONNECT_SECONDS
            long_ones += is_long
            first = now if is_long else first or begun
            if error.errno != errno.EIO or now - first >= PATIENCE or long_ones >= _LONG_TRIES:
                raise
            time.sleep(_PAUSE)


def delete(path: StorePath) -> None:
    """Delete an object, if there is one."""

    def remove() -> None:
        import obstore  # noqa: PLC0415  # an extra

        obstore.delete(_reader(path), path.key)

    with suppress(FileNotFoundError):
        _request(path, remove)


def list_below(path: StorePath) -> Iterator[list[tuple[str, int]]]:
    """Yield the names below a folder and the sizes of its objects, a page at a time."""
    prefix = f"{path.key}/" if path.key else ""

    def begin() -> Iterator[Any]:
        import obstore  # noqa: PLC0415  # an extra

        return iter(obstore.list(_reader(path), prefix=prefix or None))

    pages = _request(path, begin)
    while (page := _request(path, lambda: next(pages, None))) is not None:
        yield [(each["path"].removeprefix(prefix), each["size"]) for each in page]


def names_in(path: StorePath) -> frozenset[str]:
    """Return the names in a folder: of its objects, and of the folders in it."""
    prefix = f"{path.key}/" if path.key else ""

    def names() -> frozenset[str]:
        import obstore  # noqa: PLC0415  # an extra

        found = obstore.list_with_delimiter(_reader(path), prefix=prefix or None)
        keys = [*(each["path"] for each in found["objects"]), *found["common_prefixes"]]
        return frozenset(key.removeprefix(prefix).strip("/") for key in keys)

    return _request(path, names)


def _request(path: StorePath, request: Callable[[], Result]) -> Result:
    """Return the result of a request; OSError about the path where it fails."""
    _used["process"] = _used["process"] or os.getpid()

    def translated() -> Result:
        with _translated(path):
            return request()

    if threading.current_thread() is not threading.main_thread():
        return translated()
    future: Future[Result] = Future()
    threading.Thread(target=_finish, args=(future, translated), daemon=True).start()
    if not wait((future,), _SECONDS_UNTIL_NOTE).done:
        _note_wait(path)
    return future.result()


def _note_wait(path: StorePath) -> None:
    """Say once per process and bucket what is waited for."""
    bucket = f"{path.scheme}://{path.bucket}"
    if bucket not in _waited_for:
        _waited_for.add(bucket)
        _log.warning(
            "note: still waiting for %s; a store that is away or busy is asked again for half a "
            "minute",
            path,
        )


def _finish(future: Future[Result], function: Callable[[], Result]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)


@contextmanager
def _translated(path: StorePath) -> Iterator[None]:
    """Turn obstore's errors into an OSError about a path; nothing of a request is in it."""
    try:
        yield
    except (_obstore_error(), FileNotFoundError) as error:
        raise as_os_error(error, path) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of the Rust libraries
            raise
        raise StoreError(errno.EIO, "a fault in the object store's client", str(path)) from None


def _obstore_error() -> type[Exception]:
    """Return the base of obstore's errors, beside which it raises FileNotFoundError."""
    from obstore.exceptions import BaseError  # noqa: PLC0415  # an extra

    return BaseError


def _reader(path: StorePath) -> ObjectStore:
    return _client(path, 0)


def _writer(path: StorePath, size: int) -> ObjectStore:
    """Return a client that waits for as long as writing so many bytes may take, in steps."""
    seconds = 60
    while size > seconds * _SLOWEST:
        seconds *= 2
    return _client(path, seconds)


def _client(path: StorePath, write_seconds: int) -> ObjectStore:
    """Return the client of a bucket: another one in a forked process, and with other settings."""
    settings = frozenset((k, v) for k, v in os.environ.items() if k.startswith(_SETTINGS))
    number = hash((os.getpid(), settings, PATIENCE))
    try:
        return _make_client(path.scheme, path.bucket, write_seconds, number)
    except (_obstore_error(), ValueError) as error:
        raise as_usage_error(error, path) from None


@lru_cache(maxsize=64)
def _make_client(scheme: str, bucket: str, write_seconds: int, _number: int) -> ObjectStore:
    """Return a new client; ``write_seconds`` is 0 for one that reads."""
    import obstore.store as stores  # noqa: PLC0415  # an extra

    kinds: Any = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}
    options: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
        "timeout": timedelta(seconds=write_seconds or 24 * 3600),
    }
    if not write_seconds:
        options["read_timeout"] = timedelta(seconds=_READ_SECONDS)
    if _check_settings():
        options["allow_http"] = True
    retries = {
        "max_retries": 1000,
        "retry_timeout": timedelta(seconds=PATIENCE),
        "backoff": {
            "init_backoff": timedelta(milliseconds=100),
            "max_backoff": timedelta(seconds=1),
            "base": 2,
        },
    }
    client: ObjectStore = kinds[scheme](bucket, client_options=options, retry_config=retries)
    return client


def _check_settings() -> bool:
    """Return whether an address in the environment is one without TLS.

    UsageError for settings that no request can be made of; their values may be secret.
    """
    is_plain = False
    for name, value in os.environ.items():
        if _ADDRESS.fullmatch(name) and value:
            if not _HTTP.fullmatch(value):
                raise UsageError(
                    f"{name}: expected the address of an object store, such as "
                    "http://127.0.0.1:9000, without user and query"
                )
            is_plain = is_plain or value.startswith("http://")
        if _SENT_AS_IT_IS.fullmatch(name) and not (value.isascii() and value.isprintable()):
            raise UsageError(
                f"{name}: expected characters of ASCII alone, found others, such as the end of a "
                "line; set it anew"
            )
    return is_plain
