"""A worker that does what a script says, in the place of one that makes shards: it loads no torch.

``SOURCE`` lets ``vocprep.building.processes.pool`` start it, with the script in ``VARIABLE``.
"""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from vocprep.building.processes.messages import Claim, Failed, Progressed
from vocprep.errors import DataError

VARIABLE = "VOCPREP_SCRIPTED_WORKER"
SOURCE = (
    "import sys; sys.path[:] = {path!r}; from builders import scripted_worker as worker; "
    "sys.modules['vocprep.building.processes.worker'] = worker; worker.before_start(); "
    "from vocprep.building.processes.starter import start; start({control}, {workers})"
)


def before_start() -> None:
    """End the starter where the script says so."""
    if os.environ[VARIABLE] == "no start":
        os.kill(os.getpid(), signal.SIGKILL)


def work(descriptor: int) -> NoReturn:
    """Receive the job, claim a shard, report a picture, and then follow the script."""
    script, _, folder = os.environ[VARIABLE].partition(" ")
    build = Connection(descriptor)
    build.recv_bytes()
    build.send(Claim())
    build.recv_bytes()
    build.send(Progressed(images=1, quarantined=()))
    if folder:
        (Path(folder) / str(os.getpid())).touch()
    match script:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exits":
            os._exit(7)
        case "hangs":
            time.sleep(600)
        case "fails":
            build.send(Failed(error=DataError("a.jpg: damaged")))
    build.recv_bytes()  # until the process of the build has ended
    os._exit(1)
