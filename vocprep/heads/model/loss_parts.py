"""What losses are made of: targets of patches and cells, and cross-entropies against them.

Void pixels, and patches and cells without any other, contribute nothing.

Shape legend: B batch, P patches, K = 4 slots, C classes, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vocprep.heads.model.config import HeadsConfig
from vocprep.labels.targets import NO_LABEL, PLANES


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

    @property
    def mixed(self) -> Tensor | None:
        """int64 [M]: which of the B·P patches hold two classes or more; None: not listed."""

    @property
    def cell_shares(self) -> tuple[Tensor, Tensor] | None:
        """What ``mask_heads.cells.cell_shares`` returns for the head's cells; None: not known."""


@dataclass(frozen=True)
class LossParts:
    """What both losses are made of, before any sum."""

    by_patch: Tensor
    """Class loss [B, P], 0 where no pixel is valid."""
    has_pixels: Tensor
    """bool [B, P]"""
    masks: Tensor
    """The mask head's losses [B, P, …], 0 where nothing is to be learnt; or of some patches [M]."""
    entries: Tensor
    """int64 [B, P]: how many of them count."""


def unpack_states(slot_planes: Tensor) -> Tensor:
    """Return the states uint8 [..., 1024] of bit planes uint8 [..., 3, 128], on their device.

    The same as ``vocprep.labels.targets.unpack_states``, for tensors.
    """
    device = slot_planes.device
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=device)
    every = torch.arange(1 << 8, dtype=torch.uint8, device=device).unsqueeze(-1)
    # The eight bits of each byte as the bytes of one number, so that eight pixels are one addition.
    spread = ((every >> shifts) & 1).view(torch.int64).flatten()
    eights = spread.index_select(0, slot_planes.flatten().int()).view(slot_planes.shape)
    states = eights[..., 0, :].clone()
    for bit in range(1, PLANES):
        states += eights[..., bit, :] << bit
    return states.view(torch.uint8)


def valid_pixels(slot_planes: Tensor) -> Tensor:
    """Return how many pixels are not void: int64 [...] of bit planes uint8 [..., 3, 128]."""
    return count_bits(~(slot_planes[..., 0, :] & slot_planes[..., 2, :])).sum(dim=-1)


def count_bits(values: Tensor) -> Tensor:
    """Return how many bits of each byte are set: uint8 as ``values``."""
    pairs = values - ((values >> 1) & 0x55)
    fours = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    return (fours + (fours >> 4)) & 0x0F


def class_losses(
    class_logits: Tensor, targets: Targets, valid: Tensor, config: HeadsConfig
) -> Tensor:
    """Return each patch's class loss [B, P] of float32 logits [B, P, C]; 0 without a valid pixel.

    ``valid`` is the number of each patch's valid pixels, integers [B, P].
    """
    if config.class_loss == "multi_hot":
        return multi_hot_cross_entropy(class_logits, targets.slot_labels) * (valid > 0)
    fractions = slot_fractions(targets.slot_pixels, valid)
    return soft_cross_entropy(class_logits, targets.slot_labels, fractions, config.label_smoothing)


def slot_fractions(slot_pixels: Tensor, valid: Tensor) -> Tensor:
    """Return the share of the valid pixels, integers [B, P], that each slot covers: [B, P, 4].

    A row sums to 1, to less where the patch has more than four classes, and to 0 where no pixel is
    valid.
    """
    return slot_pixels / valid.unsqueeze(-1).clamp(min=1)


def soft_cross_entropy(
    logits: Tensor, slot_labels: Tensor, fractions: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Return each patch's cross-entropy [B, P] of logits [B, P, C] against the area fractions.

    ``slot_labels`` int64 [B, P, 4] (−1 where absent), ``fractions`` float [B, P, 4]. Fractions are
    not scaled up to 1: a patch that is partly of other classes weighs by what its slots cover, and
    the minimum, the slots' areas in proportion, stays the same. ``smoothing`` is the share of the
    target that is spread over all C classes evenly.
    """
    log_probabilities = F.log_softmax(logits, dim=-1)
    chosen = log_probabilities.gather(-1, slot_labels.clamp(min=0))
    losses = -(fractions * chosen).sum(dim=-1)
    if not smoothing:
        return losses
    even = -log_probabilities.mean(dim=-1) * fractions.sum(dim=-1)
    return losses.lerp(even, smoothing)


def multi_hot_cross_entropy(logits: Tensor, slot_labels: Tensor) -> Tensor:
    """Return each patch's binary cross-entropy [B, P], the mean over all C classes.

    A class's target is 1 where it has a slot.
    """
    outputs = logits.shape[-1]
    places = torch.where(slot_labels == NO_LABEL, outputs, slot_labels)
    hot = logits.new_zeros(*logits.shape[:-1], outputs + 1).scatter_(-1, places, 1.0)
    losses = F.binary_cross_entropy_with_logits(logits, hot[..., :-1], reduction="none")
    return losses.mean(dim=-1)
