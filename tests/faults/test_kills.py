"""Killed at any moment, every command is run again to the same bytes and leaves nothing behind."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.disk_faults import disk_faults
from builders.processes import forked
from builders.verbs import JOBS, World, contents, invoke, make_world

from vocprep.cli.main import main

QUICK = ("sample", "decode again", "download", "build over another version", "inspect --lock")
"""What the short form kills, once each."""
PARTIAL = (".part", ".part.json", ".new", "metrics.jsonl", "model.safetensors", "curves.png")
"""Files that hold what is done so far, by their nature."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("world")) as made:
        yield made


def run_in_child(words: list[str], folder: str, nth: int) -> None:
    """Run a command, killed before its nth call that changes the folder, unless that is 0."""
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    with disk_faults(Path(folder), nth, kill=True):
        main(words)


def assert_survives_kills(
    name: str, world: World, folder: Path, kills: int, draw: random.Random
) -> int:
    """Kill a command at random moments, and run it again after each; return how many hit.

    Every other moment is a call that changes the disk, the others are times.
    """
    job = JOBS[name]
    words = [str(word) for word in job.words(world, folder)]
    folder.mkdir()
    job.prepare(world, folder)
    before, started = contents(folder), time.monotonic()
    with disk_faults(folder) as counted:
        assert invoke(*words).exit_code == 0
    longest, expected = time.monotonic() - started, contents(folder)
    shutil.rmtree(folder)
    hit = 0
    for number in range(kills):
        by_time = number % 2 or not counted.calls
        folder.mkdir()
        job.prepare(world, folder)
        nth = 0 if by_time else draw.randint(1, len(counted.calls))
        child = forked(run_in_child, words, str(folder), nth)
        child.start()
        child.join(draw.uniform(0, longest) if by_time else None)
        child.kill()
        child.join()
        hit += child.exitcode == -signal.SIGKILL
        for path, data in contents(folder).items():
            if ".tmp-" not in path and not path.endswith(PARTIAL):
                assert data in (before.get(path), expected.get(path)), (name, nth, path)
        again = invoke(*words)
        assert again.exit_code == 0, (name, nth, again.output)
        assert contents(folder) == expected, (name, nth)
        left = [path for path in folder.rglob("*") if ".tmp-" in path.name]
        assert not left, (name, nth)
        shutil.rmtree(folder)
    return hit


def run_with_limit(words: list[str], errors: str, limit: int) -> None:
    """Run a command for which no file may grow beyond so many bytes, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT, 0o644), 2)
    main(words)


LIMITED = [name for name in JOBS if name not in ("verify", "download", "inspect --lock")]
"""Of the others no file is large enough."""


@pytest.mark.torture
@pytest.mark.parametrize("name", LIMITED)
def test_files_that_cannot_grow_end_in_one_sentence(
    name: str, world: World, tmp_path: Path
) -> None:
    """The system refuses to write on, which other libraries see as well."""
    job, folder = JOBS[name], tmp_path / "out"
    words = [str(word) for word in job.words(world, folder)]
    folder.mkdir()
    job.prepare(world, folder)
    before = contents(folder)
    largest = max([1000, *(len(data) for data in contents(tmp_path).values())])
    for limit in (512, 4096, largest // 2):
        errors = tmp_path / f"errors{limit}"
        child = forked(run_with_limit, words, str(errors), limit)
        child.start()
        child.join()
        lines = errors.read_text().splitlines()
        if child.exitcode:
            assert child.exitcode in (2, 3), lines
            assert sum(line.startswith("error: ") for line in lines) == 1, lines
        assert not any("Traceback" in line for line in lines)
        found = contents(folder)
        assert {name: found[name] for name in before} == before or child.exitcode == 0
    again = invoke(*words)
    assert again.exit_code == 0, again.output
    assert not [path for path in folder.rglob("*") if ".tmp-" in path.name]


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_kill(name: str, world: World, tmp_path: Path) -> None:
    draw = random.Random(name)
    assert assert_survives_kills(name, world, tmp_path / "out", 1, draw) == 1


@pytest.mark.torture
@pytest.mark.parametrize("name", JOBS)
def test_nine_kills(
    name: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of each of the twelve commands: more than a hundred."""
    hit = assert_survives_kills(name, world, tmp_path / "out", 9, random.Random(name))
    with capsys.disabled():
        print(f"\n{name}: {hit} of 9 killed")  # noqa: T201  # for who runs the long form
