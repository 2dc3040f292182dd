"""Whether heads see the same through the cache as through the backbone.

Shape legend: P patches, D embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.geometry import Grid
from vocprep.heads.model.tfdet import TFDetHeads

TOLERANCES = {"float32": 1e-4, "float16": 5e-3}
"""Largest difference of outputs, by the dtype that embeddings are stored in, in units of the
largest output."""


@dataclass(frozen=True, kw_only=True)
class HeadsDeviation:
    """Largest differences of the heads' outputs, in units of the largest output."""

    category: float
    """Of the category logits."""
    mask: float
    """Of the mask logits."""

    @property
    def largest(self) -> float:
        """The larger of the two."""
        return max(self.category, self.mask)


@torch.inference_mode()
def compare_through_heads(
    pairs: Iterable[tuple[Grid, NDArray[Any], NDArray[Any]]], categories: int
) -> HeadsDeviation:
    """Run fresh seeded heads over embeddings [P, D] as stored and as made by the backbone.

    ``pairs`` holds grid, stored and made embeddings of each picture.
    """
    worst = [0.0, 0.0]
    model: TFDetHeads | None = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for grid, stored, made in pairs:
            if model is None:
                model = TFDetHeads(categories, embedding_dim=stored.shape[1]).eval()
            outputs = [_run(model, grid, embeddings) for embeddings in (stored, made)]
            for place, (found, expected) in enumerate(zip(*outputs, strict=True)):
                scale = float(expected.abs().max()) or 1.0
                worst[place] = max(worst[place], float((found - expected).abs().max()) / scale)
    return HeadsDeviation(category=worst[0], mask=worst[1])


def _run(model: TFDetHeads, grid: Grid, embeddings: NDArray[Any]) -> tuple[Tensor, Tensor]:
    tokens = torch.from_numpy(embeddings.astype("float32"))[None]
    outputs: tuple[Tensor, Tensor] = model(tokens, None, torch.tensor([grid]))
    return outputs
