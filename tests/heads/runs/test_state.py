"""Weights and checkpoints: written, restored, and refused by one rule each."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from builders.heads import make_recipe, random_records
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vocprep.errors import RunError
from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.state import (
    CHECKPOINT_FILE,
    MODEL_FILE,
    restore,
    save_checkpoint,
    save_weights,
)
from vocprep.labels.label_space import load_label_space

EPOCHS, STEPS = 4, 2
"""Of the run, and of an epoch of its training."""
State = dict[str, Tensor]


def make_config(seed: int = 0) -> RunConfig:
    labels = load_label_space("voc21")
    return RunConfig(
        heads=HeadsConfig(outputs=labels.outputs),
        options=TrainOptions(seed=seed, epochs=EPOCHS),
        labels=labels,
        recipe=make_recipe({"train": random_records("train", [(1, 1)])}),
        content_id="cd" * 32,
        source_id="ef" * 32,
    )


def trained(steps: int) -> tuple[nn.Module, torch.optim.AdamW, nn.Module]:
    """Return a small model, its optimizer, and what stands for its mean, after some steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    mean = deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(steps):
        mean.load_state_dict(model.state_dict())
        model(torch.rand(4, 2)).square().sum().backward()
        optimizer.step()
    return model, optimizer, mean


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run that was interrupted after 3 of its 4 epochs, validated after 2."""
    save_weights(tmp_path, make_config(), trained(2 * STEPS)[0], 2)
    model, optimizer, mean = trained(3 * STEPS)
    save_checkpoint(tmp_path, make_config(), model, optimizer, 3, mean)
    return tmp_path


def test_a_checkpoint_restores_weights_moments_and_means(run_dir: Path) -> None:
    model, optimizer, mean = trained(0)
    assert restore(run_dir, make_config(), model, optimizer, STEPS, mean) == 3
    expected_model, expected, expected_mean = trained(3 * STEPS)
    for name, value in expected_mean.state_dict().items():
        assert torch.equal(mean.state_dict()[name], value)
    for found, wanted in zip(model.parameters(), expected_model.parameters(), strict=True):
        assert torch.equal(found, wanted)
        for key, value in expected.state[wanted].items():
            assert torch.equal(optimizer.state[found][key], value), key


def test_the_weights_of_an_ended_training_are_the_means(run_dir: Path) -> None:
    save_weights(run_dir, make_config(), trained(1)[0], EPOCHS)
    model, optimizer, mean = trained(0)
    assert restore(run_dir, make_config(), model, optimizer, STEPS, mean) == EPOCHS
    assert torch.equal(next(mean.parameters()), next(trained(1)[0].parameters()))


def rewrite(path: Path, change: Callable[[State], None], about: dict[str, object]) -> None:
    """Change the tensors of a file and what its metadata say."""
    with safe_open(path, framework="pt") as stream:
        known = json.loads(stream.metadata()["vocprep"])
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"vocprep": json.dumps({**known, **about})})


def set_value(name: str, value: float) -> Callable[[State], None]:
    def change(state: State) -> None:
        state[name].view(-1)[0] = value

    return change


def without(name: str) -> Callable[[State], None]:
    def remove(state: State) -> None:
        del state[name]

    return remove


def set_tensor(name: str, tensor: Tensor) -> Callable[[State], None]:
    return lambda state: state.update({name: tensor})


WEIGHT = "model/0.weight"
MEAN, SQUARE, STEP = (f"optimizer/0.weight/{key}" for key in ("exp_avg", "exp_avg_sq", "step"))
CHANGES = {
    "a missing weight": (without("model/0.bias"), "found no tensor"),
    "missing moments": (without(MEAN), "exp_avg: expected .* no tensor"),
    "a missing count": (without(STEP), "step: expected .* no tensor"),
    "another tensor": (set_tensor("optimizer/2.weight/step", torch.zeros(())), "found \\[\\]"),
    "NaN weights": (set_value(WEIGHT, float("nan")), "0.weight: expected finite values"),
    "infinite weights": (set_value(WEIGHT, float("-inf")), "0.weight: expected finite values"),
    "NaN moments": (set_value(MEAN, float("nan")), "exp_avg: expected finite values"),
    "infinite moments": (set_value(SQUARE, float("inf")), "exp_avg_sq: expected finite values"),
    "squares below 0": (set_value(SQUARE, -1.0), "expected squares of 0 or more"),
    "steps below 0": (set_tensor(STEP, torch.tensor(-6.0)), "expected 6 steps, found -6"),
    "huge steps": (set_tensor(STEP, torch.tensor(1e30)), "expected 6 steps, found 1e\\+30"),
    "another shape": (
        set_tensor(WEIGHT, torch.zeros(2, 3)),
        "expected \\[3, 2\\], found \\[2, 3\\]",
    ),
    "moments of another shape": (set_tensor(MEAN, torch.zeros(3)), "expected \\[3, 2\\]"),
    "a missing mean": (without("mean/1.running_var"), "mean/1.running_var: .* found no tensor"),
    "NaN means": (set_value("mean/0.bias", float("nan")), "mean/0.bias: expected finite values"),
    "another type": (set_tensor(WEIGHT, torch.zeros(3, 2).half()), "found .* of torch.float16"),
    "integer moments": (set_tensor(MEAN, torch.zeros(3, 2).long()), "found .* of torch.int64"),
}
ABOUT = {
    "an epoch of 0": ({"epoch": 0}, "epoch 0: expected 1 or more"),
    "an epoch below 0": ({"epoch": -1}, "epoch -1: expected 1 or more"),
    "a later epoch": ({"epoch": 5}, "expected an epoch from 1 to 4, found 5"),
    "a huge epoch": ({"epoch": 10**18}, "expected an epoch from 1 to 4"),
    "an epoch beyond all numbers": ({"epoch": 10**30}, "expected at most 9223372036854775807"),
    "an epoch in words": ({"epoch": "3"}, "epoch '3': expected a whole number"),
    "half an epoch": ({"epoch": 3.5}, "epoch 3.5: expected a whole number"),
    "a true epoch": ({"epoch": True}, "epoch True: expected a whole number"),
    "another epoch": ({"epoch": 2}, "expected 4 steps, found 6"),
    "another run": ({"run_id": "ab" * 32}, "found those of abababababab"),
    "no text": ({"run_id": 7}, "run_id 7: expected text"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_of_other_tensors_is_refused(run_dir: Path, name: str) -> None:
    change, said = CHANGES[name]
    rewrite(run_dir / CHECKPOINT_FILE, change, {})
    assert_refused(run_dir, CHECKPOINT_FILE, said)


@pytest.mark.parametrize("name", ABOUT)
def test_a_checkpoint_of_another_run_or_epoch_is_refused(run_dir: Path, name: str) -> None:
    about, said = ABOUT[name]
    rewrite(run_dir / CHECKPOINT_FILE, lambda state: None, about)
    assert_refused(run_dir, CHECKPOINT_FILE, said)


def assert_refused(run_dir: Path, file: str, said: str) -> None:
    """Refused in one line that names the file, before the model or the optimizer is changed."""
    model, optimizer, mean = trained(0)
    tensors = [*model.parameters(), *mean.parameters()]
    before = [tensor.clone() for tensor in tensors]
    with pytest.raises(RunError, match=f"{file}: .*{said}") as refused:
        restore(run_dir, make_config(), model, optimizer, STEPS, mean)
    assert str(refused.value).isprintable()
    assert not optimizer.state
    for tensor, value in zip(tensors, before, strict=True):
        assert torch.equal(tensor, value)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5)


def claim(size: int) -> Callable[[Path], None]:
    def declare(path: Path) -> None:
        path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])

    return declare


def sparse(path: Path) -> None:
    os.truncate(path, 5 << 30)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def huge_tensor(path: Path) -> None:
    """A header that claims a tensor of exabytes."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    name = next(name for name in header if name.endswith("0.weight"))
    header[name] |= {"shape": [1 << 60], "data_offsets": [0, 1 << 62]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[-400:])


def nested(path: Path) -> None:
    text = b"[" * 100_000
    path.write_bytes(len(text).to_bytes(8, "little") + text)


FILES = {
    "cut": (cut, ""),
    "longer": (append, ""),
    "empty": (lambda path: path.write_bytes(b""), "header of 0 bytes does not fit"),
    "a header larger than the file": (claim(1 << 62), "header of .* bytes does not fit"),
    "a header of no JSON": (claim(3), "not JSON"),
    "5 GB of nothing": (sparse, "5,368,709,120 bytes, where at most"),
    "a pipe": (pipe, "a pipe, no regular file"),
    "a folder": (folder, "a folder, no regular file"),
    "a tensor of exabytes": (huge_tensor, ""),
    "deep nesting": (nested, "not JSON: recursion limit exceeded"),
    "text": (lambda path: path.write_text("<html>not found</html>"), ""),
}


@pytest.mark.parametrize("file", [CHECKPOINT_FILE, MODEL_FILE])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_state_is_refused_at_once(run_dir: Path, name: str, file: str) -> None:
    damage, said = FILES[name]
    damage(run_dir / file)
    assert_refused(run_dir, file, f"found one that does not read .*{said}")


@pytest.mark.parametrize("name", [MODEL_FILE, CHECKPOINT_FILE])
@pytest.mark.parametrize("target", ["nowhere", "itself"])
def test_a_link_to_nothing_is_refused_before_anything_is_trained(
    run_dir: Path, name: str, target: str
) -> None:
    (run_dir / name).unlink()
    (run_dir / name).symlink_to("nowhere" if target == "nowhere" else name)
    model, optimizer, mean = trained(0)
    with pytest.raises(RunError, match=re.escape(name)):
        restore(run_dir, make_config(), model, optimizer, STEPS, mean)


def test_metadata_that_name_no_run_are_refused(run_dir: Path) -> None:
    state = load_file(run_dir / CHECKPOINT_FILE)
    for metadata in (None, {"format": "pt"}, {"vocprep": "[]"}, {"vocprep": "{"}):
        save_file(state, run_dir / CHECKPOINT_FILE, metadata=metadata)
        assert_refused(run_dir, CHECKPOINT_FILE, "does not read")
