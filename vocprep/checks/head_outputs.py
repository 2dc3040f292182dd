"""Whether heads compute the same from stored embeddings as from recomputed ones.

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
from vocprep.recipe import EmbeddingDtype

HEAD_OUTPUT_TOLERANCES: dict[EmbeddingDtype, float] = {"float32": 1e-4, "float16": 5e-3}
"""Largest difference of outputs, by the dtype that embeddings are stored in, in units of the
largest output."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingPair:
    """A record's embeddings as stored and as recomputed."""

    grid: Grid
    stored: NDArray[Any]
    """[P, D]"""
    recomputed: NDArray[Any]
    """[P, D], not rounded for storage."""


@dataclass(frozen=True, kw_only=True)
class HeadOutputDeviation:
    """Largest differences of the heads' outputs, in units of the largest output."""

    class_logits: float
    mask_logits: float

    @property
    def largest(self) -> float:
        """The larger of the two."""
        return max(self.class_logits, self.mask_logits)


@torch.inference_mode()
def compare_head_outputs(pairs: Iterable[EmbeddingPair], classes: int) -> HeadOutputDeviation:
    """Compare what heads with fresh seeded weights compute from both embeddings of each pair."""
    worst = [0.0, 0.0]
    model: TFDetHeads | None = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for pair in pairs:
            if model is None:
                model = TFDetHeads(classes, embedding_dim=pair.stored.shape[1]).eval()
            found = _outputs(model, pair.grid, pair.stored)
            expected = _outputs(model, pair.grid, pair.recomputed)
            for place, (one, other) in enumerate(zip(found, expected, strict=True)):
                scale = float(other.abs().max()) or 1.0
                worst[place] = max(worst[place], float((one - other).abs().max()) / scale)
    return HeadOutputDeviation(class_logits=worst[0], mask_logits=worst[1])


def _outputs(model: TFDetHeads, grid: Grid, embeddings: NDArray[Any]) -> tuple[Tensor, Tensor]:
    tokens = torch.from_numpy(embeddings.astype("float32"))[None]
    outputs: tuple[Tensor, Tensor] = model(tokens, None, torch.tensor([grid]))
    return outputs
