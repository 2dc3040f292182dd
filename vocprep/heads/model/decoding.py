"""Predictions from the outputs of heads: of one view of a picture, or of it and its mirror image.

The probabilities of several views are averaged; then each class's is multiplied by a weight, and
all are divided by their sum. One view without weights is decoded as ``pixel_scores`` does.

Shape legend: B batch, P patches, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.mask_heads.kinds import MASK_HEADS, PixelScores, pixel_scores
from vocprep.heads.model.mask_heads.slot_head import class_probabilities
from vocprep.heads.model.view_outputs import ViewOutputs, reweighted


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """What is predicted of a batch."""

    patch_logits: Tensor
    """[B, P, C]; ``class_probabilities`` of them are those of the patches' classes."""
    pixels: PixelScores


def decode(
    views: Sequence[ViewOutputs],
    grids: Tensor,
    config: HeadsConfig,
    class_weights: Tensor | None = None,
) -> Decoded:
    """Return what one or several views say together.

    Mirrored ones have been mirrored back (``views.mirrored_back``). ``grids`` int64 [B, 2] of
    (ny, nx); ``class_weights`` float32 [C] or None. The class probabilities of a patch and of each
    of its cells are weighted by themselves; how masks of slots are: ``slot_views``.
    """
    first = views[0]
    if len(views) == 1 and class_weights is None:
        pixels = pixel_scores(first.class_logits, first.mask_logits, grids, config)
        return Decoded(patch_logits=first.class_logits, pixels=pixels)
    chances = sum(class_probabilities(view.class_logits, config.class_loss) for view in views)
    chances = reweighted(torch.as_tensor(chances) / len(views), class_weights)
    if config.class_loss == "multi_hot":
        patch_logits = chances.logit(eps=1e-7)
    else:
        patch_logits = chances.clamp(min=torch.finfo(chances.dtype).tiny).log()
    pixels = MASK_HEADS[config.mask_head].pixels_of_views(views, grids, config, class_weights)
    return Decoded(patch_logits=patch_logits, pixels=pixels)
