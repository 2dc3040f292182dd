"""Inference: from an image or its embeddings to a label map on the patch grid.

Shape legend: H, W pixels of the image; ny, nx its patch grid; P = ny·nx patches; D numbers of an
embedding; K = 4 slots, fewer where the label space has fewer classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.errors import RunError
from vocprep.features.reduction import as_stored
from vocprep.geometry import PATCH, Geometry, Grid
from vocprep.heads.model.decoding import decode
from vocprep.heads.model.tfdet import class_probabilities, top_labels
from vocprep.heads.model.view_outputs import ViewOutputs, mirrored_back
from vocprep.heads.runs.class_shares import Decoding
from vocprep.heads.runs.run import Run
from vocprep.placement import join_patches, mirror, place_image

LONG_SEQUENCE = 1024
"""Patches from which on attention is computed in pieces, to bound its memory."""


class PatchEmbedder(Protocol):
    """The part of ``vocprep.features.embed.Embedder`` that prediction uses."""

    def embed_images(self, images: Sequence[NDArray[np.uint8]], /) -> list[NDArray[np.float32]]:
        """Return embeddings [P, D] of each image [32·ny, 32·nx, 3]."""


@dataclass(frozen=True, kw_only=True)
class LabelMapPrediction:
    """The heads' output for one image."""

    grid: Grid
    label_map: NDArray[np.uint16]
    """[32·ny, 32·nx] class ids."""
    confidence: NDArray[np.float32]
    """[32·ny, 32·nx] probability of what decided the pixel's class, 0..1: the mask that won it, or
    the class itself where heads have cells."""
    patch_labels: NDArray[np.int64]
    """[P, K] the four strongest classes of each patch, the strongest first: their masks compete."""
    patch_probabilities: NDArray[np.float32]
    """[P, K] the probability of each of these classes, 0..1."""


@dataclass(frozen=True, kw_only=True)
class Prediction(LabelMapPrediction):
    """The same, with the image that the label map covers."""

    image: NDArray[np.uint8]
    """[32·ny, 32·nx, 3] the image after the geometry."""


@torch.inference_mode()
def predict_label_map(
    run: Run,
    embeddings: NDArray[np.floating],
    grid: Grid,
    mirrored: NDArray[np.floating] | None = None,
    class_weights: Tensor | None = None,
) -> LabelMapPrediction:
    """Return the label map of one image from its embeddings [P, D], row-major over ``grid``.

    With ``mirrored``, those of its mirror image, it is of the mean of both views; with
    ``class_weights`` float32 [C] of the classes' probabilities times these (``decoding.decode``).
    Raises RunError when the embeddings' shape does not fit the grid and the run.
    """
    expected = (grid[0] * grid[1], run.config.heads.embedding_dim)
    views = [embeddings] if mirrored is None else [embeddings, mirrored]
    for each in views:
        if each.shape != expected:
            raise RunError(
                f"{run.path}: expected embeddings of shape {expected} for a grid of {grid}, found "
                f"{each.shape}; embed with the backbone {run.config.recipe.backbone}"
            )
    device, config = run.model.device, run.config.heads
    grids = torch.tensor([grid], dtype=torch.int64, device=device)
    first, *others = (_run(run, each, grids) for each in views)
    weights = None if class_weights is None else class_weights.to(device)
    found = decode(
        [first, *(mirrored_back(each, grids) for each in others)], grids, config, weights
    )
    class_logits, pixels = found.patch_logits, found.pixels
    labels = pixels.label_map[0].cpu().numpy().astype(np.uint16)
    top = top_labels(class_logits)[0]
    shares = class_probabilities(class_logits[0], config.class_loss).gather(-1, top)
    confidence = pixels.confidence[0].cpu().numpy()
    return LabelMapPrediction(
        grid=grid,
        label_map=join_patches(labels.reshape(-1, PATCH, PATCH), grid),
        confidence=join_patches(confidence.reshape(-1, PATCH, PATCH), grid),
        patch_labels=top.cpu().numpy(),
        patch_probabilities=shares.cpu().numpy(),
    )


def _run(run: Run, embeddings: NDArray[np.floating], grids: Tensor) -> ViewOutputs:
    """Return the outputs for one image's embeddings [P, D]."""
    tokens = torch.from_numpy(embeddings.astype(np.float32)).to(grids.device).unsqueeze(0)
    with _bounded_attention(len(embeddings)):
        class_logits, mask_logits = run.model(tokens, None, grids)
    return ViewOutputs(class_logits=class_logits, mask_logits=mask_logits)


def predict_image(
    run: Run,
    image: NDArray[np.uint8],
    embedder: PatchEmbedder,
    geometry: Geometry | None = None,
    decoding: Decoding | None = None,
) -> Prediction:
    """Return the prediction for an image uint8 [H, W, 3] (RGB).

    The image is processed as in the run's shards: geometry (another one when given), patches,
    ``embedder`` and the shards' embedding dtype, so that the result equals that of evaluation.
    All its patches are one sequence: a run trained on crops labels a large image with geometry
    ``native``, at positions and lengths that did not occur in training. With edge ``pad`` the label
    map has the image's own size. With ``decoding.tta`` ``flip`` what the geometry leaves of the
    image is embedded mirrored too. ``embedder`` must hold the run's weights and normalisation.
    Raises DataError when no patch fits the image, RunError when the embeddings are of another size.
    """
    geometry = geometry or run.config.recipe.geometry
    placed = place_image(image, geometry)
    decoding = decoding or Decoding()
    views = [placed] if decoding.tta == "none" else [placed, mirror(placed)]
    stored, *mirrored = (
        as_stored(embeddings, run.config.recipe.embedding_dtype, "the picture")
        for embeddings in embedder.embed_images(views)
    )
    grid = (placed.shape[0] // PATCH, placed.shape[1] // PATCH)
    found = predict_label_map(
        run, stored, grid, mirrored[0] if mirrored else None, decoding.class_weights
    )
    # The padding that completes the last patches is cut off.
    height, width = image.shape[:2] if geometry.edge == "pad" else placed.shape[:2]
    return Prediction(
        grid=grid,
        label_map=found.label_map[:height, :width],
        confidence=found.confidence[:height, :width],
        patch_labels=found.patch_labels,
        patch_probabilities=found.patch_probabilities,
        image=placed[:height, :width],
    )


@contextmanager
def _bounded_attention(patches: int) -> Iterator[None]:
    """Keep the memory of a long sequence's attention proportional to its length.

    PyTorch's fused encoder layer holds a weight for every pair of patches: 4 GB for a photograph of
    12 megapixels. The unfused path holds a few rows at a time and is faster there.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(before and patches < LONG_SEQUENCE)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
