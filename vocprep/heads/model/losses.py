"""Losses of the heads.

``cat`` is trained on the classes that a patch holds; the mask head on what its kind draws
(``mask_heads``). Void pixels, and patches and cells without any other, contribute nothing.

Shape legend: B batch, P patches, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.loss_parts import Targets
from vocprep.heads.model.mask_heads.cells import cell_shares
from vocprep.heads.model.mask_heads.kinds import MASK_HEADS
from vocprep.shards.feed.batches import Batch


@dataclass(frozen=True)
class Losses:
    """The two losses of a batch, as scalars on its device that gradients flow through.

    Kept as sums and counts, so that the parts of a batch on several devices can be combined to the
    means of the whole batch.
    """

    class_sum: Tensor
    patches: Tensor
    """Patches with a valid pixel."""
    mask_sum: Tensor
    entries: Tensor
    """Valid pixels times four, or cells with a valid pixel."""

    @property
    def class_loss(self) -> Tensor:
        """Mean over patches with a valid pixel, in nats."""
        return self.class_sum / self.patches.clamp(min=1)

    @property
    def mask_loss(self) -> Tensor:
        """Mean over valid pixels and slots, or over cells, in nats."""
        return self.mask_sum / self.entries.clamp(min=1)

    @property
    def total(self) -> Tensor:
        """What training minimises: the sum of both."""
        return self.class_loss + self.mask_loss


def compute_losses(
    class_logits: Tensor, mask_logits: Tensor, targets: Targets, config: HeadsConfig
) -> Losses:
    """Return both losses of the heads' outputs against a batch's targets.

    ``class_logits`` [B, P, C], ``mask_logits`` [B, P, …] and ``config`` are those of one
    ``TFDetHeads``.
    """
    parts = MASK_HEADS[config.mask_head].losses(class_logits, mask_logits, targets, config)
    return Losses(
        class_sum=parts.by_patch.sum(),
        patches=parts.has_pixels.sum(),
        mask_sum=parts.masks.sum(),
        entries=parts.entries.sum(),
    )


def with_shared_targets(batch: Batch, config: HeadsConfig) -> Batch:
    """Return a batch with what the losses of all heads of a configuration compute of it alike.

    For several heads that learn from one batch, of which each would compute it again.
    """
    if config.mask_head != "cells":
        return batch
    return replace(batch, cell_shares=cell_shares(batch.slot_planes, config.cells))


def losses_by_image(
    class_logits: Tensor, mask_logits: Tensor, targets: Targets, config: HeadsConfig
) -> Losses:
    """Return what ``compute_losses`` does for each image alone: sums and counts [B]."""
    parts = MASK_HEADS[config.mask_head].losses(class_logits, mask_logits, targets, config)
    masks = parts.masks
    if targets.mixed is not None and masks.ndim == 1:  # of these patches alone
        masks = masks.new_zeros(parts.by_patch.numel()).index_copy_(0, targets.mixed, masks)
        masks = masks.view_as(parts.by_patch)
    return Losses(
        class_sum=parts.by_patch.sum(dim=1),
        patches=parts.has_pixels.sum(dim=1),
        mask_sum=masks.flatten(1).sum(dim=1),
        entries=parts.entries.sum(dim=1),
    )
