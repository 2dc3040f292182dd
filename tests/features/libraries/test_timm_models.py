"""Models of timm: which layers they have, what fits, and what is said where it does not."""

from __future__ import annotations

import sys

import pytest
import timm
import torch
from builders.networks import CONVOLUTIONS, NATIVE, TOKENS_14, TOKENS_16, described

from vocprep.backbones import Layer, Network
from vocprep.errors import DataError, UsageError
from vocprep.features.libraries.kinds import make_network
from vocprep.geometry import Geometry

pytestmark = pytest.mark.slow  # libraries of networks take seconds to load


def test_layers_are_named_numbered_or_the_last_map_of_all() -> None:
    by_name = described(CONVOLUTIONS, ("blocks.3", "blocks.4"))
    assert described(CONVOLUTIONS, ("3", "-1")) == by_name
    assert by_name.layers == ("blocks.3", "blocks.4")
    assert by_name.network.layers == {
        "blocks.3": Layer(channels=48, cells=2),
        "blocks.4": Layer(channels=64, cells=1),
    }
    last = described(CONVOLUTIONS)
    assert last.layers == ("final",)
    assert last.network.layers == {"final": Layer(channels=256, cells=1)}
    assert last.network.library == f"timm {timm.__version__}"


def test_maps_are_those_that_timm_itself_computes() -> None:
    found = described(CONVOLUTIONS, ("blocks.1", "final"), cells=8)
    network = make_network(found.name, found.network).eval()
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert found.network.layers["blocks.1"].cells == 8
    with torch.inference_mode():
        maps = network(pixels)
        model = network.model
        stem = model.bn1(model.conv_stem(pixels))
        assert torch.equal(maps["blocks.1"], model.blocks[1](model.blocks[0](stem)))
        assert torch.equal(maps["final"], model.forward_features(pixels))


@pytest.mark.parametrize(
    ("backbone", "patch_pixels", "cells"),
    [
        (TOKENS_16, 32, 2),
        (TOKENS_14, 28, 2),
        ("timm:test_convnext", 32, 1),
        ("timm:test_mambaout", 32, 1),  # its last map has its channels last
        ("timm:test_vit3", 32, 2),  # of pictures of 160×160 pixels
    ],
)
@pytest.mark.parametrize("geometry", [Geometry(), NATIVE], ids=["crop", "native"])
def test_tokens_and_maps_tile_the_patches(
    backbone: str, patch_pixels: int, cells: int, geometry: Geometry
) -> None:
    found = described(backbone, geometry=geometry).network
    assert found.patch_pixels == patch_pixels
    assert found.layers["final"].cells == cells


def sentence(backbone: str, **choices: object) -> str:
    with pytest.raises(UsageError) as error:
        described(backbone, **choices)  # type: ignore[arg-type]
    return str(error.value)


def test_one_sentence_says_what_does_not_fit() -> None:
    near = sentence("timm:efficientnet_lite0x")
    assert near.startswith("backbone 'timm:efficientnet_lite0x': expected a model of timm ")
    assert "the nearest are efficientnet_lite0, " in near
    tag = sentence("timm:test_vit.nonsense")
    assert "expected one of the tags that timm" in tag
    assert "r160_in1k; or leave the tag out" in tag
    layer = sentence(CONVOLUTIONS, layers=("layer3",))
    assert layer == (
        "layers 'layer3': expected some of blocks.0, blocks.1, blocks.2, blocks.3, blocks.4, "
        f"final, or an index from 0 to 4, as {CONVOLUTIONS} has"
    )
    assert "'5': expected some of" in sentence(CONVOLUTIONS, layers=("5",))
    stride = sentence("timm:levit_128s")
    assert "layer 'final' gives 4×4 places for 7×7 patches of 32×32 pixels" in stride
    assert stride.endswith("choose another model or --layers")
    fixed = sentence("timm:mixer_s32_224", geometry=NATIVE)
    assert "a picture of 96×64 pixels does not pass it" in fixed
    assert fixed.endswith("choose another model, --layers or --geometry")
    several = sentence("timm:crossvit_9_240")
    assert "layer 'final' gives no map of the picture, but list" in several


def test_places_of_other_hosts_are_no_names() -> None:
    assert "expected a model of timm" in sentence("timm:hf-hub:timm/test_vit.r160_in1k")
    assert "expected a model of timm" in sentence("timm:local-dir:/tmp")


def test_without_timm_its_name_is_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    expected = f"backbone '{TOKENS_16}' needs the extra timm: run pip install 'vocprep[timm]'"
    assert sentence(TOKENS_16) == expected


def test_a_recipe_gives_timm_no_arguments_but_sizes_of_pictures() -> None:
    network = Network(
        library="timm 1.0.0",
        layers={"final": Layer(channels=1, cells=1)},
        config={"arguments": {"checkpoint_path": "/tmp/evil.pth"}},
    )
    with pytest.raises(DataError, match="expected none but dynamic_img_size and img_size"):
        make_network(TOKENS_16, network)


def test_the_generator_of_torch_is_as_it_was() -> None:
    before = torch.random.get_rng_state()
    described(TOKENS_16)
    assert torch.equal(torch.random.get_rng_state(), before)
