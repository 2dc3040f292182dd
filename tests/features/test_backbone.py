"""The backbone: official names and bits, strict loading, and an eval mode that cannot be lost."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vocprep.errors import SourceUnavailableError, UsageError, WeightsError
from vocprep.features.backbone import FrozenBackbone
from vocprep.features.networks import CifarResNet, cifar100_resnet32
from vocprep.features.weights import (
    file_tensor_digest,
    load_fitting_weights,
    load_strictly,
    load_weights,
    official_weights,
    tensor_digest,
)

OFFICIAL = official_weights("resnet32-cifar100")
RANDOM_0 = "a93f21db941da195deb445a1863ffb868f29b124787e7b717c44e238a44b5aa1"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return load_weights("random:0", Path())


@pytest.fixture(scope="module")
def lively(state: State) -> State:
    """Weights whose batch norms are far from doing nothing."""
    draw = torch.Generator().manual_seed(0)
    lively = dict(state)
    for name, tensor in state.items():
        if name.endswith(("running_mean", "bias")):
            lively[name] = torch.randn(tensor.shape, generator=draw) * 0.1
        elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            lively[name] = torch.rand(tensor.shape, generator=draw) + 0.5
    return lively


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of chenyaofo's cifar100_resnet32, written from that project's description."""

    def norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
        vectors = ("weight", "bias", "running_mean", "running_var")
        return {f"{name}.{part}": (size,) for part in vectors} | {f"{name}.num_batches_tracked": ()}

    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (16, 3, 3, 3), **norm("bn1", 16)}
    inputs = 16
    for stage, outputs in enumerate((16, 32, 64), start=1):
        for block in range(5):
            at = f"layer{stage}.{block}"
            shapes[f"{at}.conv1.weight"] = (outputs, inputs, 3, 3)
            shapes[f"{at}.conv2.weight"] = (outputs, outputs, 3, 3)
            shapes |= norm(f"{at}.bn1", outputs) | norm(f"{at}.bn2", outputs)
            if inputs != outputs:
                shapes[f"{at}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                shapes |= norm(f"{at}.downsample.1", outputs)
            inputs = outputs
    return shapes | {"fc.weight": (100, 64), "fc.bias": (100,)}


def trunk_of(network: CifarResNet) -> nn.Sequential:
    return nn.Sequential(*list(network.children())[:-2])


def plain_network(state: State) -> CifarResNet:
    network = cifar100_resnet32()
    network.load_state_dict(state)
    return network.eval()


def patches(count: int = 5) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_names_and_shapes_are_the_official_ones() -> None:
    state = cifar100_resnet32().state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == official_shapes()
    assert len(state) == 200
    assert sum(p.numel() for p in trunk_of(cifar100_resnet32()).parameters()) == 466_256


def naive_digest(state: State) -> str:
    text = b""
    for name, tensor in sorted(state.items()):
        dtype = {torch.float32: "float32", torch.int64: "int64"}[tensor.dtype]
        little = {"float32": "<f4", "int64": "<i8"}[dtype]
        shape = ",".join(map(str, tensor.shape))
        data = np.array(tensor.tolist(), dtype=little).tobytes()
        text += name.encode() + b"\0" + dtype.encode() + b"\0" + shape.encode() + b"\0" + data
    return hashlib.sha256(text).hexdigest()


@pytest.mark.slow
def test_tensor_digest_equals_independent_hashing(state: State) -> None:
    assert tensor_digest(state) == naive_digest(state)


def test_tensor_digest_does_not_depend_on_layout_or_order(state: State) -> None:
    relaid = {name: tensor.clone() for name, tensor in reversed(state.items())}
    relaid["conv1.weight"] = relaid["conv1.weight"].to(memory_format=torch.channels_last)
    relaid["bn1.bias"] = nn.Parameter(relaid["bn1.bias"])
    assert tensor_digest(relaid) == tensor_digest(state)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {**state, "bn1.bias": state["bn1.bias"] + 1e-6},
        lambda state: {**state, "fc.weight": state["fc.weight"].reshape(64, 100)},
        lambda state: {name + "x": tensor for name, tensor in state.items()},
        lambda state: {**state, "bn1.bias": state["bn1.bias"].to(torch.float64)},
    ],
    ids=["value", "shape", "name", "dtype"],
)
def test_tensor_digest_sees_every_change(state: State, change: Callable[[State], State]) -> None:
    assert tensor_digest(change(state)) != tensor_digest(state)


def test_random_weights_are_the_same_bits_everywhere(state: State) -> None:
    assert tensor_digest(state) == RANDOM_0
    torch.manual_seed(123)
    assert tensor_digest(load_weights("random:0", Path())) == RANDOM_0
    assert tensor_digest(load_weights("random:1", Path())) != RANDOM_0


def test_random_weights_keep_activations_in_range(state: State) -> None:
    embeddings = FrozenBackbone.from_weights(state)(patches())
    assert 0.01 < float(embeddings.std()) < 100


@pytest.mark.parametrize("spec", ["random:", "random:x", "random:1.5", "random:-1"])
def test_bad_seeds_are_refused(spec: str) -> None:
    with pytest.raises(UsageError, match=f"weights '{spec}'"):
        load_weights(spec, Path())


@pytest.mark.slow
def test_official_weights_load_strictly_and_have_their_digest(shared_data: Path) -> None:
    path = shared_data / "weights" / "cifar100_resnet32.pth"
    if not path.is_file():
        pytest.skip("no real weights there")
    assert file_tensor_digest(path) == OFFICIAL.tensors_sha256
    weights = load_weights(str(path), Path())
    load_strictly(cifar100_resnet32(), weights)
    assert naive_digest(weights) == OFFICIAL.tensors_sha256


def test_all_containers_carry_the_same_digest(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "a.safetensors")
    for path in tmp_path.iterdir():
        assert file_tensor_digest(path) == RANDOM_0, path.name
        assert tensor_digest(load_weights(str(path), Path())) == RANDOM_0


def test_weights_below_the_data_dir_are_taken_when_none_are_named(
    state: State, tmp_path: Path
) -> None:
    (tmp_path / OFFICIAL.path).parent.mkdir()
    torch.save(state, tmp_path / OFFICIAL.path)
    assert tensor_digest(load_weights(None, tmp_path)) == RANDOM_0


def test_missing_official_weights_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(
        SourceUnavailableError, match="vocprep download resnet32-cifar100"
    ) as caught:
        load_weights(None, tmp_path)
    assert str(tmp_path / OFFICIAL.path) in str(caught.value)
    assert f"--data-dir {tmp_path}" in str(caught.value)
    assert "random" not in str(caught.value)  # a trained run needs the very weights
    with pytest.raises(SourceUnavailableError, match=r"or --weights random:0 for an untrained b"):
        load_fitting_weights(None, tmp_path, "resnet32-cifar100")


def without(state: State, name: str) -> State:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: without(state, "layer2.0.bn1.weight"), r"layer2\.0\.bn1\.weight is missing"),
        (lambda state: without(state, "bn1.num_batches_tracked"), "num_batches_tracked is missing"),
        (lambda state: {**state, "extra": torch.ones(1)}, "'extra' is not part of the network"),
        (
            lambda state: {**state, "x\n" * 9000: torch.ones(1)},
            r"^weights: tensor '[xn.\\]{1,40}' is not part of the network",
        ),
        (
            lambda state: {**state, "fc.weight": torch.ones(10, 64)},
            r"fc\.weight has shape \(10, 64\): expected \(100, 64\)",
        ),
        (
            lambda state: {**state, "bn1.bias": torch.full((16,), float("nan"))},
            r"bn1\.bias holds values that are not finite",
        ),
        (
            lambda state: {**state, "fc.bias": torch.full((100,), float("inf"))},
            "not finite",
        ),
        (
            lambda state: {**state, "bn1.bias": state["bn1.bias"].half()},
            r"bn1\.bias is of type torch\.float16: expected torch\.float32",
        ),
    ],
    ids=["missing", "missing counter", "extra", "long", "shape", "nan", "inf", "dtype"],
)
def test_weights_that_do_not_fit_are_refused(
    state: State, change: Callable[[State], State], complaint: str
) -> None:
    with pytest.raises(WeightsError, match=complaint):
        FrozenBackbone.from_weights(change(state))


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.path),)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))]
)
def test_a_file_that_carries_code_is_refused_and_runs_none(
    tmp_path: Path, save: Callable[[object, Path], object]
) -> None:
    victim = tmp_path / "touched"
    pickle.loads(pickle.dumps(Malicious(victim)))
    victim.unlink()  # it was there: the trap works
    save({"conv1.weight": Malicious(victim)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"w\.pt: weights cannot be read") as caught:
        load_weights(str(tmp_path / "w.pt"), Path())
    assert not victim.exists()
    assert "weights_only" not in str(caught.value)  # torch advises to switch the protection off


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([torch.ones(1)], "expected a dictionary of tensors, found list"),
        (torch.ones(1), "found Tensor"),
        ({"state_dict": {}}, r"found 'state_dict': dict; save .*\['state_dict'\], NEW\)$"),
        ({"a" * 100_000: 1}, "found 'aaaaaaaaaaaa...aaaaaaaaaaaaa': int$"),
        ({"a": torch.ones(1).expand(1 << 40)}, "declared to have 4,398,046,511,104 bytes"),
        ({"epoch": 3}, "found 'epoch': int"),
        ({0: torch.ones(1)}, "found 0: torch.float32"),
        ({"a": torch.ones(1, dtype=torch.float64)}, "found 'a': torch.float64; save .* as float32"),
        ({"a": torch.eye(3).to_sparse()}, "found 'a'"),
        ({"a": torch.ones(1, device="meta")}, "found 'a': torch.float32, without data"),
    ],
    ids=[
        "list",
        "tensor",
        "nested",
        "long name",
        "strides",
        "number",
        "key",
        "float64",
        "sparse",
        "meta",
    ],
)
def test_files_of_something_else_are_refused(tmp_path: Path, value: object, complaint: str) -> None:
    torch.save(value, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=complaint) as caught:
        file_tensor_digest(tmp_path / "w.pt")
    assert str(caught.value).startswith(f"{tmp_path / 'w.pt'}: ")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize(
    "data", [b"", b"<html>404</html>" * 40, b"PK\3\4" + bytes(99), None, "cut"]
)
def test_damaged_and_missing_files_are_refused(
    state: State, tmp_path: Path, suffix: str, data: bytes | str | None
) -> None:
    path = tmp_path / f"w{suffix}"
    if data == "cut":
        (save_file if suffix == ".safetensors" else torch.save)(state, path)
        data = path.read_bytes()[:-999]
    if isinstance(data, bytes):
        path.write_bytes(data)
    with pytest.raises(
        WeightsError, match=r"weights cannot be read|no such weights file"
    ) as caught:
        load_weights(str(path), Path())
    assert str(caught.value).startswith(f"{path}: ")
    assert ("no such" in str(caught.value)) == (data is None)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    with (tmp_path / "sparse.safetensors").open("wb") as stream:
        stream.truncate(9 << 30)
    with pytest.raises(WeightsError, match=r"pipe\.pt: weights cannot be read: a pipe"):
        load_weights(str(tmp_path / "pipe.pt"), Path())
    with pytest.raises(WeightsError, match="9,663,676,416 bytes, where at most"):
        load_weights(str(tmp_path / "sparse.safetensors"), Path())


def test_compressed_members_are_not_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "stored.pt")
    with (
        zipfile.ZipFile(tmp_path / "stored.pt") as stored,
        zipfile.ZipFile(tmp_path / "deflated.pt", "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for name in stored.namelist():
            deflated.writestr(name, stored.read(name))
    with pytest.raises(WeightsError, match="damaged, or no weights file"):
        load_weights(str(tmp_path / "deflated.pt"), Path())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_numbers_of_16_bits_are_widened_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    numbers = torch.tensor([1.5, -3e-5, 60000.0, 0.1]).to(dtype)
    save_file({"a": numbers}, tmp_path / "w.safetensors")
    save_file({"a": numbers.to(torch.float32)}, tmp_path / "wide.safetensors")
    found = load_weights(str(tmp_path / "w.safetensors"), Path())["a"]
    assert found.dtype == torch.float32
    assert found.tolist() == numbers.tolist()
    wide, narrow = (file_tensor_digest(tmp_path / f"{name}.safetensors") for name in ("wide", "w"))
    assert wide == narrow


def test_folded_backbone_equals_the_plain_network(lively: State) -> None:
    trunk = trunk_of(plain_network(lively))
    with torch.inference_mode():
        plain = torch.flatten(nn.AdaptiveAvgPool2d((2, 2))(trunk(patches())), 1)
        folded = FrozenBackbone.from_weights(lively)(patches())
    assert folded.shape == (5, 256)
    assert float((folded - plain).abs().max() / plain.abs().max()) < 1e-4
    assert not any(
        isinstance(m, nn.BatchNorm2d) for m in FrozenBackbone.from_weights(lively).modules()
    )


def test_embedding_order_is_channel_row_column(lively: State) -> None:
    with torch.inference_mode():
        maps = trunk_of(plain_network(lively))(patches(2))
        found = FrozenBackbone.from_weights(lively)(patches(2))
    assert maps.shape == (2, 64, 8, 8)
    for patch in range(2):
        for channel in range(64):
            for row in range(2):
                for column in range(2):
                    cell = maps[patch, channel, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
                    value = found[patch, channel * 4 + row * 2 + column]
                    torch.testing.assert_close(value, cell.mean(), rtol=1e-3, atol=1e-4)


def test_a_full_network_gives_class_scores(lively: State) -> None:
    with torch.inference_mode():
        network = plain_network(lively)
        expected = network.fc(trunk_of(network)(patches()).mean(dim=(2, 3)))
        torch.testing.assert_close(network(patches()), expected)


class Parent(nn.Module):
    def __init__(self, backbone: FrozenBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(256, 2)


def test_training_a_parent_moves_nothing_in_the_backbone(lively: State) -> None:
    parent = Parent(FrozenBackbone.from_weights(lively))
    before = parent.backbone(patches())
    state_before = {name: tensor.clone() for name, tensor in parent.backbone.state_dict().items()}
    parent.train()
    assert parent.training
    assert not any(module.training for module in parent.backbone.modules())
    optimizer = torch.optim.SGD(parent.parameters(), lr=1.0, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        parent.head(parent.backbone(patches())).sum().backward()
        optimizer.step()
    assert torch.equal(parent.backbone(patches()), before)
    for name, tensor in parent.backbone.state_dict().items():
        assert torch.equal(tensor, state_before[name])


def test_no_parameter_of_the_backbone_takes_a_gradient(lively: State) -> None:
    backbone = FrozenBackbone.from_weights(lively)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone(patches()).requires_grad


def test_loading_leaves_the_given_weights_alone(state: State) -> None:
    given = {name: tensor.clone() for name, tensor in state.items()}
    FrozenBackbone.from_weights(given)
    assert tensor_digest(given) == RANDOM_0
