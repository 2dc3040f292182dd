"""Passes as CUDA graphs, and what embeddings on a GPU depend on. Without one these are left out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from vocprep.features import embed
from vocprep.features.embed import Embedder, EmbeddingSpec
from vocprep.features.on_device.graphs import ChunkGraph
from vocprep.features.on_device.placing import Picture
from vocprep.features.weights import load_weights
from vocprep.geometry import Geometry
from vocprep.placement import place_image
from vocprep.recipe import Precision

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

GPU, CPU = torch.device("cuda"), torch.device("cpu")
WEIGHTS = load_weights("random:0", Path())
PRECISIONS = get_args(Precision)
CHUNK = 196


def images(count: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (224, 224, 3), dtype=np.uint8) for _ in range(count)]


def embedder(precision: Precision, device: torch.device = GPU) -> Embedder:
    return Embedder(WEIGHTS, EmbeddingSpec(precision=precision), device=device, chunk=CHUNK)


def test_graph_gives_what_its_function_gives_to_inputs_up_to_its_size() -> None:
    graph = ChunkGraph(lambda x: x * 2 + 1, torch.zeros(8, 3, device=GPU))
    for count in (8, 5, 1):
        inputs = torch.randn(count, 3, device=GPU)
        output = torch.empty_like(inputs)
        graph.replay(inputs, output)
        assert torch.equal(output, inputs * 2 + 1)


def test_what_cannot_be_captured_has_no_graph() -> None:
    def reads_back(x: Tensor) -> Tensor:
        return x * float(x.sum())

    assert ChunkGraph.capture(reads_back, torch.ones(4, device=GPU)) is None
    assert torch.equal(torch.ones(2, device=GPU) + 1, torch.full((2,), 2.0, device=GPU))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bits_are_those_without_a_graph_alone_and_in_any_company(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphed = embedder(precision)
    monkeypatch.setattr(embed.ChunkGraph, "capture", lambda *_: None)
    eager, some = embedder(precision), images(9)
    expected = eager.embed_images(some)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(graphed.embed_images, [some, some[::-1], some[3:4]]))
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], expected[::-1])
    np.testing.assert_array_equal(found[2], expected[3:4])
    np.testing.assert_array_equal(eager.embed_images(some[5:6]), expected[5:6])


def test_exact_embeddings_are_those_of_a_cpu() -> None:
    some = images(3)
    on_gpu = embedder("exact").embed_images(some)
    np.testing.assert_array_equal(on_gpu, embedder("exact", CPU).embed_images(some))


def test_pictures_are_embedded_as_if_placed_before() -> None:
    one, crop = embedder("bf16"), Geometry()
    draw = np.random.default_rng(1)
    sizes = ((300, 400), (900, 300), (224, 224))
    decoded = [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    found = one.embed_images([Picture(image, crop) for image in decoded])
    np.testing.assert_array_equal(found, one.embed_images([place_image(i, crop) for i in decoded]))
