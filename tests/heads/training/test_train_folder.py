"""One training at a time writes a run folder, in this process, in others and across resumes."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.heads import make_two_splits
from builders.progress import RecordedProgress

from vocprep.errors import UsageError
from vocprep.heads.runs.log import EpochMetrics, read_history
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.training.train import train
from vocprep.shards.reader import ShardDataset

BUSY = "another training writes there; wait until it ends or choose another folder"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    return make_two_splits(tmp_path_factory.mktemp("data") / "shards")


def options(**changes: Any) -> TrainOptions:
    values = {"epochs": 2, "batch_size": 2, "encoder": "none", "checkpoint_every": 0.0}
    return TrainOptions(**{**values, "device": "cpu", **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def at_the_first_epoch(act: Callable[[], None]) -> Callable[[EpochMetrics], None]:
    return lambda metrics: act() if metrics.epoch == 1 else None


@pytest.mark.slow
@pytest.mark.parametrize("given", [{}, {"seed": 1, "overwrite": True}, {"resume": True}])
def test_a_second_training_is_refused_and_touches_nothing(
    dataset: ShardDataset, tmp_path: Path, given: dict[str, Any]
):
    run_dir = tmp_path / "run"

    def second() -> None:
        before = contents(run_dir)
        with pytest.raises(UsageError) as refused:
            train(dataset, run_dir, options(**given))
        assert (
            str(refused.value) == f"{run_dir}: {BUSY} (the lock is held by process {os.getpid()})"
        )
        assert contents(run_dir) == before

    train(dataset, run_dir, options(), at_the_first_epoch(second))
    assert [metrics.epoch for metrics in read_history(run_dir)] == [1, 2]
    with pytest.raises(UsageError, match="expected a folder without a run"):
        train(dataset, run_dir, options())


@pytest.mark.slow
def test_the_folder_of_a_resumed_training_is_held_too(dataset: ShardDataset, tmp_path: Path):
    run_dir = tmp_path / "run"

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(dataset, run_dir, options(), at_the_first_epoch(stop))

    def second(_: EpochMetrics) -> None:
        with pytest.raises(UsageError, match=BUSY):
            train(dataset, run_dir, options(resume=True))

    summary = train(dataset, run_dir, options(resume=True), second)
    assert (summary.resumed_from, len(summary.history)) == (1, 2)


@pytest.mark.slow
def test_the_command_is_refused_with_one_sentence(dataset: ShardDataset, tmp_path: Path):
    run_dir, seen = tmp_path / "run", []
    words = ["train", str(dataset.path), "--out", str(run_dir), "--overwrite", "--device", "cpu"]

    def second() -> None:
        command = [sys.executable, "-m", "vocprep", *words]
        seen.append(subprocess.run(command, capture_output=True, text=True, check=False))

    train(dataset, run_dir, options(), at_the_first_epoch(second))
    assert (seen[0].returncode, seen[0].stdout) == (2, "")
    assert seen[0].stderr.startswith(f"error: {run_dir}: {BUSY}")
    assert seen[0].stderr.count("\n") == 1
    assert len(read_history(run_dir)) == 2


def test_where_there_are_no_locks_it_trains_with_a_note(
    dataset: ShardDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    progress = RecordedProgress()
    train(dataset, tmp_path / "run", options(flip=False, epochs=1), progress=progress)
    notes = progress.lines
    assert len(notes) == 1
    assert "this file system has no file locks" in notes[0]
