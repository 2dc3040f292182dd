"""The embeddings of the module to export, before it is exported, beside those of a build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.exported_runs import SMALL, WEIGHTS, small_run

from vocprep.exporting.options import ExportOptions
from vocprep.exporting.runs.pixels_program import cut_windows
from vocprep.exporting.runs.source import run_source
from vocprep.features.on_device.placing import cut_patches, shrink_windows
from vocprep.geometry import Geometry
from vocprep.recipe import Reduction

PROJECTED = {
    **{"windows": (32, 256), "precision": "exact", "embedding_dtype": "float32"},
    "reduction": Reduction(kind="projection", size=64, seed=0),
}
WHOLE = {
    **{"backbone": "resnet18-imagenet", "layers": ("layer4",), "windows": ()},
    "geometry": Geometry(),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "recipe"),
    [
        (256, {"precision": "exact"}),
        (256, {"precision": "bf16"}),
        (1536, {"precision": "fp32", "windows": (64, 32), "layers": ("layer2", "layer3")}),
        (64, PROJECTED),
        (512, WHOLE),
    ],
)
def test_embeddings_are_those_of_a_build(tmp_path: Path, size: int, recipe: dict[str, Any]) -> None:
    run = small_run(tmp_path / "run", {**SMALL, "embedding_dim": size}, **recipe)
    source = run_source(run, ExportOptions(weights=WEIGHTS))
    draw = np.random.default_rng(0)
    grid = (7, 7) if recipe is WHOLE else (1, 3)
    pictures = draw.integers(0, 256, (2, 32 * grid[0], 32 * grid[1], 3), dtype=np.uint8)
    with torch.no_grad():
        found = source.pixels().embedding(torch.from_numpy(pictures)).numpy()
    stored = run.config.recipe.embedding_dtype
    expected = np.concatenate(source.embedder.embed_images(list(pictures))).astype(stored)
    if recipe.get("precision") == "exact":
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("window", [32, 64, 128, 256])
@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (7, 3)])
def test_windows_are_those_of_a_build(window: int, grid: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    picture = draw.integers(0, 256, (32 * grid[0], 32 * grid[1], 3), dtype=np.uint8)
    pictures = torch.from_numpy(np.stack([picture, picture[:, ::-1]]))
    expected = cut_patches(*shrink_windows(pictures, window))
    np.testing.assert_array_equal(cut_windows(pictures, window).numpy(), expected.numpy())
