"""No mask head: the classes of patches, interpolated between their middles.

What ``cat`` gives a patch is its only cell, and pixels are those of cells (``cell_head``).

Shape legend: B batch, P patches, C classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.loss_parts import LossParts, Targets, class_losses
from vocprep.heads.model.mask_heads.cells import cell_shares


def patch_logits_alone(
    module: nn.Module, standard: Tensor, tokens: Tensor, patch_logits: Tensor, grids: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the class logits [B, P, C] of ``cat``, and the same as cells [B, P, 1, C]."""
    del module, standard, tokens, grids
    return patch_logits, patch_logits.unsqueeze(-2)


def patch_losses(
    class_logits: Tensor, cell_logits: Tensor, targets: Targets, config: HeadsConfig
) -> LossParts:
    """Return the loss of a patch's classes; there is nothing else to learn, and no mask loss."""
    del cell_logits
    _, valid = cell_shares(targets.slot_planes, per_side=1)
    valid = valid.squeeze(-1)
    by_patch = class_losses(class_logits.float(), targets, valid, config)
    return LossParts(
        by_patch, valid > 0, by_patch.new_zeros(by_patch.shape), valid.new_zeros(valid.shape)
    )
