"""torch.compile: whether it can work here, without its log, and its failures in one sentence."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vocprep.errors import UsageError

_NOISY_LOGGERS = ("torch.utils.cpp_extension", "torch._dynamo")
"""Their messages are about the machine and the compiled code."""


def can_compile() -> bool:
    """Return whether this machine has the C++ compiler that torch.compile needs."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def require_compiler() -> None:
    """Raise UsageError where ``can_compile`` is false."""
    if not can_compile():
        raise UsageError(
            "compiling needs a C++ compiler: found none of c++, g++, clang++; install one, or "
            "use --no-compile"
        )


def compiler_options() -> dict[str, Any]:
    """Return the options that all compiled code needs: the bits of a vector register here.

    torch keeps compiled code in a cache that may be older than the machine, or that several share,
    and whose keys hold no instruction set unless it is an option: code for shorter vectors, linked
    for longer ones, writes past the end of its arrays.
    """
    from torch._inductor.cpu_vec_isa import pick_vec_isa  # noqa: PLC0415  # takes a second

    return {"cpp.simdlen": pick_vec_isa().bit_width()}


@contextmanager
def compiling(what: str, *errors: type[Exception]) -> Iterator[None]:
    """Suppress the compiler's messages about this machine, which no user can act on.

    ``errors`` raised inside become a UsageError: "``what`` not compile: …".
    """
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in _NOISY_LOGGERS}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except errors as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # torch's first line may only name the part of it that raised the error in the second.
        reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
        raise UsageError(f"{what} not compile: {reason}; use --no-compile") from error
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
