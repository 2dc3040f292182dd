"""Weights of a seed: the same bits whatever torch draws, and activations that keep their size."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from vocprep.features.weights import load_strictly, tensor_digest
from vocprep.features.weights.untrained import untrained_weights

timm = pytest.importorskip("timm")
ARGUMENTS = {
    "vit_tiny_patch16_224": {"img_size": 32, "depth": 2},
    "tf_efficientnet_lite0": {},
    "resnet18": {},
}
DIGESTS = {
    "vit_tiny_patch16_224": "f7f02937fca224a1cfbeabd10990f567191df7dbc986ac07ef9970c68cc1f272",
    "tf_efficientnet_lite0": "1c33b84674b9d0b80210b136fc26909a223da441a1add0fda8056dfe2fc70332",
}


def model(name: str, **arguments: object) -> nn.Module:
    made: nn.Module = timm.create_model(name, pretrained=False, **{**ARGUMENTS[name], **arguments})
    return made


@pytest.mark.parametrize("name", DIGESTS)
def test_bits_are_those_of_the_seed_alone(name: str) -> None:
    torch.manual_seed(np.random.default_rng().integers(1 << 30))
    weights = untrained_weights("random:3", model(name))
    assert tensor_digest(weights) == DIGESTS[name]
    assert tensor_digest(untrained_weights("random:4", model(name))) != DIGESTS[name]


class Odd(nn.Module):
    """Tensors of every kind, drawn where they can be."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.ones = nn.Parameter(torch.ones(4))
        self.layer_scale = nn.Parameter(torch.full((4,), 1e-6))
        self.number = nn.Parameter(torch.randn(()))
        self.table_bias = nn.Parameter(torch.randn(4))
        self.register_buffer("index", torch.arange(12).view(3, 4))
        self.register_buffer("constant", torch.full((3, 4), 7.0))
        self.kernel = nn.Parameter(torch.randn(5, 4, 3))


def test_each_kind_of_tensor_has_its_rule() -> None:
    weights = untrained_weights("random:0", Odd())
    shown = {name: sorted(set(tensor.flatten().tolist())) for name, tensor in weights.items()}
    assert shown["scale"] == shown["token"] == shown["layer_scale"] == shown["number"] == [0.5]
    assert (shown["ones"], shown["table_bias"], shown["constant"]) == ([1.0], [0.0], [7.0])
    assert shown["index"] == list(range(12))
    assert weights["index"].dtype == torch.int64
    bound = (6 / 12) ** 0.5
    assert len(shown["kernel"]) == 60
    assert -bound <= shown["kernel"][0] < -0.5 * bound < 0.5 * bound < shown["kernel"][-1] <= bound


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("vit_tiny_patch16_224", {"depth": 24}), ("tf_efficientnet_lite0", {}), ("resnet18", {})],
)
def test_activations_stay_in_the_range_of_float16(name: str, arguments: dict[str, int]) -> None:
    network = model(name, **arguments).eval()
    load_strictly(network, untrained_weights("random:0", network))
    side = 32 if re.match("vit", name) else 64
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = network.forward_intermediates(pixels, intermediates_only=True)
    for layer_map in maps:
        assert 0.01 < float(layer_map.std()) < 1000
        assert float((layer_map[0] - layer_map[1]).abs().max()) > 0.01
