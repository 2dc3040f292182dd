"""Two processes that train together come to what one comes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from builders.drawings import Drawing
from builders.heads import TRAINED_HEADS, make_dataset, random_records
from builders.processes import end_all, forked
from builders.progress import RecordedProgress
from builders.s3 import S3
from safetensors.torch import load_file
from torch.nn.modules.module import register_module_forward_pre_hook

from vocprep.errors import UsageError
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.runs.folder import hold_folder
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.run import load_run
from vocprep.heads.training.train import train
from vocprep.options import Layout
from vocprep.shards.reader import ShardDataset

REFUSED = 7
NOTES_SHARDS = """
import os, sys
from pathlib import Path

if "RANK" in os.environ:
    path = Path(os.environ["NOTES"], f"rank-{os.environ['RANK']}")

    def note(event, arguments):
        if event == "open" and str(arguments[0]).endswith(".h5"):
            with path.open("a") as stream:
                print(Path(arguments[0]).name, file=stream)

    sys.addaudithook(note)
"""


def options(name: str, mode: str = "resident") -> TrainOptions:
    return TrainOptions(
        # Gloo rounds sums in another order: a spike on the edge of its threshold could turn on it,
        # so spiking heads are compared by the losses of their first epoch, and no further.
        epochs=1 if "spiking" in name else 3,
        batch_size=4,
        device="cpu",
        **{**TRAINED_HEADS[name], "input_dropout": 0.0},
        mode=mode,  # type: ignore[arg-type]
        dropout_factor=0.0,
        precision="fp32",
        validate_every=2,
        checkpoint_every=0.0,
        lr=1e-4,
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """Five pictures of several sizes: the second batch has none for the second process."""
    splits = {
        "train": random_records("train", [(1, 2), (2, 2), (1, 1), (2, 1), (1, 3)]),
        "val": random_records("val", [(1, 2), (2, 1), (1, 1), (2, 2), (1, 2), (3, 1)]),
    }
    return make_dataset(tmp_path_factory.mktemp("data") / "shards", splits)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """Eleven pictures to train on in six shards, and three to validate on in two."""
    splits = {
        "train": random_records("train", [(1, 2), (2, 2), (1, 1), (2, 1), (1, 3)] * 2 + [(1, 1)]),
        "val": random_records("val", [(1, 2), (2, 1), (1, 1)]),
    }
    folder = tmp_path_factory.mktemp("data") / "sharded"
    return make_dataset(folder, splits, Layout(samples_per_shard=2))


def losses_of(run_dir: Path) -> list[float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    names = ("class_loss", "mask_loss", "val_loss")
    return [line[name] for line in lines for name in names if line[name] is not None]


def environment() -> dict[str, str]:
    modules = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return {**os.environ, "PYTHONPATH": modules, "GLOO_SOCKET_IFNAME": "lo"}


def train_as_rank(shards: str, folder: Path, rank: int, mode: str, names: Sequence[str]) -> None:
    """Train heads as one of two processes, and write down what it read and validated."""
    validated: list[int] = []
    opened: list[str] = []

    def note_shards(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(".h5"):
            opened.append(Path(arguments[0]).name)

    def count(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, TFDetHeads) and not module.training:
            validated.append(len(inputs[0]))

    sys.addaudithook(note_shards)
    register_module_forward_pre_hook(count)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        dataset = ShardDataset.open(shards)
        for name in names:
            seen: list[object] = []
            progress = RecordedProgress()
            run = Path(folder, f"two {name}")
            summary = train(dataset, run, options(name, mode), seen.append, progress)
            assert summary.leads == (rank == 0) == bool(seen) == bool(progress.begun)
    except UsageError:
        sys.exit(REFUSED)
    finally:
        dist.destroy_process_group()
    Path(folder, f"validated-{rank}").write_text(str(sum(validated)))
    Path(folder, f"opened-{rank}").write_text(" ".join(opened))


def train_in_two(dataset: ShardDataset, folder: Path, mode: str, *names: str) -> list[int]:
    """Return the exit codes of two processes that train heads into ``folder/two NAME`` together."""
    children = [
        forked(train_as_rank, str(dataset.path), folder, rank, mode, names) for rank in range(2)
    ]
    return end_all(children, 120)


@pytest.mark.slow
def test_a_refusal_reaches_both_processes(dataset: ShardDataset, tmp_path: Path):
    (tmp_path / "two none").mkdir()
    (tmp_path / "two none" / "thesis.txt").write_text("mine")
    assert train_in_two(dataset, tmp_path, "resident", "none") == [REFUSED, REFUSED]


@pytest.mark.slow
def test_a_folder_that_another_training_holds_is_refused_to_both_processes(
    dataset: ShardDataset, tmp_path: Path
):
    with hold_folder(tmp_path / "two none", print):
        assert train_in_two(dataset, tmp_path, "resident", "none") == [REFUSED, REFUSED]
        assert [path.name for path in (tmp_path / "two none").iterdir()] == [".lock"]


def assert_alike(one_run: Path, two_run: Path) -> None:
    assert losses_of(two_run) == pytest.approx(losses_of(one_run), rel=1e-4)
    one, two = (load_file(run / "model.safetensors") for run in (one_run, two_run))
    apart = torch.cat([(two[name] - tensor).abs().flatten() for name, tensor in one.items()])
    # AdamW's first steps are ±lr (1e-4) whatever a gradient's size, even one that is all rounding.
    assert (apart > 1e-5).float().mean() < 1e-3
    for name in ("standardise.mean", "standardise.std"):
        assert torch.equal(one[name], two[name])


@pytest.mark.slow
def test_two_processes_and_one_give_the_same_losses(dataset: ShardDataset, tmp_path: Path):
    """All kinds of heads, one after the other."""
    assert train_in_two(dataset, tmp_path, "resident", *TRAINED_HEADS) == [0, 0]
    for name in TRAINED_HEADS:
        train(dataset, tmp_path / f"one {name}", options(name))
        assert_alike(tmp_path / f"one {name}", tmp_path / f"two {name}")


@pytest.mark.slow
def test_two_streaming_processes_read_their_own_shards_and_come_to_the_same(
    sharded: ShardDataset, tmp_path: Path
):
    assert train_in_two(sharded, tmp_path, "streaming", "cells") == [0, 0]
    train(sharded, tmp_path / "one", options("cells", "streaming"))
    assert_alike(tmp_path / "one", tmp_path / "two cells")
    assert load_run(tmp_path / "two cells").config.options.lanes == 6
    for rank in range(2):
        names = (tmp_path / f"opened-{rank}").read_text().split()
        shards = [int(name.split("-")[1].split(".")[0]) for name in names if "train" in name]
        # The sizes of the embeddings, and a patch of the first shard; then its part for the means.
        expected = ([0, 0] if rank == 0 else []) + list(range(rank, 6, 2))
        for epoch in (1, 2, 3):
            drawing = Drawing([2, 2, 2, 2, 2, 1], 6, 4, 2, shuffle=True, seed=0, epoch=epoch)
            expected += drawing.reads(rank)
            # The train image that a validation scores, for rank 1 a batch of padding, made once.
            expected += [3] * (epoch == 2 or (epoch == 3 and rank == 0))
        assert shards == expected


@pytest.mark.slow
def test_two_processes_on_a_url_give_the_losses_of_one_on_the_folder(
    s3: S3, dataset: ShardDataset, tmp_path: Path
):
    assert isinstance(dataset.path, Path)
    s3.put_folder(dataset.path)
    assert train_in_two(ShardDataset.open(s3.url()), tmp_path, "streaming", "none") == [0, 0]
    train(dataset, tmp_path / "one", options("none"))
    assert losses_of(tmp_path / "two none") == pytest.approx(losses_of(tmp_path / "one"), rel=1e-4)
    # Ranks that waited for rank 0 alone would be ended by the process group's timeout.
    shares = [int((tmp_path / f"validated-{rank}").read_text()) for rank in range(2)]
    assert shares == [8, 6]  # in two validations, with a train image in each


@pytest.mark.slow
def test_torchrun_starts_the_command(sharded: ShardDataset, tmp_path: Path):
    """In a network of its own, whose only address is 127.0.0.1."""
    alone = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody make a network namespace")
    (tmp_path / "sitecustomize.py").write_text(NOTES_SHARDS)
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29511"]
    words = ["train", sharded.path, "--out", tmp_path / "run", "--set", "encoder=none"]
    words += ["--epochs", 1, "--device", "cpu", "--set", "precision=fp32", "--mode", "streaming"]
    words += ["--set", "lanes=4", "--set", "standardise=false"]
    variables = environment()
    done = subprocess.run(
        [*alone, sys.executable, *torchrun, "-m", "vocprep", *map(str, words)],
        env={
            **variables,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), variables["PYTHONPATH"]]),
            "MASTER_ADDR": "127.0.0.1",
            "NOTES": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1 of 1  loss ") == 1
    assert "steps" not in done.stderr  # no terminal, so no bar
    assert done.stderr.count("no mirrored views in") == 1
    assert done.stdout.count("1 epoch in") == 1
    assert len(losses_of(tmp_path / "run")) == 3
    assert (tmp_path / "run" / "curves.png").is_file()
    drawing = Drawing([2, 2, 2, 2, 2, 1], 4, 128, 2, shuffle=True, seed=0, epoch=1)
    for rank in range(2):
        opened = (tmp_path / f"rank-{rank}").read_text().split()
        shards = [int(name.split("-")[1].split(".")[0]) for name in opened if "train" in name]
        # Rank 0 reads the size of the embeddings first, and one of them; each counts the classes of
        # every second shard; the last one is what a validation scores.
        counted = list(range(rank, 6, 2))
        assert shards == [0, 0] * (rank == 0) + counted + drawing.reads(rank) + [3]
