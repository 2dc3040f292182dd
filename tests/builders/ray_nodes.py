"""A Ray cluster of two nodes, each of them like a machine: its own host name and processes.

They live in network and process namespaces of their own, where every address is this machine's: Ray
listens on the address that leads outward, and has processes that outlive others.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PORT = 6399
ADDRESS = f"127.0.0.1:{PORT}"
HOSTS = {"first": "127.0.0.1", "second": "127.0.0.2"}
STARTS, RUNS = 90.0, 180.0
"""Seconds that a node may take to start, and a command to run, on a busy machine."""
RAY = Path(sys.executable).with_name("ray")
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    # A node that is lost is found to be within two seconds.
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}
NODE = ("--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats", "--block")


def why_not() -> str | None:
    """Return why this machine lets nobody make namespaces; None where it does."""
    made = subprocess.run(
        ["unshare", *_namespaces(), "true"], capture_output=True, text=True, check=False
    )
    return None if made.returncode == 0 else made.stderr.strip() or "unshare failed"


class RayNodes:
    """Two nodes, "first" with the head and "second"; commands can be run beside them."""

    def __init__(self, folder: Path, hidden: Path) -> None:
        self.folder = folder
        """Of a short path, for sockets."""
        self._hidden = hidden
        """A folder that is empty on the second node."""
        self._nodes: dict[str, subprocess.Popen[str]] = {}
        self._holder = subprocess.Popen(
            ["unshare", *_namespaces(), sys.executable, __file__],
            stdin=subprocess.PIPE,  # whose end is the end of everything in the namespaces
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        (self._init,) = children(self._holder.pid)

    def start(self, name: str) -> None:
        """Start a node that is not there, and wait until it is part of the cluster."""
        if name in self._nodes:
            return
        head = f"--head --port={PORT} --temp-dir={self.folder / 'ray'} --include-dashboard=false"
        join = head if name == "first" else f"--address={ADDRESS}"
        hide = f"mount -t tmpfs none '{self._hidden}' &&" if name == "second" else ""
        log = self.folder / f"{name}.log"
        script = (
            f"hostname {name} && {hide} exec '{sys.executable}' '{RAY}' start {join} "
            f"--node-ip-address={HOSTS[name]} {' '.join(NODE)} > '{log}' 2>&1"
        )
        machine = ("unshare", "--uts", "--mount-proc", "--pid", "--fork", "--kill-child")
        self._nodes[name] = self.popen([*machine, "sh", "-c", script])
        wait_for(lambda: log.exists() and "Ray runtime started" in log.read_text(), STARTS)

    def lose(self, name: str) -> None:
        """End all processes of a node at once, as when a machine loses its power."""
        kill(self._nodes.pop(name))

    def popen(self, words: Sequence[object], **environment: str) -> subprocess.Popen[str]:
        """Start a command in the namespaces."""
        enter = ["nsenter", "--target", str(self._init), "--net", "--pid", "--mount"]
        if os.geteuid() != 0:
            enter += ["--user", "--preserve-credentials"]
        return subprocess.Popen(
            [*enter, *map(str, words)],
            env={**os.environ, **ENVIRONMENT, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def vocprep(self, words: Sequence[object], **environment: str) -> subprocess.Popen[str]:
        """Start the program in the namespaces."""
        return self.popen([sys.executable, "-m", "vocprep", *words], **environment)

    def works(self, name: str) -> bool:
        """Return whether a task is running on a node."""
        return any("ray::build_on_node" in command(pid) for pid in tree(self._nodes[name].pid))

    def processes(self) -> set[int]:
        """Return the ids of all processes in the namespaces, except those that have ended."""
        return {pid for pid in tree(self._init) if command(pid)}

    def close(self) -> None:
        """End everything in the namespaces."""
        self._holder.communicate()  # closes its input
        for node in self._nodes.values():
            node.communicate()


def _namespaces() -> list[str]:
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [*as_root, "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]


def command_of(started: subprocess.Popen[str]) -> int:
    """Return the process id of a command that was started in the namespaces."""
    wait_for(lambda: children(started.pid), 10)
    return children(started.pid)[0]


def children(pid: int) -> list[int]:
    """Return the ids of a process's children."""
    return [int(word) for word in _proc(f"{pid}/task/{pid}/children").split()]


def tree(pid: int) -> list[int]:
    """Return the ids of a process and of all that descend from it, parents first."""
    pids = [pid]
    for parent in pids:
        pids += children(parent)
    return pids


def command(pid: int) -> str:
    """Return a process's command line, which it may have set itself; empty when it has ended."""
    return _proc(f"{pid}/cmdline")


def _proc(name: str) -> str:
    try:
        return Path("/proc", name).read_text()
    except OSError:
        return ""


def kill(started: subprocess.Popen[str]) -> None:
    """Kill a process and all that descend from it."""
    for pid in reversed(tree(started.pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    started.communicate()


def wait_for(is_so: Callable[[], object], seconds: float) -> None:
    """Wait until something is so."""
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends, f"not so within {seconds} s"
        time.sleep(0.05)


@contextmanager
def ray_nodes(hidden: Path) -> Iterator[RayNodes]:
    """Run the two nodes; ``hidden`` is a folder that the second does not see."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: it holds sockets
    nodes = RayNodes(folder, hidden)
    try:
        nodes.start("first")
        nodes.start("second")
        yield nodes
    finally:
        nodes.close()
        shutil.rmtree(folder)


def _hold() -> None:
    """Be the first process of the namespaces: switch the loopback interface on, and wait."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        read, write, up = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
        name = b"lo"
        answer = fcntl.ioctl(any_socket, read, struct.pack("16sH14x", name, 0))
        (flags,) = struct.unpack("16xH14x", answer)
        fcntl.ioctl(any_socket, write, struct.pack("16sH14x", name, flags | up))
    print("ready", flush=True)  # noqa: T201  # for RayNodes
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody else waits for lost processes
    sys.stdin.read()


if __name__ == "__main__":
    _hold()
