"""Small runs to be exported, and a backbone of one convolution."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from builders.heads import DIM, SCHEMA, make_recipe, save_run
from vocprep.backbones import BACKBONES, DEFAULT_BACKBONE, NORMALISATIONS, Backbone, Layer
from vocprep.exporting.runs.source import RunSource
from vocprep.features.networks import MAKERS
from vocprep.features.reduction import as_stored
from vocprep.features.weights import load_weights, tensor_digest
from vocprep.geometry import Grid
from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.predict import PredictOptions, predict
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.run import Run
from vocprep.heads.runs.state import save_weights
from vocprep.labels.label_space import load_label_space
from vocprep.synthetic.scene import draw_scene

ONE_CONVOLUTION = "one-convolution"
WEIGHTS = "random:0"


class OneConvolution(nn.Module):
    """Maps of 4×4 places of a patch, which is all that embeddings need."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Conv2d(3, 32, 8, stride=8)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer1(x)
        return found


@contextmanager
def one_convolution() -> Iterator[None]:
    """Add the backbone to the table of built-in ones: 32 channels of 2×2 cells."""
    entry = Backbone(
        title="One convolution",
        citation="nobody",
        layers={"layer1": Layer(channels=32, cells=2)},
        normalisation=NORMALISATIONS["imagenet"],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, ONE_CONVOLUTION, entry)
        patch.setitem(MAKERS, ONE_CONVOLUTION, OneConvolution)
        yield


def small_run(path: Path, heads: Mapping[str, Any], **recipe: Any) -> Run:
    """Write a run of untrained heads on the features of untrained weights, and return it."""
    backbone = recipe.setdefault("backbone", DEFAULT_BACKBONE)
    recipe["weights_sha256"] = tensor_digest(load_weights(WEIGHTS, Path("data"), backbone))
    recipe.setdefault("normalisation", BACKBONES[backbone].normalisation)
    labels = load_label_space(SCHEMA)
    config = RunConfig(
        heads=HeadsConfig(outputs=labels.outputs, **heads),
        options=TrainOptions(epochs=1),
        labels=labels,
        recipe=make_recipe({}, **recipe),
        content_id="12" * 32,
        source_id="34" * 32,
        class_pixels={label: 10**label for label in range(6)},
    )
    torch.manual_seed(1)
    model = TFDetHeads.from_config(config.heads)
    draws = np.random.default_rng(0).uniform(0.1, 1, (2, config.heads.embedding_dim))
    model.standardise.fit(*torch.from_numpy(draws).float())
    for parameter in model.parameters():
        parameter.data *= 2  # so that classes and masks differ from place to place
    run = Run(path=path, config=config, model=model.eval(), epoch=1)
    save_run(run, path)
    return run


def fitted(source: RunSource) -> RunSource:
    """Fit the statistics that standardise embeddings, so that classes differ within a picture."""
    (embeddings,) = source.embedder.embed_images([picture(0, (7, 7))])
    mean, std = (torch.from_numpy(each) for each in (embeddings.mean(0), embeddings.std(0)))
    run = source.run
    run.model.standardise.fit(mean, std)
    save_weights(run.path, run.config, run.model, run.epoch)
    return source


SMALL = {"depth": 1, "feedforward": 64, "embedding_dim": DIM}
"""Fields of ``HeadsConfig`` of small heads."""


def picture(number: int, grid: Grid) -> NDArray[np.uint8]:
    image = draw_scene(7, number).image
    return np.ascontiguousarray(image[: 32 * grid[0], : 32 * grid[1]])


def batch_of(source: RunSource, grids: list[Grid]) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    """Return the embeddings of a picture of each grid, and these as a padded batch."""
    pictures = [picture(number, grid) for number, grid in enumerate(grids)]
    embedded = source.embedder.embed_images(pictures)
    each = [as_stored(found, "float16", "a picture") for found in embedded]
    batch = np.full((len(each), max(map(len, each)), each[0].shape[1]), 9, dtype=np.float32)
    for row, own in zip(batch, each, strict=True):
        row[: len(own)] = own
    return each, batch


def predicted(
    source: RunSource, image: NDArray[np.uint8], folder: Path
) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Return the label map and confidence that ``vocprep.predict`` gives a picture."""
    Image.fromarray(image).save(folder / "picture.png")
    options = PredictOptions(
        weights=WEIGHTS, prior_power=source.options.prior_power, confidence=True, device="cpu"
    )
    (found,) = predict(source.run.path, folder / "picture.png", options=options).images
    assert found.confidence is not None
    return found.label_map, found.confidence


def run_block(word: str) -> dict[str, Any]:
    """Run the one block of Python in docs/guides/export.md that has a word; return its names."""
    guide = (Path(__file__).parents[2] / "docs/guides/export.md").read_text(encoding="utf-8")
    (block,) = [
        each for each in re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL) if word in each
    ]
    names: dict[str, Any] = {}
    exec(compile(block, "docs/guides/export.md", "exec"), names)
    return names
