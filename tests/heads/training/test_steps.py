"""What a step may not do: wait for the device to tell the host a number."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.heads import TRAINED_HEADS, make_dataset, random_records
from torch.utils._python_dispatch import TorchDispatchMode

from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.training.train import train
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2"}
"""Operators whose result, or its size, the host must know before it goes on."""


class Recorder(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name.startswith("index") and isinstance(args[1], list | tuple) else []
        # An index by a mask has as many results as the mask has ones.
        if any(index is not None and index.dtype is torch.bool for index in indices):
            name = "nonzero"
        self.seen[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module", params=["even", "uneven"])
def dataset(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ShardDataset:
    grids = [(1, 2)] * 6 if request.param == "even" else [(1, 2), (2, 2), (1, 1)] * 2
    records = random_records("train", grids)
    return make_dataset(tmp_path_factory.mktemp("data") / "shards", {"train": records})


@pytest.mark.parametrize("name", TRAINED_HEADS)
def test_no_step_waits_for_the_device(dataset: ShardDataset, tmp_path: Path, name: str):
    fields = {"epochs": 1, "device": "cpu", "ema": 0.9, "val_split": "", **TRAINED_HEADS[name]}
    waits, products = [], []
    for batch_size in (6, 2):  # one step an epoch, and three
        options = TrainOptions(batch_size=batch_size, **fields)
        with Recorder() as recorder:
            train(dataset, tmp_path / f"run{batch_size}", options)
        waits.append({name: count for name, count in recorder.seen.items() if name in WAITS})
        products.append(recorder.seen["addmm"] + recorder.seen["mm"])
    assert products[1] > 2 * products[0]
    assert waits[0] == waits[1]
