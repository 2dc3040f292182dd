"""Damage every kind of file that the program reads, and see that it is refused or harmless.

python -m fuzz --seconds 600 --seed 7       as long as wanted
python -m fuzz --inputs 10000               or so many
python -m fuzz --kind hdf5 --kind mat       some kinds only
python -m fuzz --replay failures/x.json     one input again, with its whole traceback
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from fuzz import world
from fuzz.guard import Guard
from fuzz.inputs import Input, from_json, make_input, order, to_json
from fuzz.kinds import KINDS
from fuzz.table import Table
from fuzz.worker import Done

_PROGRESS_SECONDS = 60.0
_MOST_SAVED = 5
"""Failures that are saved of one kind, verb and message."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run inputs and print a table; return 1 when an input failed."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_scratch_folder()) as scratch:
        sound = Path(scratch) / "world"
        world.prepare(sound)
        with Guard(sound, Path(scratch), options.seed, options.workers) as guard:
            if options.replay:
                return _replay(options.replay, guard, sound)
            return fuzz(options, guard, sound)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, help="how long (default: 60, without --inputs)")
    parser.add_argument("--inputs", type=int, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same inputs")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    names = [kind.name for kind in KINDS]
    parser.add_argument("--kind", action="append", choices=names, help="this kind only; repeatable")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="folder")
    parser.add_argument("--replay", type=Path, nargs="+", help="files of that folder")
    return parser.parse_args(arguments)


def _scratch_folder() -> str | None:
    """Return a folder in memory, where there is one: much is written and deleted."""
    shared = Path("/dev/shm")
    return str(shared) if os.access(shared, os.W_OK) else None


def fuzz(options: argparse.Namespace, guard: Guard, sound: Path) -> int:
    """Run inputs, save those that fail, and print the table."""
    started = time.monotonic()
    seconds = options.seconds or (float("inf") if options.inputs else 60.0)
    table, saved = Table(), dict[str, int]()
    numbers = _numbers(options)
    told = started
    for done in guard.run(numbers, lambda: time.monotonic() - started > seconds):
        table.add(done)
        if time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            print(f"{table.inputs:,} inputs, {table.failures:,} failed", file=sys.stderr)
        if done.state == "failure":
            path = _save(
                options.failures, make_input(sound, options.seed, done.number), sound, done, saved
            )
            place = f"  python -m fuzz --replay {path}\n" if path else ""
            print(f"{done.kind}, {done.verb}: {done.detail[:300]}\n{place}", end="", flush=True)
    print(table.text(time.monotonic() - started))
    return 1 if table.failures else 0


def _numbers(options: argparse.Namespace) -> Iterator[int]:
    """Yield the numbers of the inputs: of the kinds that were asked for."""
    kinds = order(options.seed)
    chosen = (
        number
        for number in itertools.count(options.first)
        if not options.kind or kinds[number % len(kinds)].name in options.kind
    )
    return itertools.islice(chosen, options.inputs)


def _save(folder: Path, made: Input, sound: Path, done: Done, saved: dict[str, int]) -> Path | None:
    """Write a failing input into a file; None where there are several like it."""
    alike = f"{made.kind}/{made.verb}/{done.detail[:40]}"
    saved[alike] = saved.get(alike, 0) + 1
    if saved[alike] > _MOST_SAVED:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{made.kind}-{made.verb}-{made.seed}-{made.number}.json".replace(" ", "_")
    about = {"detail": done.detail, "trace": done.trace}
    path.write_text(json.dumps({"input": to_json(made, sound), **about}, indent=1))
    return path


def _replay(paths: Sequence[Path], guard: Guard, sound: Path) -> int:
    """Run saved inputs again and print what becomes of each."""
    tasks = [from_json(json.loads(path.read_text())["input"], sound) for path in paths]
    names = {(task.seed, task.number): path for task, path in zip(tasks, paths, strict=True)}
    failed = 0
    for done in guard.run(iter(tasks)):
        path = next(p for (_, number), p in names.items() if number == done.number)
        failed += done.state == "failure"
        print(f"{path}: {done.kind}, {done.verb}: {done.state}: {done.detail}\n{done.trace}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
