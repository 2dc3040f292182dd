"""Runs of several values on one pass: each is the one that its value alone makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.heads import TRAINED_HEADS, make_two_splits
from builders.progress import RecordedProgress

from vocprep.errors import RunError, UsageError
from vocprep.heads.runs.log import EpochMetrics
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.sweeps import Sweep
from vocprep.heads.training.distributed import Processes
from vocprep.heads.training.one_pass import RunInputs
from vocprep.heads.training.sweep import SweepJob, train_sweep
from vocprep.heads.training.train import train
from vocprep.shards.reader import ShardDataset

SAME = ("model.safetensors", "run.json", "options.toml")
TIMES = ("seconds", "images_per_second")
PROBE: dict[str, Any] = {"encoder": "none", "position": False, "mask_head": "cells"}
PROBE |= {"input_layer": False, "epochs": 3, "validate_every": 2, "lr": 0.01}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    return make_two_splits(tmp_path_factory.mktemp("data") / "shards")


def options(**changes: Any) -> TrainOptions:
    shared = {"batch_size": 2, "device": "cpu", "checkpoint_every": 0.0}
    return TrainOptions(**{**PROBE, **shared, **changes})


def lines_but_for_times(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: v for key, v in line.items() if key not in TIMES} for line in lines]


def require_same(run: Path, alone: Path) -> None:
    for name in SAME:
        assert (run / name).read_bytes() == (alone / name).read_bytes(), name
    assert lines_but_for_times(run) == lines_but_for_times(alone)
    assert not (run / "checkpoint.safetensors").exists()


def stop_at(value: float, epoch: int) -> Callable[[float, EpochMetrics], None]:
    def on_epoch(found: float, metrics: EpochMetrics) -> None:
        if (found, metrics.epoch) == (value, epoch):
            raise KeyboardInterrupt

    return on_epoch


@pytest.mark.parametrize(
    ("sweep", "changes"),
    [
        # Dropout draws random numbers, of which each value needs those that it has alone.
        ("weight_decay=0,4", {"input_dropout": 0.3}),
        ("ema=0,0.9", {"mode": "streaming", "lanes": 2}),
    ],
)
def test_each_value_is_the_one_trained_alone(
    dataset: ShardDataset, tmp_path: Path, sweep: str, changes: dict[str, Any]
) -> None:
    progress, epochs = RecordedProgress(), list[tuple[float, int]]()
    summary = train(
        dataset,
        tmp_path / "out",
        options(**changes),
        lambda value, metrics: epochs.append((value, metrics.epoch)),
        progress,
        sweep=sweep,
    )
    wanted = Sweep.parse(sweep)
    assert summary.values == wanted.values
    assert epochs == [(value, epoch) for epoch in (1, 2, 3) for value in wanted.values]
    assert len(progress.lines) == len(set(progress.lines))
    weights = set()
    for run, own in zip(summary.runs, wanted.options(options(**changes)), strict=True):
        alone = train(dataset, tmp_path / run.run_dir.name, own)
        require_same(run.run_dir, alone.run_dir)
        weights.add((run.run_dir / SAME[0]).read_bytes())
    assert len(weights) == len(summary.values)


@pytest.mark.slow
def test_heads_with_an_encoder_can_be_swept(dataset: ShardDataset, tmp_path: Path) -> None:
    chosen = options(**{**TRAINED_HEADS["cells"], "epochs": 1})
    sweep = Sweep(option="lr", values=(1e-4, 1e-3))
    summary = train(dataset, tmp_path / "out", chosen, sweep=sweep)
    for run, own in zip(summary.runs, sweep.options(chosen), strict=True):
        require_same(run.run_dir, train(dataset, tmp_path / run.run_dir.name, own).run_dir)


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_where_each_run_is(
    dataset: ShardDataset, tmp_path: Path
) -> None:
    """It is stopped where the first run is an epoch further than the second."""
    out, sweep = tmp_path / "out", "weight_decay=0,4"
    with pytest.raises(KeyboardInterrupt):
        train(dataset, out, options(), stop_at(0.0, 2), sweep=sweep)
    assert not (out / "sweep.json").exists()
    summary = train(dataset, out, options(resume=True), sweep=sweep)
    assert [run.resumed_from for run in summary.runs] == [2, 1]
    for value in summary.values:
        alone = train(dataset, tmp_path / str(value), options(weight_decay=value))
        require_same(out / f"weight_decay-{value:g}", alone.run_dir)
    more = train(dataset, out, options(resume=True), sweep="weight_decay=0,4,0.5")
    assert [run.resumed_from for run in more.runs] == [3, 3, 0]
    assert json.loads((out / "sweep.json").read_text()) == more.table()


def test_the_table_has_the_scores_of_each_and_the_best(
    dataset: ShardDataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    summary = train(dataset, out, options(), sweep="lr=1e-7,0.03,1e-5")
    table = json.loads((out / "sweep.json").read_text())
    assert table == summary.table()
    assert table["option"] == "lr"
    assert [row["value"] for row in table["rows"]] == [1e-7, 0.03, 1e-5]
    assert [row["run"] for row in table["rows"]] == ["lr-1e-07", "lr-0.03", "lr-1e-05"]
    best = max(table["rows"], key=lambda row: (row["val_miou"], row["val_pixel_accuracy"]))
    assert table["best"] == summary.best == best["value"]
    for row, run in zip(table["rows"], summary.runs, strict=True):
        assert row["val_miou"] == run.final.val_miou
        assert row["epoch"] == 3


def test_without_validation_none_is_the_best(dataset: ShardDataset, tmp_path: Path) -> None:
    chosen = options(val_split="", epochs=1)
    summary = train(dataset, tmp_path / "out", chosen, sweep="lr=0.1,0.2")
    assert summary.best is None
    assert [row["val_miou"] for row in summary.table()["rows"]] == [None, None]


@pytest.mark.slow
def test_a_value_that_diverges_leaves_the_others_whole(
    dataset: ShardDataset, tmp_path: Path
) -> None:
    out, chosen = tmp_path / "out", options(standardise=False)
    with pytest.raises(RunError) as failed:
        train(dataset, out, chosen, sweep="lr=0.01,1e38,0.02")
    assert str(failed.value).startswith(f"{out / 'lr-1e+38'}: expected a finite loss in epoch ")
    assert str(failed.value).endswith("; the runs of lr 0.01, 0.02 are whole")
    rows = json.loads((out / "sweep.json").read_text())["rows"]
    assert [row["value"] for row in rows] == [0.01, 0.02]
    alone = train(dataset, tmp_path / "alone", options(standardise=False, lr=0.02))
    require_same(out / "lr-0.02", alone.run_dir)


def test_what_is_refused_of_one_value_is_refused_of_all(
    dataset: ShardDataset, tmp_path: Path
) -> None:
    out, short = tmp_path / "out", options(epochs=1)
    train(dataset, out, short, sweep="lr=0.1")
    before = sorted(out.rglob("*"))
    with pytest.raises(
        UsageError, match=r"lr-0\.1: expected a folder without a run, found run\.js"
    ):
        train(dataset, out, short, sweep="lr=0.2,0.1")
    with pytest.raises(UsageError, match=r"epochs: 1 and 3.*lr-0\.1"):
        train(dataset, out, options(resume=True), sweep="lr=0.2,0.1")
    with pytest.raises(UsageError, match=r"^lr 0\.0: expected more than 0"):
        train(dataset, out, short, sweep="lr=0,0.1")
    with pytest.raises(
        UsageError, match=r"expected a folder for one run, found several in it \(lr"
    ):
        train(dataset, out, short)
    with pytest.raises(UsageError, match=r"differ in their weight_decay, found lr-0\.1; choose"):
        train(dataset, out, short, sweep="weight_decay=0,1")
    with pytest.raises(UsageError, match=r"differ in their seed, found lr-0\.1; choose"):
        train(dataset, out, short, seeds=(0, 1))
    with pytest.raises(UsageError, match=r"lr-0\.1: expected a folder for several runs, found one"):
        train(dataset, out / "lr-0.1", short, sweep="lr=0.2,0.1")
    assert sorted(out.rglob("*")) == before


def test_what_does_not_go_with_a_sweep_is_refused(dataset: ShardDataset, tmp_path: Path) -> None:
    out: dict[str, Any] = {"out": tmp_path / "out", "sweep": "lr=0.1"}
    with pytest.raises(UsageError, match=r"^sweep and seeds: expected one of them; choose a value"):
        train(dataset, options=options(), seeds=(0, 1), **out)
    with pytest.raises(UsageError, match=r"^sweep: expected steps that are not compiled, found"):
        train(dataset, options=options(compiled=True), **out)
    inputs = RunInputs(dataset=dataset, origin=None, components=None)
    job = SweepJob(
        inputs=inputs,
        options=options(),
        on_epoch=lambda *_: None,
        progress=RecordedProgress(),
        **{**out, "sweep": Sweep.parse("lr=0.1")},
    )
    with pytest.raises(UsageError, match=r"^sweep: expected one process, found 2 of torchrun; st"):
        train_sweep(job, Processes(torch.device("cpu"), 0, 2))
    assert not (tmp_path / "out").exists()
