"""A compiled step teaches what a plain one does; where it cannot be compiled, the user is told."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.heads import make_dataset, random_records
from torch._dynamo.exc import TorchDynamoException

from vocprep.errors import UsageError
from vocprep.features.compiling import can_compile
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.training.train import train
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow

OPTIONS = TrainOptions(
    epochs=2,
    batch_size=4,
    device="cpu",
    encoder="none",
    dropout_factor=0.0,
    precision="fp32",
    val_split="",
    compiled=True,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """Five pictures of several sizes, in two batches of unequal length."""
    records = random_records("train", [(1, 2), (2, 2), (1, 1), (2, 1), (1, 3)])
    return make_dataset(tmp_path_factory.mktemp("data") / "shards", {"train": records})


@pytest.mark.skipif(not can_compile(), reason="no C++ compiler here")
def test_a_compiled_step_gives_the_losses_of_a_plain_one(dataset: ShardDataset, tmp_path: Path):
    plain, compiled = (
        train(dataset, tmp_path / str(on), replace(OPTIONS, compiled=on)) for on in (False, True)
    )
    for one, other in zip(plain.history, compiled.history, strict=True):
        assert other.class_loss == pytest.approx(one.class_loss, rel=1e-5)
        assert other.mask_loss == pytest.approx(one.mask_loss, rel=1e-5)
    assert plain.final.loss < plain.history[0].loss


def test_without_a_compiler_the_user_is_told_before_anything_is_written(
    dataset: ShardDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler.*--no-compile"):
        train(dataset, tmp_path / "run", OPTIONS)
    assert not (tmp_path / "run").exists()


def test_a_compiler_that_fails_is_told_in_a_sentence(
    dataset: ShardDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(_: Any, **options: Any) -> Any:
        def fail(_: Any) -> Any:
            raise TorchDynamoException("backend='inductor' raised:\nld: out of disk\nmore lines")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr("vocprep.features.compiling.can_compile", lambda: True)
    with pytest.raises(UsageError, match=r"heads do not compile: .*ld: out of disk; use --no-co"):
        train(dataset, tmp_path / "run", OPTIONS)
