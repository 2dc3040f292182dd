"""Workers of the fuzzer that do what a damaged file may make a process do."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

from fuzz.worker import Done


def faulty(connection: Connection, sound: Path, folder: Path, seed: int) -> None:
    """Serve inputs by their numbers: 1 hangs, 2 crashes, 3 takes much memory, others are well."""
    del sound, seed
    folder.mkdir(parents=True)
    (folder / "stacks").write_text("where it was\n")
    connection.send(None)
    while True:
        number = connection.recv()
        if number == 1:
            time.sleep(600)
        if number == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        memory = (3 << 30) if number == 3 else 0
        connection.send(Done(number, "hdf5", "read h5", "refused", "", "", 0.0, memory))
