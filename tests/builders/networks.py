"""Networks of libraries, described and made as a build does."""

from __future__ import annotations

from typing import Any

import torch

from vocprep.features.embed import Embedder, EmbeddingSpec
from vocprep.features.libraries.kinds import describe_network, make_network
from vocprep.features.libraries.maps import DescribedNetwork, MapNetwork, NetworkChoice
from vocprep.features.weights import load_weights
from vocprep.geometry import Geometry
from vocprep.storage.places import parse_place

NATIVE = Geometry(geometry="native")
CONVOLUTIONS = "timm:test_efficientnet"
TOKENS_16 = "timm:test_vit"
TOKENS_14 = "timm:eva02_tiny_patch14_224"


def described(
    backbone: str,
    layers: tuple[str, ...] | None = None,
    cells: int | None = None,
    geometry: Geometry | None = None,
) -> DescribedNetwork:
    model = backbone.partition(":")[2]
    choice = NetworkChoice(model=model, layers=layers, cells=cells, geometry=geometry or Geometry())
    return describe_network(backbone, choice)


def made(found: DescribedNetwork, seed: int = 0) -> MapNetwork:
    """The network in eval mode, with batch norms that do something."""
    network = make_network(found.name, found.network).eval()
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(generator=generator)
    return network


def embedder(found: DescribedNetwork, **options: Any) -> Embedder:
    """Of untrained weights, as a build with ``random:0`` makes it."""
    chunk = options.pop("chunk", None)
    weights = load_weights("random:0", parse_place("data"), found.name, found.network)
    spec = EmbeddingSpec(
        backbone=found.name,
        windows=(),
        layers=found.layers,
        normalisation=found.normalisation,
        network=found.network,
        **options,
    )
    return Embedder(weights, spec, device=torch.device("cpu"), chunk=chunk)
