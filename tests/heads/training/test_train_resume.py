"""A training that is interrupted and resumed ends where an uninterrupted one does, bit for bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.heads import (
    TRAINED_HEADS,
    as_older_run,
    make_dataset,
    make_two_splits,
    random_records,
)
from builders.processes import forked
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vocprep.errors import RunError, UsageError
from vocprep.files.writing import write_json
from vocprep.heads.runs.folder import options_for
from vocprep.heads.runs.log import EpochMetrics, read_history
from vocprep.heads.runs.options import OLDER, TrainOptions
from vocprep.heads.runs.run import load_run
from vocprep.heads.runs.tracking.events import EVENTS_DIR
from vocprep.heads.training.train import train
from vocprep.options import Layout
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow

TIMES = ("seconds", "images_per_second")
OPTIONS = TrainOptions(
    **OLDER,  # type: ignore[arg-type]
    epochs=5,
    batch_size=2,
    device="cpu",
    encoder="none",
    validate_every=2,
    checkpoint_every=0.0,
    resume=True,
)
RESUMED = {"resume": True, "device": "cpu"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    return make_two_splits(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture(scope="module")
def uninterrupted(dataset: ShardDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    train(dataset, run_dir, replace(OPTIONS, resume=False))
    return run_dir


def stop_after(epoch: int):
    def on_epoch(metrics: EpochMetrics) -> None:
        if metrics.epoch == epoch:
            raise KeyboardInterrupt

    return on_epoch


def lines_but_for_times(run_dir: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: v for key, v in line.items() if key not in TIMES} for line in lines]


def assert_ends_alike(run_dir: Path, whole: Path) -> None:
    found, expected = (load_file(path / "model.safetensors") for path in (run_dir, whole))
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert lines_but_for_times(run_dir) == lines_but_for_times(whole)
    assert load_run(run_dir).epoch == 5
    names = {path.name for path in run_dir.iterdir()} - {"tensorboard", ".lock"}
    assert names == {"run.json", "options.toml", "metrics.jsonl", "model.safetensors", "curves.png"}


def interrupted(dataset: ShardDataset, run_dir: Path, options: TrainOptions, epoch: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(dataset, run_dir, options, stop_after(epoch))


@pytest.mark.parametrize("epochs", [(2,), (2, 3, 4)])
def test_interrupted_and_resumed_is_uninterrupted(
    dataset: ShardDataset, uninterrupted: Path, tmp_path: Path, epochs: tuple[int, ...]
):
    for epoch in epochs:
        interrupted(dataset, tmp_path / "run", OPTIONS, epoch)
    seen: list[int] = []
    summary = train(dataset, tmp_path / "run", OPTIONS, lambda m: seen.append(m.epoch))
    assert seen == list(range(epochs[-1] + 1, 6))
    assert [metrics.epoch for metrics in summary.history] == [1, 2, 3, 4, 5]
    assert_ends_alike(tmp_path / "run", uninterrupted)


def test_a_run_without_validation_resumes_with_its_own_options(tmp_path: Path):
    made = make_dataset(tmp_path / "shards", {"all": random_records("all", [(1, 2), (1, 1)])})
    interrupted(made, tmp_path / "run", OPTIONS, 3)
    summary = train(made, tmp_path / "run", options_for(tmp_path / "run", None, (), RESUMED))
    assert (summary.resumed_from, len(summary.history)) == (3, 5)
    assert "no split 'val'" in summary.notes[0]
    train(made, tmp_path / "whole", OPTIONS)
    assert_ends_alike(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("name", TRAINED_HEADS)
def test_all_heads_resume_to_the_same_bits(dataset: ShardDataset, tmp_path: Path, name: str):
    shared = {"epochs": 3, "batch_size": 2, "validate_every": 3, "checkpoint_every": 0.0}
    shared["label_smoothing"] = 0.1
    options = TrainOptions(device="cpu", resume=True, **shared, **TRAINED_HEADS[name])
    interrupted(dataset, tmp_path / "run", options, 2)
    train(dataset, tmp_path / "run", options)
    train(dataset, tmp_path / "whole", options)
    found, expected = (load_file(tmp_path / n / "model.safetensors") for n in ("run", "whole"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_between_checkpoints_it_goes_back_to_the_last_one(
    dataset: ShardDataset, uninterrupted: Path, tmp_path: Path
):
    interrupted(dataset, tmp_path / "run", OPTIONS, 2)
    rarely = replace(OPTIONS, checkpoint_every=1e9)
    interrupted(dataset, tmp_path / "run", rarely, 4)
    assert len(lines_but_for_times(tmp_path / "run")) == 4
    seen: list[int] = []
    train(dataset, tmp_path / "run", rarely, lambda m: seen.append(m.epoch))
    assert seen == [3, 4, 5]
    assert_ends_alike(tmp_path / "run", uninterrupted)


def test_resuming_nothing_begins_and_resuming_a_finished_run_ends(
    dataset: ShardDataset, uninterrupted: Path, tmp_path: Path
):
    train(dataset, tmp_path / "run", OPTIONS)
    assert_ends_alike(tmp_path / "run", uninterrupted)
    seen: list[int] = []
    summary = train(dataset, tmp_path / "run", OPTIONS, lambda m: seen.append(m.epoch))
    assert seen == []
    assert summary.final.epoch == 5
    assert_ends_alike(tmp_path / "run", uninterrupted)


def test_where_and_how_may_differ(dataset: ShardDataset, uninterrupted: Path, tmp_path: Path):
    interrupted(dataset, tmp_path / "run", OPTIONS, 2)
    train(dataset, tmp_path / "run", replace(OPTIONS, mode="streaming", preset="mine"))
    assert_ends_alike(tmp_path / "run", uninterrupted)


def test_a_run_of_the_third_format_resumes(
    dataset: ShardDataset, uninterrupted: Path, tmp_path: Path
):
    interrupted(dataset, tmp_path / "run", OPTIONS, 2)
    as_older_run(tmp_path / "run", 3, lambda value: None)
    train(dataset, tmp_path / "run", OPTIONS)
    found, expected = (
        load_file(p / "model.safetensors") for p in (tmp_path / "run", uninterrupted)
    )
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert [metrics.epoch for metrics in read_history(tmp_path / "run")] == [1, 2, 3, 4, 5]
    with pytest.raises(UsageError, match=r"the run's own are in .*recipe\.toml"):
        train(dataset, tmp_path / "run", replace(OPTIONS, lr=0.1))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """Seven records to train on in four shards."""
    splits = {
        "train": random_records("train", [(1, 2), (2, 1), (1, 1)] * 2 + [(2, 2)]),
        "val": random_records("val", [(1, 2)]),
    }
    folder = tmp_path_factory.mktemp("data") / "sharded"
    return make_dataset(folder, splits, Layout(samples_per_shard=2))


def lanes_of(run_dir: Path) -> int | None:
    return json.loads((run_dir / "run.json").read_text())["options"].get("lanes")


def test_a_run_resumes_with_its_own_lanes_in_either_mode(sharded: ShardDataset, tmp_path: Path):
    streaming = replace(OPTIONS, mode="streaming")
    train(sharded, tmp_path / "whole", streaming)
    assert lanes_of(tmp_path / "whole") == 4  # at most one per shard
    interrupted(sharded, tmp_path / "run", streaming, 2)
    interrupted(sharded, tmp_path / "run", OPTIONS, 4)
    train(sharded, tmp_path / "run", streaming)
    assert_ends_alike(tmp_path / "run", tmp_path / "whole")
    train(sharded, tmp_path / "resident", OPTIONS)
    assert lanes_of(tmp_path / "resident") == 1
    train(sharded, tmp_path / "given", replace(OPTIONS, lanes=4))
    assert_ends_alike(tmp_path / "given", tmp_path / "whole")
    with pytest.raises(UsageError, match=r"here: lanes: 4 and 2; leave"):
        train(sharded, tmp_path / "run", replace(streaming, lanes=2))


@pytest.mark.parametrize("version", [3, 4])
def test_a_run_of_an_older_format_goes_on_with_one_lane_while_streaming(
    sharded: ShardDataset, tmp_path: Path, version: int
):
    train(sharded, tmp_path / "whole", OPTIONS)
    interrupted(sharded, tmp_path / "run", OPTIONS, 2)
    as_older_run(tmp_path / "run", version, lambda value: None)
    assert lanes_of(tmp_path / "run") is None
    train(sharded, tmp_path / "run", replace(OPTIONS, mode="streaming"))
    found, expected = (
        load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole")
    )
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_where_and_how_leave_the_files_the_same(dataset: ShardDataset, tmp_path: Path):
    other = replace(OPTIONS, mode="streaming", checkpoint_every=1e9, resume=False, overwrite=True)
    for name, options in (("one", OPTIONS), ("two", other)):
        train(dataset, tmp_path / name, options)
    for name in ("run.json", "options.toml", "model.safetensors"):
        one, two = ((tmp_path / run / name).read_bytes() for run in ("one", "two"))
        assert one == two, name


def test_other_options_are_refused_with_the_differing_fields(dataset: ShardDataset, tmp_path: Path):
    interrupted(dataset, tmp_path / "run", OPTIONS, 1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=r"epochs: 5 and 6; lr: 0\.0005 and 0\.1; leave"):
        train(dataset, tmp_path / "run", replace(OPTIONS, epochs=6, lr=0.1))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_other_data_is_refused_with_the_differing_fields(dataset: ShardDataset, tmp_path: Path):
    interrupted(dataset, tmp_path / "run", OPTIONS, 1)
    splits = {name: random_records(name, [(1, 1)], seed=1) for name in ("train", "val")}
    other = make_dataset(tmp_path / "other", splits, precision="bf16")
    data = r"content_id: .*recipe\.precision: 'fp32' and 'bf16'.*"
    with pytest.raises(UsageError, match=rf"{data}; name the shards .* on, or choose") as caught:
        train(other, tmp_path / "run", OPTIONS)
    assert "leave the differing options out" not in str(caught.value)


def test_run_of_other_embeddings_is_refused(dataset: ShardDataset, tmp_path: Path):
    interrupted(dataset, tmp_path / "run", OPTIONS, 1)
    path = tmp_path / "run" / "run.json"
    value = json.loads(path.read_text())
    value["heads"]["embedding_dim"] -= 1
    path.write_text(json.dumps(value))
    with pytest.raises(UsageError, match=r"embedding_dim: \d+ and \d+; name the shards"):
        train(dataset, tmp_path / "run", OPTIONS)


def test_without_resume_an_interrupted_run_is_refused(dataset: ShardDataset, tmp_path: Path):
    interrupted(dataset, tmp_path / "run", OPTIONS, 1)
    with pytest.raises(UsageError, match="pass --resume to go on with it"):
        train(dataset, tmp_path / "run", replace(OPTIONS, resume=False))


def test_a_checkpoint_that_does_not_read_is_named(dataset: ShardDataset, tmp_path: Path):
    interrupted(dataset, tmp_path / "run", OPTIONS, 2)
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RunError, match=r"checkpoint\.safetensors: expected a safetensors file"):
        train(dataset, tmp_path / "run", OPTIONS)


def test_a_checkpoint_that_no_loss_comes_of_is_named(dataset: ShardDataset, tmp_path: Path):
    interrupted(dataset, tmp_path / "run", OPTIONS, 2)
    path = tmp_path / "run" / "checkpoint.safetensors"
    with safe_open(path, framework="pt") as stream:
        about = stream.metadata()
    tensors = load_file(path)
    tensors["model/standardise.mean"].fill_(3e38)
    save_file(tensors, path, metadata=about)
    with pytest.raises(RunError, match=r"in epoch 3, .*; checkpoint\.safetensors may be damaged"):
        train(dataset, tmp_path / "run", OPTIONS)


def test_a_checkpoint_of_other_heads_is_named(dataset: ShardDataset, tmp_path: Path):
    other = replace(OPTIONS, encoder="spikformer")
    interrupted(dataset, tmp_path / "run", OPTIONS, 1)
    interrupted(dataset, tmp_path / "other", other, 1)
    name = "checkpoint.safetensors"
    (tmp_path / "run" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(RunError, match=r"checkpoint\.safetensors: expected the weights of the run"):
        train(dataset, tmp_path / "run", OPTIONS)


def train_killed_at(shards: Path, run_dir: Path, kill_at: int) -> None:
    """Train, and die at an opening, renaming or deleting of a file of the run."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in ("open", "os.rename", "os.remove") and str(run_dir) in str(arguments[0]):
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    train(ShardDataset.open(shards), run_dir, OPTIONS)


def run_child(
    dataset: ShardDataset, run_dir: Path, kill_at: int, after: float | None = None
) -> int:
    """Train in a process that kills itself, or that is killed here after some seconds."""
    child = forked(train_killed_at, dataset.path, run_dir, kill_at)
    child.start()
    child.join(after)
    child.kill()
    child.join()
    return child.exitcode  # type: ignore[no-any-return]


def test_killed_at_the_writing_of_files(dataset: ShardDataset, uninterrupted: Path, tmp_path: Path):
    """Each number is a moment: around run.json, the history, the weights and the checkpoint."""
    statuses = [run_child(dataset, tmp_path / "run", at) for at in (3, 12, 18)]
    assert set(statuses) == {-signal.SIGKILL}
    assert run_child(dataset, tmp_path / "run", 0) == 0
    assert_ends_alike(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize("nth", range(1, 6))
def test_stopped_while_an_earlier_run_is_taken_away(
    dataset: ShardDataset,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nth: int,
):
    """Before each deletion, and before what follows the last one."""
    options = replace(OPTIONS, resume=False, overwrite=True)
    shutil.copytree(uninterrupted, tmp_path / "run")
    (tmp_path / "run" / EVENTS_DIR).mkdir(exist_ok=True)
    (tmp_path / "run" / EVENTS_DIR / "events.out.tfevents.1").touch()
    calls = 0

    def stop(original: Any) -> Any:
        def stopped(*arguments: Any, **words: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == nth:
                raise KeyboardInterrupt
            return original(*arguments, **words)

        return stopped

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", stop(Path.unlink))
        patched.setattr("vocprep.heads.runs.folder.write_json", stop(write_json))
        with pytest.raises(KeyboardInterrupt):
            train(dataset, tmp_path / "run", options)
    train(dataset, tmp_path / "run", options)
    assert_ends_alike(tmp_path / "run", uninterrupted)


@pytest.mark.torture
def test_killed_again_and_again(dataset: ShardDataset, uninterrupted: Path, tmp_path: Path):
    draw = random.Random(0)
    for number in range(10):
        run_dir = tmp_path / f"run{number}"
        statuses = [run_child(dataset, run_dir, draw.randint(1, 40)) for _ in range(4)]
        statuses += [run_child(dataset, run_dir, 0, draw.uniform(0, 3)) for _ in range(3)]
        assert -signal.SIGKILL in statuses
        assert run_child(dataset, run_dir, 0) == 0
        assert_ends_alike(run_dir, uninterrupted)


def test_run_that_was_begun_without_resume_is_gone_on_with(
    dataset: ShardDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not begun again, which would end with the same bits: the learnt epochs are counted."""
    begun = replace(OPTIONS, resume=False)
    learnt: list[int] = []
    from vocprep.heads.training import one_pass as module  # noqa: PLC0415  # to call what is replaced

    original = module.train_epoch

    def counted(trainings: Any, epoch: int, *more: Any) -> Any:
        if epoch == 4 and not learnt[3:]:
            learnt.append(epoch)
            raise KeyboardInterrupt
        learnt.append(epoch)
        return original(trainings, epoch, *more)

    monkeypatch.setattr(module, "train_epoch", counted)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "run", begun)
    train(dataset, tmp_path / "run", OPTIONS)
    assert learnt == [1, 2, 3, 4, 4, 5]
    weights = (tmp_path / "run" / "model.safetensors").read_bytes()
    train(dataset, tmp_path / "run", OPTIONS)
    assert learnt == [1, 2, 3, 4, 4, 5]
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights
