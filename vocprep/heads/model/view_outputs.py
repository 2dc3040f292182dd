"""The outputs of heads for one view of pictures, as they are or mirrored.

Shape legend: B batch, P patches, C classes, n squares per side of a patch: 32 pixels, or cells;
X numbers per square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewOutputs:
    """The outputs of heads for one view."""

    class_logits: Tensor
    """[B, P, C]"""
    mask_logits: Tensor
    """[B, P, n², X] of the mask head."""


def mirrored_back(view: ViewOutputs, grids: Tensor) -> ViewOutputs:
    """Return the outputs for mirrored pictures as those of the pictures themselves.

    Their patches change places within each row of their grid, and so do the squares of a patch that
    the mask head's logits [B, P, n², X] are of. What stands at padded places is meaningless.
    """
    patch = torch.arange(view.class_logits.shape[1], device=grids.device)
    columns = grids[:, 1:2].clamp(min=1)
    row, column = patch // columns, patch % columns
    places = (row * columns + columns - 1 - column).clamp(max=len(patch) - 1)
    images = torch.arange(len(grids), device=grids.device).unsqueeze(1)
    side = math.isqrt(view.mask_logits.shape[2])
    squares = view.mask_logits.view(*view.class_logits.shape[:2], side, side, -1)
    squares = squares.flip(3).flatten(2, 3)
    return ViewOutputs(
        class_logits=view.class_logits[images, places], mask_logits=squares[images, places]
    )


def reweighted(probabilities: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return class probabilities [..., C] times weights [C], divided by their sum; None: as is."""
    if class_weights is None:
        return probabilities
    weighted = probabilities * class_weights
    return weighted / weighted.sum(dim=-1, keepdim=True)
