"""Each exported file is compared with predictions of the run itself before it gets its name.

Its inputs are embeddings and pixels of generated pictures, of other patch grids than it was traced
with. Sums of floating-point numbers differ in their last bits from library to library. Where two
classes are as likely as each other, a number of an embedding is between two of float16, or a spike
is at its threshold, these bits decide: so a few pixels may differ.

Shape legend: B batch, P patches, C classes, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vocprep.errors import DataError
from vocprep.exporting.options import Part
from vocprep.exporting.runs.program import OUTPUTS, Arrays, Computed, fixed_grid
from vocprep.exporting.runs.source import RunSource
from vocprep.features.on_device.placing import scale_patches
from vocprep.features.reduction import as_stored
from vocprep.geometry import PATCH, Grid
from vocprep.heads.predict_image import LabelMapPrediction, predict_label_map
from vocprep.placement import split_patches
from vocprep.synthetic.scene import draw_scene

TOLERANCE = 2e-3
"""By how much probabilities may differ."""
LEAST, LEAST_OF_SPIKES = 0.99, 0.95
"""Share of pixels that must agree; with an encoder of spikes, each of which changes others."""
_GRIDS: Sequence[Grid] = ((5, 4), (1, 1), (1, 6))
Example = tuple[Arrays, Sequence[LabelMapPrediction]]
"""Inputs of a program, and what the run predicts for each picture of the batch."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """At how many pixels an exported file gives what the run predicts."""

    pixels: int
    agreeing: int
    """Those of the same class, with probabilities within the tolerance."""

    def __str__(self) -> str:
        return f"{self.agreeing:,} of {self.pixels:,} pixels as PyTorch predicts them"


def check(source: RunSource, part: Part, name: str, program: Computed) -> Agreement:
    """Return how far an exported file agrees with the run; DataError where it does not.

    ``program`` returns the outputs of the file, in its order, for inputs in its order.
    """
    agreement = _compared(source, part, program)
    least = LEAST_OF_SPIKES if source.run.config.heads.encoder == "spikformer" else LEAST
    if agreement.agreeing < least * agreement.pixels:
        raise DataError(
            f"{name}: expected the classes that the run predicts, and probabilities within "
            f"{TOLERANCE}, at {100 * least:g} % of pixels or more; found {agreement}: nothing was "
            "written; export with other versions of torch and of the libraries in the extra export"
        )
    return agreement


@torch.inference_mode()
def _compared(source: RunSource, part: Part, program: Computed) -> Agreement:
    pixels = agreeing = 0
    for inputs, expected in _EXAMPLES[part](source):
        outputs = dict(zip(OUTPUTS[part], program(inputs), strict=True))
        for place, prediction in enumerate(expected):
            found = {name: values[place] for name, values in outputs.items()}
            agree = _agreement(found, prediction)
            pixels, agreeing = pixels + agree.size, agreeing + int(agree.sum())
    return Agreement(pixels=pixels, agreeing=agreeing)


def _agreement(
    found: Mapping[str, NDArray[Any]], expected: LabelMapPrediction
) -> NDArray[np.bool_]:
    """Return at which pixels [P, 32, 32] the outputs for a picture are those expected."""
    label_map, confidence = (_in_patches(found[name]) for name in ("label_map", "confidence"))
    count = len(expected.patch_labels)  # what follows is padding
    difference = confidence[:count] - split_patches(expected.confidence)
    agree: NDArray[np.bool_] = np.abs(difference) <= TOLERANCE
    agree &= label_map[:count] == split_patches(expected.label_map)
    if (chances := found.get("class_probabilities")) is not None:
        ranked = np.take_along_axis(chances[:count], expected.patch_labels, axis=1)
        furthest = np.abs(ranked - expected.patch_probabilities).max(axis=1)
        agree &= (furthest <= TOLERANCE)[:, None, None]
    return agree


def _in_patches(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels if pixels.ndim == 3 else split_patches(pixels)


def _heads_examples(source: RunSource) -> Iterator[Example]:
    """Yield pictures of several grids as one batch."""
    grids = [fixed_grid(source) or grid for grid in _GRIDS]
    embeddings = [_embeddings(source, number, grid) for number, grid in enumerate(grids)]
    size = embeddings[0].shape[1]
    batch = np.zeros((len(grids), max(map(len, embeddings)), size), dtype=np.float32)
    for row, each in zip(batch, embeddings, strict=True):
        row[: len(each)] = each
    expected = [_predicted(source, *each) for each in zip(embeddings, grids, strict=True)]
    yield (batch, np.array(grids, dtype=np.int64)), expected


def _pixels_examples(source: RunSource) -> Iterator[Example]:
    """Yield a batch of two pictures, then one picture alone of each of some other grids."""
    side = source.spec.described_backbone.patch_pixels
    for numbers, any_grid in zip(((0, 1), (2,), (3,)), _GRIDS, strict=True):
        grid = fixed_grid(source) or any_grid
        pictures = [_picture(number, grid) for number in numbers]
        inputs = scale_patches(torch.from_numpy(np.stack(pictures)), side).numpy()
        each = [_embeddings(source, number, grid) for number in numbers]
        yield (inputs,), [_predicted(source, embeddings, grid) for embeddings in each]


_EXAMPLES: Mapping[Part, Callable[[RunSource], Iterator[Example]]] = {
    "heads": _heads_examples,
    "pixels": _pixels_examples,
}


def _embeddings(source: RunSource, number: int, grid: Grid) -> NDArray[np.floating]:
    """Return a picture's embeddings [P, D]; without a backbone numbers distributed as theirs."""
    if "pixels" in source.parts:
        (embeddings,) = source.embedder.embed_images([_picture(number, grid)])
        return as_stored(embeddings, source.run.config.recipe.embedding_dtype, "a picture")
    mean, std = (each.numpy() for each in source.run.model.standardise.buffers())
    draws = np.random.default_rng(number).standard_normal((grid[0] * grid[1], len(mean)))
    return (mean + std * draws).astype(np.float32)


def _picture(number: int, grid: Grid) -> NDArray[np.uint8]:
    """Return the upper left of a generated picture as uint8 [32·ny, 32·nx, 3]."""
    image = draw_scene(0, number).image
    return np.ascontiguousarray(image[: PATCH * grid[0], : PATCH * grid[1]])


def _predicted(
    source: RunSource, embeddings: NDArray[np.floating], grid: Grid
) -> LabelMapPrediction:
    return predict_label_map(source.run, embeddings, grid, None, source.class_weights)
