"""Processes that begin with the package loaded: forked from one that has loaded it once.

To start Python and load torch takes seconds of a processor, which most tests of several processes
need not spend. Tests of start-up, of imports or of the environment of a process start one anew.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOADED = (
    "torch",
    "vocprep.building.local",
    "vocprep.heads.predict",
    "vocprep.heads.training.train",
    "vocprep.cli.build",
    "vocprep.cli.main",
    "vocprep.cli.train",
)


def forked(function: Callable[..., object], *arguments: Any) -> Any:
    """Return a process, not yet started, that calls a function of a module, in this environment."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(list(LOADED))
    return processes.Process(target=_call, args=(dict(os.environ), function, arguments))


def _call(
    environment: dict[str, str], function: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)


def end_all(children: Sequence[Any], seconds: float) -> list[int]:
    """Start processes, wait until they have ended, kill what has not; return their exit codes."""
    for child in children:
        child.start()
    for child in children:
        child.join(seconds)
        child.kill()
        child.join()
    return [child.exitcode for child in children]


@dataclass(frozen=True)
class Ended:
    """What a script left behind."""

    returncode: int
    stdout: str
    stderr: str


def run_script(
    path: Path, words: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Ended:
    """Run a file as ``python FILE WORDS`` does; its output is collected in a folder."""
    outputs = [str(folder / name) for name in ("stdout", "stderr")]
    child = forked(_run, str(path), list(words), outputs, dict(environment))
    (code,) = end_all([child], 300)
    return Ended(code, *(Path(output).read_text(encoding="utf-8") for output in outputs))


def _run(path: str, words: list[str], outputs: list[str], environment: dict[str, str]) -> None:
    for stream, output in enumerate(outputs, start=1):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.environ.update(environment)
    sys.argv = [path, *words]
    sys.path.insert(0, str(Path(path).parent))
    module = types.ModuleType("__main__")
    module.__file__ = path
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module  # the latter for its own children
    try:
        exec(compile(Path(path).read_bytes(), path, "exec"), module.__dict__)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
