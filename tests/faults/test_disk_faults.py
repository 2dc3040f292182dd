"""One call of the disk fails: one sentence, nothing half-written, and the next run makes it good.

Every command that writes is run once for each call that changes a file below its output folder:
opening for writing, writing, flushing, renaming, linking, deleting, making and deleting folders.
That call fails, once, with what a full disk, a broken one or a folder of somebody else gives.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.disk_faults import disk_faults
from builders.verbs import JOBS, Job, World, contents, invoke, make_world

WRITING = [name for name in JOBS if name != "verify"]
PARTIAL = (".part", ".part.json", ".part.json.new", "metrics.jsonl")
"""Files that hold what is done so far, by their nature."""
POINTS = {"predict": 1, "evaluate": 1, "train": 1}
"""How many points of a slow command the short form tries."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(autouse=True)
def _quick_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings that cost nothing: the disk is what is tried."""

    def embed(_embedder: Any, images: list[Any]) -> list[Any]:
        return [
            np.full((image.shape[0] // 32 * (image.shape[1] // 32), 256), image.mean(), np.float32)
            for image in images
        ]

    monkeypatch.setattr("vocprep.features.embed.Embedder.embed_images", embed)


def prepared(job: Job, world: World, folder: Path) -> Path:
    folder.mkdir()
    job.prepare(world, folder)
    return folder


def count_points(job: Job, world: World, folder: Path) -> tuple[int, dict[str, bytes]]:
    """Return how many calls a command makes, and what it leaves when none of them fails."""
    prepared(job, world, folder)
    with disk_faults(folder) as faults:
        result = invoke(*job.words(world, folder))
    assert result.exit_code == 0, result.output
    expected = contents(folder)
    shutil.rmtree(folder)
    return len(faults.calls), expected


def assert_survives(
    job: Job, world: World, folder: Path, nth: int, expected: dict[str, bytes]
) -> None:
    before = contents(prepared(job, world, folder))
    with disk_faults(folder, nth) as faults:
        result = invoke(*job.words(world, folder))
    where = f"call {nth}, {faults.calls[nth - 1 :][:1]}: {result.output}"
    assert result.exception is None or isinstance(result.exception, SystemExit), where
    found = contents(folder)
    if result.exit_code == 0:
        assert {name: found.get(name) for name in expected} == expected, where
    else:
        assert result.exit_code in (2, 3, 4), where
        lines = result.stderr.splitlines()
        assert lines[-1].startswith("error: "), where
        assert sum(line.startswith("error: ") for line in lines) == 1, where
        assert "Traceback" not in result.stderr, where
        for name, data in found.items():
            if ".tmp-" not in name and not name.endswith(PARTIAL):
                assert data in (before.get(name), expected.get(name)), f"{where}: {name}"
    again = invoke(*job.words(world, folder))
    assert again.exit_code == 0, f"{where}, then {again.output}"
    assert contents(folder) == expected, where
    left = [path for path in folder.rglob("*") if ".tmp-" in path.name]
    assert not left, where
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITING)
def test_some_calls_fail(name: str, world: World, tmp_path: Path) -> None:
    total, expected = count_points(JOBS[name], world, tmp_path / "whole")
    points = POINTS.get(name, 2)
    for number in range(points):
        nth = 1 + total * (2 * number + 1) // (2 * points)
        assert_survives(JOBS[name], world, tmp_path / "out", nth, expected)


@pytest.mark.torture
@pytest.mark.parametrize("name", WRITING)
def test_every_call_fails(
    name: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total, expected = count_points(JOBS[name], world, tmp_path / "whole")
    for nth in range(1, total + 1):
        assert_survives(JOBS[name], world, tmp_path / "out", nth, expected)
    with capsys.disabled():
        print(f"\n{name}: {total} points")  # noqa: T201  # for who runs the long form
