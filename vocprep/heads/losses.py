"""Losses: what the heads are taught of a patch.

``cat`` learns which share of the patch each slot's label covers; ``reg`` learns each slot's mask,
slots in order of area. Void pixels teach nothing, and a patch without a valid pixel contributes
nothing to either.

Shape legend: B batch, P patches, K = 4 slots, C classes, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vocprep.labels.targets import PLANES, SLOTS, STATE_VOID
from vocprep.shards.reader import Batch


@dataclass(frozen=True)
class Losses:
    """The two losses of a batch, as scalars on its device that gradients flow through."""

    category: Tensor
    """Mean over patches with a valid pixel, in nats."""
    mask: Tensor
    """Mean over valid pixels and slots, in nats."""

    @property
    def total(self) -> Tensor:
        """What training minimises: the plain sum."""
        return self.category + self.mask


def compute_losses(category_logits: Tensor, mask_logits: Tensor, batch: Batch) -> Losses:
    """Return both losses of logits [B, P, C] and [B, P, 1024, 4] against a batch's targets."""
    states = unpack_states(batch.slot_planes)
    valid = states != STATE_VOID
    fractions = slot_fractions(batch.slot_pixels, valid)
    return Losses(
        category=category_loss(category_logits, batch.slot_labels, fractions),
        mask=mask_loss(mask_logits, states, valid),
    )


def unpack_states(slot_planes: Tensor) -> Tensor:
    """Return the states uint8 [..., 1024] of bit planes uint8 [..., 3, 128], on their device.

    The same as ``vocprep.labels.targets.unpack_states``, for tensors.
    """
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=slot_planes.device)
    bits = ((slot_planes.unsqueeze(-1) >> shifts) & 1).flatten(-2)
    return sum((bits[..., b, :] << b for b in range(1, PLANES)), start=bits[..., 0, :])


def slot_fractions(slot_pixels: Tensor, valid: Tensor) -> Tensor:
    """Return the share of the valid pixels [B, P, 1024] that each slot [B, P, 4] covers: float32.

    A row sums to 1, to less where the patch holds labels past its four slots, and to 0 where no
    pixel is valid.
    """
    return slot_pixels / valid.sum(dim=-1, keepdim=True).clamp(min=1)


def category_loss(logits: Tensor, slot_labels: Tensor, fractions: Tensor) -> Tensor:
    """Return the soft cross-entropy of logits [B, P, C] against the slots' area fractions.

    ``slot_labels`` int64 [B, P, 4] (−1 where absent), ``fractions`` float [B, P, 4]. Fractions are
    not scaled up to 1: a patch that is partly other labels weighs by what its slots cover, and the
    best answer, the slots' areas in proportion, stays the same.
    """
    targets = torch.zeros_like(logits, dtype=torch.float32)
    targets.scatter_add_(-1, slot_labels.clamp(min=0), fractions.to(torch.float32))
    losses = -(targets * F.log_softmax(logits.float(), dim=-1)).sum(dim=-1)
    patches = (fractions > 0).any(dim=-1).sum().clamp(min=1)
    return losses.sum() / patches


def mask_loss(logits: Tensor, states: Tensor, valid: Tensor) -> Tensor:
    """Return the binary cross-entropy of mask logits [B, P, 1024, 4] against pixel states.

    ``states`` uint8 [B, P, 1024], ``valid`` bool alike. Channel k's target is 1 where the state is
    k; absent slots and pixels of other labels are 0 in every channel.
    """
    slots = torch.arange(SLOTS, dtype=states.dtype, device=states.device)
    targets = (states.unsqueeze(-1) == slots).to(torch.float32)
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    counted = (losses * valid.unsqueeze(-1)).sum()
    return counted / (valid.sum() * SLOTS).clamp(min=1)
