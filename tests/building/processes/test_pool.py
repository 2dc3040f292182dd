"""Workers that are lost, that fail, and that must not outlive the process of their build."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import scripted_worker
from builders.pids import are_gone

from vocprep.building.processes import pool as module
from vocprep.building.processes.messages import Job, Progressed
from vocprep.building.processes.pool import WorkerPool
from vocprep.errors import ClusterError, DataError

NOTHING: Any = None
JOBS = [Job(order=NOTHING, setup=NOTHING)] * 2
SHARDS: list[Any] = [SimpleNamespace(name=f"train-0000{number}.h5") for number in range(2)]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that says what workers do after their first claim and report."""
    monkeypatch.setattr(module, "SOURCE", scripted_worker.SOURCE)
    return lambda text: monkeypatch.setenv(scripted_worker.VARIABLE, text)


def reports() -> Iterator[object]:
    with WorkerPool(JOBS) as pool:
        yield from pool.make(SHARDS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "killed",
            r"^process [12] of 2 \(pid \d+\) was killed by signal 9 while it made "
            r"train-0000[01]\.h5; as systems do when memory runs out: use fewer --processes or "
            r"--samples-per-shard, and run the same command again: finished shards are kept$",
        ),
        (
            "exits",
            r"^process [12] of 2 \(pid \d+\) ended with exit code 7 while it made "
            r"train-0000[01]\.h5; see with --processes 1 whether an image does it, and run the "
            r"same command again: finished shards are kept$",
        ),
        (
            "no start",
            r"^the process that starts --processes 2 was killed by signal 9; use fewer, and run "
            r"the same command again: finished shards are kept$",
        ),
    ],
)
def test_lost_process_is_one_sentence(text: str, expected: str, script: Any) -> None:
    script(text)
    with pytest.raises(ClusterError, match=expected):
        list(reports())


def test_error_of_a_worker_is_that_of_the_build(script: Any) -> None:
    script("fails")
    with pytest.raises(DataError, match=r"^a\.jpg: damaged$"):
        list(reports())


@pytest.mark.slow
@pytest.mark.parametrize("text", ["waits", "hangs"])
def test_no_worker_is_left_when_the_build_ends(
    text: str, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.2)
    script(f"{text} {tmp_path}")
    seen = reports()
    assert [next(seen), next(seen)] == [Progressed(images=1, quarantined=())] * 2
    pids = started(tmp_path)
    seen.close()  # type: ignore[attr-defined]  # what an exception or Ctrl-C comes to
    assert are_gone(pids)


def test_no_worker_outlives_a_killed_build(script: Any, tmp_path: Path) -> None:
    script(f"waits {tmp_path}")
    path = [str(Path(__file__).parents[2]), *sys.path]
    code = (
        f"import sys; sys.path[:] = {path!r}; from building.processes import test_pool as test; "
        "test.module.SOURCE = test.scripted_worker.SOURCE; print(list(test.reports()))"
    )
    build = subprocess.Popen([sys.executable, "-c", code])
    pids = started(tmp_path)
    build.send_signal(signal.SIGKILL)
    build.wait()
    assert are_gone(pids)


def started(folder: Path) -> list[int]:
    """The workers, once both have begun to follow their script."""
    while len(found := [int(path.name) for path in folder.iterdir()]) < len(JOBS):
        time.sleep(0.02)
    return found
