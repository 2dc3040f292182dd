"""The scripts of docs/guides/cluster.md call the parts of a build, and then publish it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from vocprep.cli.main import PROGRAM, main
from vocprep.options import Part

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "cluster.md"
VOCPREP = """#!/bin/bash
printf '%s\\t' "$OMP_NUM_THREADS" "$@" >> "$CALLS.$$"
echo >> "$CALLS.$$"
cat "$CALLS.$$" >> "$CALLS"
"""


def script(name: str) -> str:
    """A block of the guide by the name in its first comments."""
    blocks = re.findall(r"```(?:bash|yaml|python)\n(.*?)```", GUIDE.read_text("utf-8"), re.S)
    (block,) = [block for block in blocks if re.search(rf"^# {re.escape(name)}\b", block, re.M)]
    return block


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a ``vocprep`` that only writes down its words does so: its threads, and the words."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"vocprep": VOCPREP, "srun": '#!/bin/bash\nexec "$@"\n'}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def run(text: str, **variables: str) -> None:
    subprocess.run(["bash", "-c", text], env={**os.environ, **variables}, check=True, timeout=60)


def parts_called(calls: Path) -> list[Part | None]:
    """The part of each call, in order; all calls are alike but for it, and parse."""
    lines = [line.rstrip("\t\n").split("\t") for line in calls.read_text().splitlines()]
    others = set()
    found: list[Part | None] = []
    for threads, *words in lines:
        assert threads.isdigit()
        command = main.commands[words[0]].make_context(f"{PROGRAM} {words[0]}", list(words[1:]))
        values = dict(command.params)
        found.append(values.pop("part"))
        del values["workers"]
        others.add(str(sorted(values.items())))
    assert len(others) == 1
    return found


def parts(count: int) -> set[Part | None]:
    return {Part(number=number, count=count) for number in range(count)}


def test_the_array_of_slurm_makes_all_parts_and_its_last_job_publishes(calls: Path) -> None:
    text = script("parts.sbatch")
    first, last = (int(end) for end in re.findall(r"--array=(\d+)-(\d+)", text)[0])
    cores = re.findall(r"--cpus-per-task=(\d+)", text)[0]
    for task in range(first, last + 1):
        run(text, SLURM_ARRAY_TASK_ID=str(task), SLURM_CPUS_PER_TASK=cores)
    run(script("publish.sbatch"), SLURM_CPUS_PER_TASK=cores)
    *made, published = parts_called(calls)
    assert (len(made), set(made), published) == (8, parts(8), None)


def test_the_pods_of_kubernetes_make_all_parts(calls: Path) -> None:
    text = script("parts.yaml")
    (count,) = (int(number) for number in re.findall(r"completions: (\d+)", text))
    (body,) = re.findall(r"- (exec vocprep .*)", text)
    threads = re.findall(r'OMP_NUM_THREADS, value: "(\d+)"', text)[0]
    for index in range(count):
        run(body, JOB_COMPLETION_INDEX=str(index), OMP_NUM_THREADS=threads)
    run(body.replace(' --part "$JOB_COMPLETION_INDEX/8"', ""), OMP_NUM_THREADS=threads)
    *made, published = parts_called(calls)
    assert (len(made), set(made), published) == (count, parts(count), None)
