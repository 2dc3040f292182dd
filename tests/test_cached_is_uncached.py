"""Heads fed from shards against heads fed through the backbone: caching changes no result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from builders.heads import MASK_HEADS
from builders.networks import TOKENS_14
from builders.versions import JPEGS, WEIGHTS, build
from PIL import Image
from torch import Tensor, nn

from vocprep.features.networks import cifar100_resnet32
from vocprep.features.weights import load_weights
from vocprep.geometry import Geometry
from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.losses import compute_losses
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.options import BuildChoices, LoaderOptions
from vocprep.placement import place_image, split_patches
from vocprep.recipe import EmbeddingDtype
from vocprep.shards.reader import Batch

pytestmark = pytest.mark.slow


@torch.no_grad()
def uncached_embeddings(pictures: list[Tensor], batch: Batch) -> Tensor:
    """Return what plain trunk and pool, for which the cache stands in, give of a batch."""
    network = cifar100_resnet32()
    network.load_state_dict(load_weights(WEIGHTS, Path()))
    trunk = nn.Sequential(*list(network.children())[:-2]).eval()
    tokens = torch.zeros(*batch.padding.shape, 256)
    for row, patches in enumerate(pictures):
        maps = torch.nn.functional.avg_pool2d(trunk(patches), 4)
        tokens[row, : len(patches)] = maps.flatten(1)
    return tokens


def raw_patches(tree: Path, image_id: str, geometry: Geometry) -> Tensor:
    with Image.open(tree / JPEGS / f"{image_id}.jpg") as picture:
        pixels = split_patches(place_image(np.asarray(picture), geometry))
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean = torch.tensor([0.5070, 0.4865, 0.4409]).view(3, 1, 1)
    std = torch.tensor([0.2673, 0.2564, 0.2761]).view(3, 1, 1)
    return (scaled - mean) / std


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference, in units of the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max())


Outputs = tuple[Tensor, Tensor]
Pair = tuple[Outputs, Outputs, list[Tensor], list[Tensor]]


@pytest.fixture(
    params=[Geometry(), Geometry(geometry="native")], ids=lambda geometry: geometry.short_name
)
def compare(
    request: pytest.FixtureRequest, sample_tree: Path, tmp_path: Path
) -> Callable[[EmbeddingDtype], list[Pair]]:
    """Return a function that gives cached and uncached outputs and gradients of all mask heads."""
    geometry: Geometry = request.param

    def run(dtype: EmbeddingDtype) -> list[Pair]:
        choices = BuildChoices(
            splits=("val",), geometry=geometry, embedding_dtype=dtype, precision="fp32"
        )
        built = build(sample_tree, tmp_path / dtype, choices)
        (batch,) = built.dataset.loader("val", LoaderOptions())
        pictures = [raw_patches(sample_tree, image_id, geometry) for image_id in batch.image_ids]
        torch.manual_seed(0)
        embeddings = uncached_embeddings(pictures, batch)
        small = {"outputs": 460, "depth": 1}
        configs = [HeadsConfig(**small, **fields) for fields in MASK_HEADS.values()]
        return [outputs_of(TFDetHeads.from_config(c).eval(), batch, embeddings) for c in configs]

    def outputs_of(heads: TFDetHeads, batch: Batch, embeddings: Tensor) -> Pair:
        cached, uncached = (
            heads(each, batch.padding, batch.grids) for each in (batch.embeddings, embeddings)
        )
        gradients = []
        for outputs in (cached, uncached):
            loss = compute_losses(*outputs, batch, heads.config).total
            gradients.append(list(torch.autograd.grad(loss, list(heads.parameters()))))
        kept = ~batch.padding
        return (
            (cached[0][kept].detach(), cached[1][kept].detach()),
            (uncached[0][kept].detach(), uncached[1][kept].detach()),
            *gradients,
        )

    return run


def test_float32_shard_gives_the_outputs_and_gradients_of_the_backbone(
    compare: Callable[[EmbeddingDtype], list[Pair]],
) -> None:
    for cached, uncached, cached_gradients, gradients in compare("float32"):
        for found, expected in zip(cached, uncached, strict=True):
            assert relative(found, expected) < 1e-4
        assert len(gradients) > 15
        for found, expected in zip(cached_gradients, gradients, strict=True):
            assert expected.abs().max() > 0
            assert relative(found, expected) < 1e-3


def test_a_network_of_a_library_is_stored_as_it_is_computed(
    sample_tree: Path, tmp_path: Path
) -> None:
    choices = BuildChoices(backbone=TOKENS_14, limit_per_split=1, embedding_dtype="float32")
    built = build(sample_tree, tmp_path / "shards", choices)
    model = timm.create_model("eva02_tiny_patch14_224", dynamic_img_size=True).eval()
    model.load_state_dict(built.plan.weights)
    mean, std = ([*model.pretrained_cfg[name]] for name in ("mean", "std"))
    for image_id, record in built.records.items():
        with Image.open(sample_tree / JPEGS / f"{image_id}.jpg") as picture:
            placed = Image.fromarray(place_image(np.asarray(picture), Geometry()))
        small = torch.from_numpy(np.array(placed.resize((196, 196), Image.Resampling.BILINEAR)))
        pixels = (small / 255 - torch.tensor(mean)) / torch.tensor(std)
        with torch.inference_mode():
            tokens = model.forward_features(pixels.permute(2, 0, 1)[None])[0, 1:]
        places = tokens.reshape(14, 14, 192)
        expected = [
            places[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].permute(2, 0, 1).flatten()
            for row in range(7)
            for column in range(7)
        ]
        assert relative(torch.from_numpy(record.embeddings), torch.stack(expected)) < 1e-4


def test_float16_shard_gives_nearly_the_outputs_of_the_backbone(
    compare: Callable[[EmbeddingDtype], list[Pair]],
) -> None:
    for cached, uncached, _, _ in compare("float16"):
        for found, expected in zip(cached, uncached, strict=True):
            assert 0 < relative(found, expected) < 5e-3
