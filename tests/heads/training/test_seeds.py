"""Several seeds by one call: each run is the one that its seed alone makes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.heads import make_two_splits
from builders.progress import RecordedProgress

from vocprep.errors import RunError, UsageError
from vocprep.heads.runs.log import EpochMetrics
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.training import seeds as seeds_module
from vocprep.heads.training.train import train
from vocprep.shards.reader import ShardDataset

SAME = ("model.safetensors", "run.json", "options.toml")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    return make_two_splits(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of one core, on which seeds are trained one after another."""
    monkeypatch.setattr(seeds_module, "usable_cores", lambda: 1)


def options(**changes: Any) -> TrainOptions:
    values = {"epochs": 2, "batch_size": 2, "depth": 1, "feedforward": 32, "mask_head": "cells"}
    return TrainOptions(**{**values, "device": "cpu", "checkpoint_every": 0.0, **changes})


def losses(history: Sequence[EpochMetrics]) -> list[tuple[float, float | None]]:
    return [(metrics.loss, metrics.val_miou) for metrics in history]


def require_same(run: Path, alone: Path) -> None:
    for name in SAME:
        assert (run / name).read_bytes() == (alone / name).read_bytes(), name


@pytest.mark.slow
def test_seeds_side_by_side_are_those_trained_alone(
    dataset: ShardDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeds_module, "usable_cores", lambda: 2)
    threads = torch.get_num_threads()
    progress, epochs = RecordedProgress(), list[tuple[int, int]]()
    summary = train(
        dataset,
        tmp_path / "out",
        options(flip=True),
        lambda seed, metrics: epochs.append((seed, metrics.epoch)),
        progress,
        seeds=[3, 0],
    )
    assert sorted(epochs) == [(0, 1), (0, 2), (3, 1), (3, 2)]
    assert (progress.begun, progress.shown) == ([("epochs of 2 seeds", 4, 0)], 4)
    assert [line.partition(":")[0] for line in progress.lines] == [
        f"no mirrored views in {dataset.path}"
    ]
    torch.set_num_threads(1)  # as each of two on two cores
    try:
        for seed, run in zip(summary.seeds, summary.runs, strict=True):
            assert run.run_dir == tmp_path / "out" / f"seed-{seed}"
            alone = train(dataset, tmp_path / str(seed), options(flip=True, seed=seed))
            require_same(run.run_dir, alone.run_dir)
            assert losses(run.history) == losses(alone.history)
    finally:
        torch.set_num_threads(threads)
    first, second = (tmp_path / "out" / f"seed-{seed}" for seed in (0, 3))
    assert (first / SAME[0]).read_bytes() != (second / SAME[0]).read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("in_turn")
def test_seeds_in_turn_are_resumed_where_they_are(dataset: ShardDataset, tmp_path: Path) -> None:
    out, progress = tmp_path / "out", RecordedProgress()

    def stop(seed: int, metrics: EpochMetrics) -> None:
        if (seed, metrics.epoch) == (1, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(dataset, out, options(), stop, progress, seeds=(0, 1, 2))
    assert sorted(path.name for path in out.iterdir()) == ["seed-0", "seed-1"]
    assert [name for name, _, _ in progress.begun][-1] == "seed 1, epoch 1 of 2"
    summary = train(dataset, out, options(resume=True), seeds=(0, 1, 2))
    assert [run.resumed_from for run in summary.runs] == [2, 1, 0]
    for seed in summary.seeds:
        train(dataset, tmp_path / str(seed), options(seed=seed))
        require_same(out / f"seed-{seed}", tmp_path / str(seed))


@pytest.mark.slow
@pytest.mark.usefixtures("in_turn")
def test_a_seed_that_fails_leaves_the_others_whole(dataset: ShardDataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(dataset, out, options(epochs=1), seeds=(0,))
    train(dataset, out, options(epochs=1), seeds=(1,))
    weights = out / "seed-0" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(RunError) as failed:
        train(dataset, out, options(epochs=1, resume=True), seeds=(0, 1, 2))
    assert str(failed.value).startswith(f"{weights}: ")
    assert str(failed.value).endswith("; the runs of seed 1, 2 are whole")
    again = train(dataset, out, options(epochs=1, resume=True), seeds=(1, 2))
    assert [run.resumed_from for run in again.runs] == [1, 1]


@pytest.mark.usefixtures("in_turn")
def test_what_is_refused_of_one_seed_is_refused_of_all(
    dataset: ShardDataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    train(dataset, out, options(epochs=1), seeds=(1,))
    before = sorted(out.rglob("*"))
    with pytest.raises(UsageError, match=r"seed-1: expected a folder without a run, found run\.js"):
        train(dataset, out, options(), seeds=(0, 1))
    with pytest.raises(UsageError, match=r"epochs: 1 and 2.*seed-1"):
        train(dataset, out, options(resume=True), seeds=(0, 1))
    with pytest.raises(UsageError, match=r"out: expected a folder for one run, found several in"):
        train(dataset, out, options())
    with pytest.raises(UsageError, match=r"seed-1: expected a folder for several runs, f"):
        train(dataset, out / "seed-1", options(), seeds=(0, 1))
    assert sorted(out.rglob("*")) == before


@pytest.mark.parametrize("bad", [(), (0, 0), (-1,), (True,), ("0",), (2**63,)])
def test_bad_seeds_are_refused(dataset: ShardDataset, tmp_path: Path, bad: Any) -> None:
    with pytest.raises(UsageError, match=r"^seeds \[.*\]: expected whole numbers from 0 to "):
        train(dataset, tmp_path / "out", options(), seeds=bad)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(
    dataset: ShardDataset, tmp_path: Path
) -> None:
    words = ["--seeds", "0,1", "--epochs", "100000", "--device", "cpu", "--set", "encoder=none"]
    script = "import vocprep.heads.training.seeds as s; s.usable_cores = lambda: 2; "
    script += "from vocprep.program import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "train", dataset.path, "--out", tmp_path / "out", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    waited_for = {"seed 0", "seed 1"}
    for line in process.stdout:  # an epoch with validation has a second line
        waited_for.discard(line.split("  epoch")[0])
        if not waited_for:
            break
    assert not waited_for
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted"
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    for seed in (0, 1):
        run = tmp_path / "out" / f"seed-{seed}"
        assert json.loads((run / "run.json").read_text())["options"]["seed"] == seed
        assert not list(run.glob(".tmp*"))
