"""The oracle ladder: what heads would score if one part of them were right.

Between the model and the best that four slots a patch can say stand two mixtures: the model's
masks under the true labels, and the true masks under the model's labels. Which of the two is
better says what the heads lack.

Shape legend: B batch, P patches, C classes, K = 4 slots, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor

from vocprep.labels.targets import NO_LABEL, SLOTS

_ASSIGNMENTS = torch.tensor(list(permutations(range(SLOTS))))
"""[24, 4] all ways to give each slot a channel of its own, the plain order first."""


def true_masks(slot_labels: Tensor, states: Tensor) -> Tensor:
    """Return the labels of pixels int64 [B, P, 1024] when slot k carries ``slot_labels[..., k]``.

    ``slot_labels`` int64 [B, P, 4], ``states`` uint8 [B, P, 1024]. −1 for pixels outside their
    patch's slots and for void.
    """
    unknown = torch.full_like(slot_labels[..., :2], NO_LABEL)
    return torch.cat([slot_labels, unknown], dim=-1).gather(-1, states.long())


def match_channels(masks: Tensor, states: Tensor) -> Tensor:
    """Return which mask channel draws each true slot: int64 [B, P, 4], every channel once.

    Heads that learnt the slots by area draw slot k in channel k; heads that learnt the masks of
    their own predicted labels draw in the order of those. To judge the masks of both alike, the
    channels go to the slots in the way that gives the slots' pixels the largest sum of mask
    probabilities. ``masks`` float [B, P, 1024, 4] in 0..1, ``states`` uint8 [B, P, 1024].
    """
    slots = torch.arange(SLOTS, dtype=states.dtype, device=states.device)
    is_slot = (states.unsqueeze(-1) == slots).to(masks.dtype)
    overlap = masks.transpose(-1, -2) @ is_slot  # [B, P, channel, slot]
    assignments = _ASSIGNMENTS.to(masks.device)
    sums = overlap[..., assignments, torch.arange(SLOTS, device=masks.device)].sum(dim=-1)
    return assignments[sums.argmax(dim=-1)]


def draw_slots(masks: Tensor, channels: Tensor, present: Tensor) -> Tensor:
    """Return the slot 0..3 that is drawn on each pixel: int64 [B, P, 1024].

    It is the slot with the strongest mask among those that the patch has: to know the labels of a
    patch is to know how many they are. ``channels`` int64 and ``present`` bool [B, P, 4].
    """
    order = channels.unsqueeze(-2).expand(*masks.shape[:-1], SLOTS)
    slot_masks = masks.gather(-1, order)
    return slot_masks.masked_fill(~present.unsqueeze(-2), -1.0).argmax(dim=-1)


def label_slots(predicted: Tensor, slot_labels: Tensor) -> Tensor:
    """Return the predicted labels [B, P, 4] of a patch's true slots, −1 where there is no slot.

    A slot whose label is among ``predicted`` int64 [B, P, ≤ 4] carries it; the others, by falling
    area, carry the predicted labels that are left, strongest first.
    """
    same = slot_labels.unsqueeze(-1) == predicted.unsqueeze(-2)
    present, found = slot_labels >= 0, same.any(dim=-1)
    used = same.any(dim=-2)
    left = predicted.gather(-1, used.long().argsort(dim=-1, stable=True))
    missing = present & ~found
    rank = (missing.long().cumsum(dim=-1) - 1).clamp(0, predicted.shape[-1] - 1)
    return torch.where(missing, left.gather(-1, rank), slot_labels)
