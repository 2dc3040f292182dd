"""Doing work ahead of the consumer, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from vocprep.errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 4
"""Results that each worker may have waiting for the consumer."""


def map_ordered(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield ``function(item)`` for each item, in order, computed by threads ahead of the consumer.

    Decoders and compressors release the interpreter, so threads serve them well. The first
    exception ends it, in the place where its item stands; what was not begun is dropped.
    """
    if workers < 1:
        raise UsageError(f"workers {workers}: expected 1 or more")
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="vocprep") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > AHEAD * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
