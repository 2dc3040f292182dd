"""Errors of too little memory, whichever library raised them, as one sentence."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

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
_LOADING_ADVICE = "raise the address-space limit (ulimit -v), or free memory"


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Raise OutOfMemoryError, with what to lower, for an error of too little memory.

    >>> with memory_errors("use a smaller batch_size"):
    ...     raise MemoryError
    Traceback (most recent call last):
    ...
    vocprep.errors.OutOfMemoryError: the memory does not suffice; use a smaller batch_size
    """
    try:
        yield
    except Exception as error:
        found = as_memory_error(error, advice)
        if found is None or found is error:
            raise
        raise found from error


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
    return isinstance(error, MemoryError) or (isinstance(error, _TYPES) and bool(_telling(error)))


def _fitting(advice: str, error: BaseException) -> str:
    """Return the advice, another where it was a library that could not be loaded."""
    is_loading = isinstance(error, ImportError) or "failed to map segment" in str(error)
    return _LOADING_ADVICE if is_loading else advice


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
