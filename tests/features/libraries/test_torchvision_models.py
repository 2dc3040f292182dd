"""Models of torchvision: their stages, any other layer, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders.networks import NATIVE, described, embedder, made
from torchvision.models import mobilenet_v3_small

from vocprep.backbones import NORMALISATIONS, Layer
from vocprep.errors import UsageError
from vocprep.features.libraries.kinds import make_network

pytestmark = pytest.mark.slow  # libraries of networks take seconds to load

SMALL = "torchvision:mobilenet_v3_small"


def test_layers_are_stages_by_name_or_index_or_any_operation() -> None:
    last = described(SMALL)
    assert last.layers == ("features",)
    assert last.network.layers == {"features": Layer(channels=576, cells=1)}
    assert last.normalisation == NORMALISATIONS["imagenet"]
    by_name = described(SMALL, ("features.8", "features.0"), cells=4, geometry=NATIVE)
    assert described(SMALL, ("8", "0"), cells=4, geometry=NATIVE) == by_name
    assert by_name.network.layers == {
        "features.8": Layer(channels=48, cells=2),
        "features.0": Layer(channels=16, cells=4),
    }
    inner = described(SMALL, ("features.4.block.1",)).network.layers
    assert inner == {"features.4.block.1": Layer(channels=96, cells=2)}


def test_maps_are_those_of_the_modules_themselves() -> None:
    found = described(SMALL, ("features.3", "features"))
    network = made(found)
    expected = mobilenet_v3_small(weights=None).eval()
    expected.load_state_dict(network.model.state_dict())
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = network(pixels)
        assert torch.equal(maps["features.3"], expected.features[:4](pixels))
        assert torch.equal(maps["features"], expected.features(pixels))


@pytest.mark.slow
def test_resnet50_and_tokens_and_channels_that_come_last() -> None:
    both = described("torchvision:resnet50", ("layer4", "layer3"), cells=2)
    assert both.network.layers == {
        "layer4": Layer(channels=2048, cells=1),
        "layer3": Layer(channels=1024, cells=2),
    }
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    (embeddings,) = embedder(both).embed_images([image])
    assert embeddings.shape == (49, 2048 + 4 * 1024)
    assert embeddings.std() > 0
    tokens = described("torchvision:vit_b_16", cells=2)
    assert tokens.network.layers == {"encoder": Layer(channels=768, cells=2)}
    swin = described("torchvision:swin_t", ("features.5",), cells=2).network
    assert swin.layers == {"features.5": Layer(channels=384, cells=2)}


def test_one_sentence_says_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="; the nearest are resnet"):
        described("torchvision:resnet19")
    with pytest.raises(UsageError, match="layers 'layer9': expected some of features"):
        described(SMALL, ("layer9",))
    with pytest.raises(UsageError, match="none of its stages has a map that tiles the patches"):
        described("torchvision:squeezenet1_1")


def test_a_recipe_of_another_version_says_so() -> None:
    found = described(SMALL).network
    other = type(found)(library="torchvision 9.9", layers={"nowhere": Layer(channels=1, cells=1)})
    with pytest.raises(UsageError, match=r"expected as in torchvision 9\.9; install that version"):
        make_network(SMALL, other)
