"""The process that runs inputs: it may crash, hang, or be killed, and is then replaced."""

from __future__ import annotations

import faulthandler
import gc
import os
import resource
import shutil
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

MEMORY = 2 << 30
"""Bytes of memory that a process may use at most."""
_ADDRESSES = 4 << 30
"""Bytes of address space beyond those of a process that has loaded everything."""
SECONDS = 20.0
"""Most seconds that one input may take."""


@dataclass(frozen=True)
class Done:
    """What a worker reports of an input."""

    number: int
    kind: str
    verb: str
    state: str
    detail: str
    trace: str
    seconds: float
    memory: int
    """Most bytes that the process held."""


def serve(connection: Connection, sound: Path, folder: Path, seed: int) -> None:
    """Run the inputs whose numbers, or descriptions, come over a connection."""
    scratch = folder / "tmp"
    scratch.mkdir(parents=True)
    os.environ["TMPDIR"] = str(scratch)
    stacks = (folder / "stacks").open("w")
    faulthandler.enable(stacks)
    _load()
    from fuzz.inputs import Input, make_input  # noqa: PLC0415
    from fuzz.judge import judge  # noqa: PLC0415  # after the environment is set

    warnings.simplefilter("always")
    gc.collect()
    gc.freeze()
    _limit_addresses()
    connection.send(None)
    while (task := connection.recv()) is not None:
        made = task if isinstance(task, Input) else make_input(sound, seed, task)
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for left in scratch.iterdir():
            shutil.rmtree(left, ignore_errors=True)
            left.unlink(missing_ok=True)
        stacks.truncate(0)
        faulthandler.dump_traceback_later(SECONDS - 1, file=stacks)
        _reset_peak()
        started = time.perf_counter()
        verdict = judge(made, sound, work, scratch)
        seconds = time.perf_counter() - started
        faulthandler.cancel_dump_traceback_later()
        done = (made.number, made.kind, made.verb, verdict.state, verdict.detail, verdict.trace)
        connection.send(Done(*done, seconds=seconds, memory=_peak()))


def _load() -> None:
    """Load what verbs load when they need it, so that its memory and time count with none."""
    import h5py  # noqa: F401, PLC0415
    import matplotlib.pyplot  # noqa: F401, PLC0415
    import torch._dynamo  # noqa: PLC0415  # which the first step of an optimizer loads
    import torch.utils.tensorboard  # noqa: PLC0415
    import tqdm  # noqa: PLC0415

    import fuzz.judge  # noqa: F401, PLC0415

    tqdm.tqdm.set_lock(threading.RLock())  # its own is shared by processes, and would be left
    torch.set_num_threads(1)


def _limit_addresses() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Return the most bytes of memory since ``_reset_peak``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    return 0


def quiet_exit(connection: Connection, sound: Path, folder: Path, seed: int) -> None:
    """Serve until the other side is gone."""
    try:
        serve(connection, sound, folder, seed)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)
