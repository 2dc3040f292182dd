"""The command line in a process that signals itself at its n-th import or access to files.

Run as ``python moments.py N SIGNAL WORDS...``; with N = 0 the number of moments is printed last.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

MOMENTS = ("import", "open", "os.rename", "os.remove", "os.mkdir", "os.listdir")


def main() -> None:
    """Run the command and send the signal, counting from when signals are handled."""
    at, number = int(sys.argv[1]), int(sys.argv[2])
    seen = 0

    def hook(event: str, _: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in MOMENTS and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            seen += 1
            if seen == at:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)
    if at == 0:
        atexit.register(lambda: print(seen))  # noqa: T201
    sys.argv = ["vocprep", *sys.argv[3:]]
    from vocprep.__main__ import main as program  # noqa: PLC0415  # its imports are moments too

    program()


def signalled(at: int, number: int, words: list[object]) -> subprocess.CompletedProcess[str]:
    """Run a command that gets the signal at a moment."""
    command = [sys.executable, str(Path(__file__)), str(at), str(int(number)), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


if __name__ == "__main__":
    main()
