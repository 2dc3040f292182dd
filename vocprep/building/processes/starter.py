"""The process that loads the libraries once, and is forked into the workers.

Forked processes share the memory of what was loaded, and none of them loads it again. Nothing has
been computed before: no thread of torch and no context of a GPU is there to be forked.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

from vocprep.building.processes.messages import Ended, Failed, Started, StarterMessage
from vocprep.memory import as_memory_error

LOWER_MEMORY = "use fewer --processes, --workers or --samples-per-shard, or free memory"


def start(control: int, workers: Sequence[int]) -> None:
    """Start a worker for each of these descriptors, and report on ``control`` how each ends."""
    build = Connection(control)
    try:
        from vocprep.building.processes.worker import work  # noqa: PLC0415  # loads torch
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        found = as_memory_error(error, LOWER_MEMORY) or RuntimeError(text)
        return _report(build, Failed(error=found))
    gc.collect()
    gc.freeze()  # collections in the workers would write to, and so copy, what they share
    pids = []
    for descriptor in workers:
        pid = os.fork()
        if pid == 0:
            for other in {control, *workers} - {descriptor}:
                os.close(other)  # or the end of a process would not close its connection
            work(descriptor)
        pids.append(pid)
    for descriptor in workers:
        os.close(descriptor)
    _report(build, Started(pids=tuple(pids)))
    for _ in pids:
        pid, status = os.wait()
        _report(build, Ended(pid=pid, status=os.waitstatus_to_exitcode(status)))
    return None


def _report(build: Connection, message: StarterMessage) -> None:
    with suppress(OSError):  # the process of the build has ended
        build.send(message)
