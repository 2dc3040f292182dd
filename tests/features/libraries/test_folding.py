"""Batch norms are folded where a convolution feeds them alone, and nothing but rounding changes."""

from __future__ import annotations

import pytest
import torch
from builders.networks import described, made
from torch import Tensor, nn

from vocprep.features.libraries.folding import fold_norms
from vocprep.features.libraries.maps import MapNetwork

pytestmark = pytest.mark.slow  # libraries of networks take seconds to load


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("backbone", "remaining"),
    [
        ("timm:test_efficientnet", 0),  # norms that hold an activation
        ("timm:test_resnet", 0),
        ("timm:tf_mobilenetv3_small_minimal_100", 0),  # convolutions that pad by themselves
        ("timm:test_nfnet", 0),  # convolutions of standardised weights, without norms
        ("torchvision:mobilenet_v3_small", 0),
    ],
)
def test_the_maps_stay(backbone: str, remaining: int) -> None:
    network = made(described(backbone))
    before = norms(network)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, 224, 224, generator=generator)
    with torch.inference_mode():
        expected = network(pixels)
    assert fold_norms(network, torch.zeros(1, 3, 224, 224)) == before - remaining
    assert norms(network) == remaining
    with torch.inference_mode():
        for name, found in network(pixels).items():
            largest = float(expected[name].abs().max())
            torch.testing.assert_close(found, expected[name], rtol=0, atol=1e-5 * largest)


class Untidy(MapNetwork):
    """Norms behind convolutions that folding must leave as they are."""

    def __init__(self) -> None:
        super().__init__(nn.Module())
        self.shared = nn.Conv2d(3, 3, 1)
        self.after_shared = nn.BatchNorm2d(3)
        self.twice = nn.Conv2d(3, 3, 1)
        self.after_twice = nn.BatchNorm2d(3)
        self.strange = Doubled(3, 3, 1)
        self.after_strange = nn.BatchNorm2d(3)
        self.apart = nn.Conv2d(3, 3, 1)
        self.after_apart = nn.BatchNorm2d(3)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        x = self.shared(pixels)
        x = x + self.after_shared(x)
        x = self.after_twice(self.twice(self.twice(x)))
        x = self.after_strange(self.strange(x))
        return {"map": self.after_apart(self.apart(x).relu())}


class Doubled(nn.Conv2d):
    """A convolution whose weights are not used as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * 2, self.bias)


def test_norms_that_are_not_alone_behind_a_plain_convolution_stay() -> None:
    assert fold_norms(Untidy(), torch.zeros(1, 3, 4, 4)) == 0
