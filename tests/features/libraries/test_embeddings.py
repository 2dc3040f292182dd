"""Embeddings of networks that are not built in: places, company, threads, precisions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders.networks import CONVOLUTIONS, NATIVE, TOKENS_14, TOKENS_16, described, embedder
from numpy.typing import NDArray

from vocprep.errors import UsageError
from vocprep.features.embed import Embedder

pytestmark = pytest.mark.slow  # libraries of networks take seconds to load


def pictures(*shapes: tuple[int, int]) -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


@pytest.mark.parametrize("backbone", [CONVOLUTIONS, TOKENS_16, TOKENS_14])
def test_a_bright_patch_changes_its_own_embedding_and_its_own_cells_most(backbone: str) -> None:
    layer = "blocks.0" if backbone != CONVOLUTIONS else "blocks.2"
    network = embedder(described(backbone, (layer,), cells=2, geometry=NATIVE))
    (dark,) = network.embed_images([np.zeros((96, 160, 3), np.uint8)])
    for row, column in ((0, 0), (1, 3), (2, 4)):
        lit = np.zeros((96, 160, 3), np.uint8)
        lit[32 * row : 32 * row + 16, 32 * column + 16 : 32 * column + 32] = 255
        (found,) = network.embed_images([lit])
        change = np.abs(found - dark).reshape(3, 5, -1, 2, 2).sum(axis=2)
        place = np.unravel_index(int(change.argmax()), change.shape)
        assert tuple(map(int, place)) == (row, column, 0, 1)


@pytest.mark.parametrize(
    ("backbone", "precision"),
    [
        (CONVOLUTIONS, "fp32"),
        (CONVOLUTIONS, "bf16"),
        (TOKENS_16, "fp32"),
        (TOKENS_16, "bf16"),
        ("torchvision:mobilenet_v3_small", "fp32"),
    ],
)
def test_bits_depend_on_the_picture_alone(backbone: str, precision: str) -> None:
    found = described(backbone, geometry=NATIVE)
    images = pictures((64, 96), (96, 32), (64, 96), (32, 32), (64, 96))
    together = embedder(found, precision=precision).embed_images(images)
    network = embedder(found, precision=precision)
    for image, expected in zip(images, together, strict=True):
        (alone,) = network.embed_images([image])
        assert np.array_equal(alone, expected)
        assert len(alone) == image.shape[0] * image.shape[1] // 1024
    assert np.isfinite(together[0]).all()
    assert together[0].std() > 0


def test_bits_do_not_depend_on_threads() -> None:
    # Of this network torch gives other bits in two threads than in one.
    network = embedder(described("timm:tf_efficientnet_lite0", geometry=NATIVE))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(network.embed_images(pictures((96, 128)))[0])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*found)


def test_whole_chunks_of_one_size_for_any_number_of_pictures() -> None:
    network = embedder(described(CONVOLUTIONS), chunk=3)
    images = pictures(*[(224, 224)] * 4)
    together = network.embed_images(images)
    for image, expected in zip(images, together, strict=True):
        assert np.array_equal(network.embed_images([image])[0], expected)


def test_layers_are_joined_in_the_order_that_is_given() -> None:
    images = pictures((224, 224))
    parts = {
        layers: embedder(described(CONVOLUTIONS, layers, cells=2)).embed_images(images)[0]
        for layers in (("blocks.3", "final"), ("final", "blocks.3"), ("final",))
    }
    first, second = parts["blocks.3", "final"], parts["final", "blocks.3"]
    assert first.shape == (49, 48 * 4 + 256)
    assert np.array_equal(np.roll(first, 256, axis=1), second)
    np.testing.assert_allclose(second[:, :256], parts["final",], rtol=1e-4, atol=1e-5)


def test_bf16_is_near_fp32_and_other_arithmetic_is_refused() -> None:
    found = described(CONVOLUTIONS)
    images = pictures((224, 224))
    exact, near = (
        embedder(found, precision=name).embed_images(images)[0] for name in ("fp32", "bf16")
    )
    cosines = (exact * near).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(near, axis=1)
    assert 0.99 < cosines.min() < 1
    with pytest.raises(UsageError, match="leave --compile out"):
        embedder(found).compile()


def test_patches_of_28_pixels_are_those_of_the_picture_made_smaller() -> None:
    found = described(TOKENS_14, ("blocks.0",), cells=2)
    network: Embedder = embedder(found)
    halves = np.zeros((224, 224, 3), np.uint8)
    halves[:, 112:] = 255
    (embeddings,) = network.embed_images([halves])
    assert embeddings.shape == (49, 192 * 4)
    assert found.normalisation.mean == (0.48145466, 0.4578275, 0.40821073)
