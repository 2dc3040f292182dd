"""Memory: how much there is, and errors of too little of it, whichever library raised them."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vocprep.errors import OutOfMemoryError
from vocprep.validation import printable

_TEXTS = (
    *("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory"),
    *("std::bad_alloc", "can't start new thread", "failed to map segment", "alloc_failed"),
    *("terminated abruptly", "killed by signal: killed", "memory allocation"),
)
"""In messages, lower case, of torch, CUDA, Python's threads and pools, the dynamic loader."""
_TYPES = (RuntimeError, ImportError, SystemError, OSError)
_LONGEST_DETAIL = 120
_LIMIT_ADVICE = "raise the address-space limit (ulimit -v), or"
_USED_UP = 0.9
"""Share of the address space from which libraries fail in words that do not tell why."""
LEAST_ADDRESS_SPACE = 256 << 20
"""Bytes of it with less of which torch's threads may hang or crash, and no training ended well."""


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Raise OutOfMemoryError, with what to lower, for an error of too little memory.

    At once where less address space is left than ``LEAST_ADDRESS_SPACE``.

    >>> with memory_errors("use a smaller batch_size"):
    ...     raise MemoryError
    Traceback (most recent call last):
    ...
    vocprep.errors.OutOfMemoryError: the memory does not suffice; use a smaller batch_size
    """
    require_address_space(advice)
    try:
        yield
    except Exception as error:
        found = as_memory_error(error, advice)
        if found is None or found is error:
            raise
        raise found from error


def require_address_space(advice: str) -> None:
    """Raise OutOfMemoryError where a limit (``ulimit -v``) leaves too little for torch to fail."""
    used, limit = _address_space()
    if limit is not None and limit - used < LEAST_ADDRESS_SPACE:
        raise OutOfMemoryError(
            f"the memory does not suffice ({max(0, limit - used) >> 20} MB are left of the address "
            f"space, expected {LEAST_ADDRESS_SPACE >> 20} MB at least); {_LIMIT_ADVICE} {advice}"
        )


def as_memory_error(error: BaseException, advice: str) -> OutOfMemoryError | None:
    """Return an error of too little memory, or one that was caused by it, as OutOfMemoryError."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OutOfMemoryError):
            return cause
        if _is_shortage(cause):
            return OutOfMemoryError(f"{_shortage(cause)}; {_fitting(advice, cause)}")
        cause = cause.__cause__
    return None


def _is_shortage(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    if isinstance(error, ModuleNotFoundError) or not isinstance(error, (MemoryError, *_TYPES)):
        return False
    return isinstance(error, MemoryError) or bool(_telling(error)) or _is_address_space_used_up()


def _is_address_space_used_up() -> bool:
    """Return whether this process has nearly all of a limited address space (``ulimit -v``)."""
    used, limit = _address_space()
    return limit is not None and used >= _USED_UP * limit


def _address_space() -> tuple[int, int | None]:
    """Return how many bytes of address space this process uses, and its limit, None without one."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return 0, None
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, MemoryError):
        return 0, None
    return pages * os.sysconf("SC_PAGE_SIZE"), limit


def _fitting(advice: str, error: BaseException) -> str:
    """Return the advice, with another where a library could not be loaded or there is a limit."""
    if isinstance(error, ImportError) or "failed to map segment" in str(error):
        return f"{_LIMIT_ADVICE} free memory"
    return f"{_LIMIT_ADVICE} {advice}" if _is_address_space_used_up() else advice


def _telling(error: BaseException) -> list[str]:
    """Return the lines of a message that speak of memory."""
    lines = str(error).splitlines()
    return [line for line in lines if any(words in line.lower() for words in _TEXTS)]


def _shortage(error: BaseException) -> str:
    line = printable(" ".join([*_telling(error), *str(error).splitlines()][:1]).strip())
    place = "GPU's memory" if "CUDA" in line else "memory"
    if not line:
        return f"the {place} does not suffice"
    detail = line if len(line) <= _LONGEST_DETAIL else f"{line[:_LONGEST_DETAIL]}…"
    return f"the {place} does not suffice ({detail})"


def available_memory() -> int | None:
    """Return how many bytes this process and those that it starts can have; None if not known."""
    found = [_meminfo("MemAvailable"), _left_of_group()]
    known = [size for size in found if size is not None]
    return min(known, default=None)


def _meminfo(name: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    except (OSError, ValueError, StopIteration):
        return None


def _left_of_group() -> int | None:
    """Return what the control group of this process, as containers have one, has left."""
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        own = next(line.removeprefix("0::/") for line in groups if line.startswith("0::/"))
        folder = Path("/sys/fs/cgroup") / own
        most, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError, StopIteration):  # "max": no limit
        return None
    return max(0, most - used)
