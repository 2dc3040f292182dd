"""The exponential mean of weights: its values, and that it is what a run keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from builders.heads import make_two_splits
from safetensors.torch import load_file

from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.run import load_run
from vocprep.heads.scoring.split_pass import score_split
from vocprep.heads.training.train import train
from vocprep.heads.training.weight_mean import WeightMean
from vocprep.options import LoaderOptions


def test_the_mean_weighs_each_step_by_what_the_later_ones_leave_of_it():
    model = TFDetHeads(3, encoder="spikformer", position=False)
    values = np.random.default_rng(0).normal(size=41)
    names = ("cat.bias", next(n for n, _ in model.named_buffers() if n.endswith("running_var")))
    state = model.state_dict()
    counts = [tensor for tensor in state.values() if not tensor.is_floating_point()]
    assert counts
    for name in names:
        state[name].fill_(values[0])
    mean = WeightMean(model, 0.8)
    for step, value in enumerate(values[1:]):
        for name in names:
            state[name].fill_(value)
        for count in counts:
            count.fill_(step)
        mean.update(step)
    kept = [min(0.8, (1 + step) / (10 + step)) for step in range(40)]
    shares = [(1 - kept[n]) * np.prod(kept[n + 1 :]) for n in range(40)]
    expected = np.dot(shares, values[1:]) + np.prod(kept) * values[0]
    found = mean.model.state_dict()
    for name in names:
        assert torch.allclose(found[name], torch.tensor(expected).float(), rtol=1e-5)
    assert {int(found[n]) for n, count in state.items() if not count.is_floating_point()} == {39}
    assert not any(parameter.requires_grad for parameter in mean.model.parameters())


@pytest.mark.slow
def test_the_mean_is_what_is_validated_and_saved(tmp_path: Path):
    dataset = make_two_splits(tmp_path / "shards")
    common = {"epochs": 1, "batch_size": 8, "device": "cpu", "encoder": "none", "lr": 0.01}
    plain = TrainOptions(**common)  # type: ignore[arg-type]
    train(dataset, tmp_path / "plain", plain)
    summary = train(dataset, tmp_path / "mean", TrainOptions(**common, ema=0.9))  # type: ignore[arg-type]
    torch.manual_seed(0)
    start = TFDetHeads.from_config(load_run(tmp_path / "plain").config.heads).state_dict()
    one, mean = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "mean"))
    for name in ("cat.weight", "reg.4.bias"):  # after one step
        torch.testing.assert_close(mean[name], 0.1 * start[name] + 0.9 * one[name])
        assert not torch.allclose(mean[name], one[name])
    assert torch.equal(mean["standardise.mean"], one["standardise.mean"])
    batches = dataset.loader("val", LoaderOptions(label_maps=True))
    scores = score_split(load_run(tmp_path / "mean").model, batches, dataset.label_space)
    assert scores.class_loss + scores.mask_loss == pytest.approx(summary.final.val_loss, rel=1e-5)
