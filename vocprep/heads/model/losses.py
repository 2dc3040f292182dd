"""Losses of the heads.

``cat`` is trained on the classes that a patch holds; the mask head on the pixels of four of them
(``slots``), or on the classes that each cell holds (``cells``). Void pixels, and patches and cells
without any other, contribute nothing.

Shape legend: B batch, P patches, K = 4 slots, C classes, G cells of a patch, 1024 pixels of a patch
(row-major).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vocprep.heads.model.cells import cell_shares
from vocprep.heads.model.config import ClassLoss, HeadsConfig, MaskHeadName, SlotRule
from vocprep.heads.model.tfdet import top_labels
from vocprep.labels.targets import NO_LABEL, PLANES, SLOTS, STATE_VOID


class Targets(Protocol):
    """The part of a batch that the losses use; ``vocprep.shards.feed.batches.Batch`` has it."""

    @property
    def slot_labels(self) -> Tensor:
        """int64 [B, P, 4], −1 where absent."""

    @property
    def slot_pixels(self) -> Tensor:
        """Integers [B, P, 4]."""

    @property
    def slot_planes(self) -> Tensor:
        """uint8 [B, P, 3, 128]."""


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
    class_logits: Tensor,
    mask_logits: Tensor,
    targets: Targets,
    class_loss: ClassLoss = HeadsConfig.class_loss,
    slots: SlotRule = HeadsConfig.slots,
    mask_head: MaskHeadName = HeadsConfig.mask_head,
) -> Losses:
    """Return both losses of the heads' outputs against a batch's targets.

    ``class_logits`` [B, P, C], ``mask_logits`` [B, P, 1024, 4] or, of cells, [B, P, G, C];
    ``class_loss``, ``slots`` and ``mask_head`` are those of the heads' ``HeadsConfig``.
    """
    parts = _loss_parts(class_logits, mask_logits, targets, class_loss, slots, mask_head)
    return Losses(
        class_sum=parts.by_patch.sum(),
        patches=parts.has_pixels.sum(),
        mask_sum=parts.masks.sum(),
        entries=parts.entries.sum(),
    )


def losses_by_image(
    class_logits: Tensor, mask_logits: Tensor, targets: Targets, config: HeadsConfig
) -> Losses:
    """Return what ``compute_losses`` does for each image alone: sums and counts [B]."""
    parts = _loss_parts(
        class_logits, mask_logits, targets, config.class_loss, config.slots, config.mask_head
    )
    return Losses(
        class_sum=parts.by_patch.sum(dim=1),
        patches=parts.has_pixels.sum(dim=1),
        mask_sum=parts.masks.flatten(1).sum(dim=1),
        entries=parts.entries.sum(dim=1),
    )


@dataclass(frozen=True)
class _LossParts:
    """What both losses are made of, before any sum."""

    by_patch: Tensor
    """Class loss [B, P], 0 where no pixel is valid."""
    has_pixels: Tensor
    """bool [B, P]"""
    masks: Tensor
    """The mask head's losses [B, P, …], 0 where nothing is to be learnt."""
    entries: Tensor
    """int64 [B, P]: how many of them count."""


def _loss_parts(
    class_logits: Tensor,
    mask_logits: Tensor,
    targets: Targets,
    class_loss: ClassLoss,
    slots: SlotRule,
    mask_head: MaskHeadName,
) -> _LossParts:
    logits, mask_logits = class_logits.float(), mask_logits.float()
    if mask_head == "cells":
        return _cell_parts(logits, mask_logits, targets)
    states = unpack_states(targets.slot_planes)
    valid = states != STATE_VOID
    fractions = slot_fractions(targets.slot_pixels, valid)
    if class_loss == "soft_cross_entropy":
        by_patch = soft_cross_entropy(logits, targets.slot_labels, fractions)
    else:
        by_patch = multi_hot_cross_entropy(logits, targets.slot_labels)
    has_pixels = (fractions > 0).any(dim=-1)
    order = _area_order(states) if slots == "area" else _predicted_order(logits, targets)
    masks = mask_cross_entropy(mask_logits, states, order)
    return _LossParts(by_patch * has_pixels, has_pixels, masks, valid.sum(dim=-1) * SLOTS)


def _cell_parts(class_logits: Tensor, cell_logits: Tensor, targets: Targets) -> _LossParts:
    """Return the parts of cells: both losses are cross-entropies against shares of area."""
    per_side = math.isqrt(cell_logits.shape[-2])
    shares, valid = cell_shares(targets.slot_planes, per_side)
    pixels = targets.slot_pixels
    fractions = pixels / valid.sum(dim=-1, keepdim=True).clamp(min=1)
    by_patch = soft_cross_entropy(class_logits, targets.slot_labels, fractions)
    labels = targets.slot_labels.unsqueeze(-2).expand_as(shares)
    by_cell = soft_cross_entropy(cell_logits, labels, shares)
    filled = valid > 0
    return _LossParts(by_patch, filled.any(dim=-1), by_cell, filled.sum(dim=-1))


def unpack_states(slot_planes: Tensor) -> Tensor:
    """Return the states uint8 [..., 1024] of bit planes uint8 [..., 3, 128], on their device.

    The same as ``vocprep.labels.targets.unpack_states``, for tensors.
    """
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=slot_planes.device)
    bits = ((slot_planes.unsqueeze(-1) >> shifts) & 1).flatten(-2)
    return sum((bits[..., b, :] << b for b in range(1, PLANES)), start=bits[..., 0, :])


def slot_fractions(slot_pixels: Tensor, valid: Tensor) -> Tensor:
    """Return the share of the valid pixels [B, P, 1024] that each slot [B, P, 4] covers: float32.

    A row sums to 1, to less where the patch has more than four classes, and to 0 where no pixel is
    valid.
    """
    return slot_pixels / valid.sum(dim=-1, keepdim=True).clamp(min=1)


def soft_cross_entropy(logits: Tensor, slot_labels: Tensor, fractions: Tensor) -> Tensor:
    """Return each patch's cross-entropy [B, P] of logits [B, P, C] against the area fractions.

    ``slot_labels`` int64 [B, P, 4] (−1 where absent), ``fractions`` float [B, P, 4]. Fractions are
    not scaled up to 1: a patch that is partly of other classes weighs by what its slots cover, and
    the minimum, the slots' areas in proportion, stays the same.
    """
    chosen = F.log_softmax(logits, dim=-1).gather(-1, slot_labels.clamp(min=0))
    return -(fractions * chosen).sum(dim=-1)


def multi_hot_cross_entropy(logits: Tensor, slot_labels: Tensor) -> Tensor:
    """Return each patch's binary cross-entropy [B, P], the mean over all C classes.

    A class's target is 1 where it has a slot.
    """
    outputs = logits.shape[-1]
    places = torch.where(slot_labels == NO_LABEL, outputs, slot_labels)
    hot = logits.new_zeros(*logits.shape[:-1], outputs + 1).scatter_(-1, places, 1.0)
    losses = F.binary_cross_entropy_with_logits(logits, hot[..., :-1], reduction="none")
    return losses.mean(dim=-1)


def mask_cross_entropy(logits: Tensor, states: Tensor, order: Tensor) -> Tensor:
    """Return the binary cross-entropy of each mask logit [B, P, 1024, 4], 0 where void.

    ``states`` uint8 [B, P, 1024]; ``order`` uint8 broadcastable to [B, P, 4]: the slot at whose
    pixels the target of mask k is 1, or the number of no slot for a target of 0 everywhere.
    """
    targets = (states.unsqueeze(-1) == order.unsqueeze(-2)).to(logits.dtype)
    weight = (states != STATE_VOID).unsqueeze(-1).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, targets, weight=weight, reduction="none")


def _area_order(states: Tensor) -> Tensor:
    return torch.arange(SLOTS, dtype=states.dtype, device=states.device)


def _predicted_order(logits: Tensor, targets: Targets) -> Tensor:
    """Return the slot of the class that ``cat`` ranks k-th: uint8 [B, P, 4].

    ``STATE_VOID``, whose pixels do not count, where the patch has no slot of that class.
    """
    predicted = top_labels(logits.detach())
    missing = SLOTS - predicted.shape[-1]
    if missing:  # fewer classes than slots: the last masks belong to none
        predicted = F.pad(predicted, (0, missing), value=logits.shape[-1])
    same = predicted.unsqueeze(-1) == targets.slot_labels.unsqueeze(-2)
    slot = same.to(torch.uint8).argmax(dim=-1)
    return torch.where(same.any(dim=-1), slot, STATE_VOID).to(torch.uint8)
