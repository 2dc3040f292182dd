"""Running one input, and what must hold whatever it holds.

Only the program's own errors, as one printable line; no warning, no output beside the program's;
nothing left behind; nothing changed but what the verb writes.
"""

from __future__ import annotations

import gc
import io
import os
import random
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fuzz import world
from fuzz.damage.places import put, put_bytes
from fuzz.inputs import Input
from fuzz.verbs import VERBS, BrokenPromise, Job
from vocprep.errors import VocprepError
from vocprep.files.names import TEMPORARY_PREFIX

LONGEST_MESSAGE = 1500
"""Letters of an error message."""
_STAGING = f"{TEMPORARY_PREFIX}build"
_OF_UNFINISHED_BUILDS = {".lock", _STAGING}
_LIBRARY_OUTPUT = "output of a library"
_READS_TIFF = "predict"
"""libtiff writes what it finds wrong to the standard error output, which cannot be turned off."""
Facts = dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Verdict:
    """What became of an input."""

    state: str
    """``refused``, ``found`` (a check that ran to its end), ``harmless`` or ``failure``."""
    detail: str = ""
    """The message, or what is wrong."""
    trace: str = ""


def judge(made: Input, sound: Path, folder: Path, scratch: Path) -> Verdict:
    """Lay out an input in an empty folder, run its verb there, and judge what happened.

    ``scratch`` is the empty folder of the process's temporary files.
    """
    verb = VERBS[made.verb]
    entries = dict.fromkeys([*verb.needs, *(name.partition("/")[0] for name in made.changes)])
    world.copy(sound, folder, list(entries), verb.writes)
    for name, content in made.changes.items():
        if isinstance(content, str):
            put(folder / name, content)
        else:
            put_bytes(folder / name, content)
    draw = random.Random(f"{made.seed}/{made.number}/verb")
    job = Job(sound, draw, made.changes, sealed=made.sealed)
    before = _facts(folder)
    with chdir(folder), _watched() as seen:
        verdict = _run(made, job)
        gc.collect()
    if made.verb == _READS_TIFF:
        seen = [problem for problem in seen if not problem.startswith(_LIBRARY_OUTPUT)]
    if verdict.state == "failure":
        return verdict
    problems = [*seen, *_left_behind(folder, before, made, verdict)]
    problems += [f"{path.name} was left among temporary files" for path in scratch.iterdir()]
    if problems:
        return Verdict("failure", f"{problems[0]} (after: {verdict.detail})"[:3000], verdict.trace)
    return verdict


def _run(made: Input, job: Job) -> Verdict:
    try:
        done = VERBS[made.verb].act(job)
    except VocprepError as error:
        problem = message_problem(str(error)) or _memory_problem(str(error))
        state = "refused" if problem is None else "failure"
        detail = str(error) if problem is None else f"{problem}: {str(error)[:2000]!r}"
        return Verdict(state, detail)
    except click.ClickException as error:
        return Verdict("failure", f"the command line refuses: {error.format_message()}")
    except BrokenPromise as error:
        return Verdict("failure", f"broken promise: {error}")
    except BaseException as error:  # whatever it is, it is the finding
        detail = f"{type(error).__name__}: {str(error)[:1000]}"
        return Verdict("failure", detail, traceback.format_exc(limit=-25)[-6000:])
    return Verdict("harmless" if done else "found")


def message_problem(text: str) -> str | None:
    """Return what is wrong with an error message; None for one printable line.

    Of several files that failed, each has a line of its own below the first, indented.
    """
    lines = text.split("\n  ")
    for line in lines:
        if not line.strip():
            return "an empty message"
        if len(line) > LONGEST_MESSAGE:
            return f"a message of {len(line)} letters"
        odd = [char for char in line if not char.isprintable()]
        if odd:
            return f"a message with {odd[0]!r} in it"
    return None if len(lines) == 1 or lines[0].endswith(":") else "a message of several lines"


def _memory_problem(text: str) -> str | None:
    """Return what is wrong with advice about memory, which no small file deserves."""
    return "memory is said not to suffice" if "memory does not suffice" in text else None


@contextmanager
def _watched() -> Iterator[list[str]]:
    """Yield a list of what reached the user beside the result: warnings, and output that is none.

    Output goes to streams with an encoding, as that of a terminal or a file does.
    """
    seen: list[str] = []
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    hooks = (warnings.showwarning, sys.unraisablehook, threading.excepthook)

    def warn(message: object, category: type, filename: str, line: int, *_: Any) -> None:
        seen.append(f"warning: {category.__name__}: {message} ({filename}:{line})")

    def lost(args: Any) -> None:
        seen.append(f"lost exception: {args.exc_type.__name__}: {args.exc_value}")

    with _captured_descriptors() as size_of:
        warnings.showwarning, sys.unraisablehook, threading.excepthook = warn, lost, lost
        try:
            with redirect_stdout(out), redirect_stderr(err):
                yield seen
        finally:
            warnings.showwarning, sys.unraisablehook, threading.excepthook = hooks
        text = size_of()
    if text:
        seen.append(f"{_LIBRARY_OUTPUT}: {text[:300]!r}")
    for stream in (out, err):
        stream.flush()
        shown = stream.buffer.getvalue().decode()  # type: ignore[attr-defined]  # a BytesIO
        odd = [char for char in shown if not char.isprintable() and char != "\n"]
        if odd:
            seen.append(f"output with {odd[0]!r} in it")


@contextmanager
def _captured_descriptors() -> Iterator[Any]:
    """Send what libraries write past Python to a file; yield a function that returns it."""
    kept = [(number, os.dup(number)) for number in (1, 2)]
    file = os.memfd_create("output")
    try:
        for number, _ in kept:
            os.dup2(file, number)
        yield lambda: os.pread(file, 1000, 0).decode(errors="replace")
    finally:
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)
        os.close(file)


def _facts(folder: Path, below: str = "") -> Facts:
    """Return size, time of change and identity of everything below a folder."""
    found: Facts = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            name = below + entry.name
            if entry.is_dir(follow_symlinks=False):
                found[name] = (0, 0, 0)
                found |= _facts(Path(entry.path), f"{name}/")
            else:
                about = entry.stat(follow_symlinks=False)
                found[name] = (about.st_size, about.st_mtime_ns, about.st_ino)
    return found


def _left_behind(folder: Path, before: Facts, made: Input, verdict: Verdict) -> Iterator[str]:
    """Yield what the verb changed or left that it must not."""
    writes = VERBS[made.verb].writes
    after = _facts(folder)
    for name in sorted(before.keys() | after.keys()):
        top, last = name.partition("/")[0], name.rpartition("/")[2]
        if before.get(name) == after.get(name):
            continue
        if top not in writes:
            yield f"{name} was changed by a verb that does not write it"
        is_temporary = last.startswith(TEMPORARY_PREFIX) or last.endswith((".new", ".tmp"))
        if name in after and name not in before and is_temporary and last != _STAGING:
            yield f"{name} was left behind"
    is_build = "out" in writes and verdict.state == "refused" and (folder / "out").is_dir()
    if is_build and not {path.name for path in (folder / "out").iterdir()} <= _OF_UNFINISHED_BUILDS:
        yield "a build that failed left files under their final names"
