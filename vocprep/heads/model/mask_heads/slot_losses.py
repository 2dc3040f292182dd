"""Losses of the head of slots: a patch's classes, and the pixels of its masks.

Shape legend: B batch, P patches, M of the B·P patches, C classes, K = 4 slots, 1024 pixels of a
patch (row-major).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.loss_parts import (
    LossParts,
    Targets,
    class_losses,
    unpack_states,
    valid_pixels,
)
from vocprep.heads.model.mask_heads.slot_head import top_labels
from vocprep.labels.targets import NO_LABEL, SLOTS, STATE_VOID

_NOTHING = -1e30
"""Added to logits of void pixels, whose softplus and its slope are then 0."""


def slot_losses(
    class_logits: Tensor, mask_logits: Tensor, targets: Targets, config: HeadsConfig
) -> LossParts:
    """Return the loss of a patch's classes, and the cross-entropies of its masks.

    With ``mask_loss`` ``mixed`` the pixels of patches with fewer than two slots count as void, and
    mask logits [M, 1024, 4] may be those of ``targets.mixed`` alone.
    """
    logits, planes, slots = class_logits.float(), targets.slot_planes, targets.slot_labels
    valid = valid_pixels(planes)
    by_patch = class_losses(logits, targets, valid, config)
    entries = valid * SLOTS
    if config.mask_loss == "mixed":
        entries = entries * (slots[..., 1] != NO_LABEL)
    ranked = logits
    if targets.mixed is not None and config.mask_loss == "mixed":
        if mask_logits.ndim == planes.ndim:  # of all patches
            mask_logits = mask_logits.flatten(0, 1).index_select(0, targets.mixed)
        ranked, planes, slots = (
            each.flatten(0, 1).index_select(0, targets.mixed) for each in (logits, planes, slots)
        )
    states = unpack_states(planes)
    order = _area_order(states) if config.slots == "area" else _predicted_order(ranked, slots)
    masks = mask_cross_entropy(mask_logits, states, order)
    if config.mask_loss == "mixed":
        masks = masks * (slots[..., 1] != NO_LABEL)
    return LossParts(by_patch, valid > 0, masks, entries)


def mask_cross_entropy(logits: Tensor, states: Tensor, order: Tensor) -> Tensor:
    """Return the sum of each patch's binary cross-entropies of mask logits: float32 [...].

    ``logits`` [..., 1024, 4], ``states`` uint8 [..., 1024]; ``order`` uint8 [..., 4] or [4]: the
    slot at whose pixels the target of mask k is 1, or the number of no slot for a target of 0
    everywhere. Void pixels add nothing.

    A logit's cross-entropy is the softplus of it, or where the target is 1, of its negative.
    """
    order = order.expand(*states.shape[:-1], SLOTS).flatten(0, -2)
    every = torch.arange(STATE_VOID + 1, dtype=order.dtype, device=order.device)
    signs = 1 - 2 * (every.unsqueeze(-1) == order.unsqueeze(-2)).to(logits.dtype)
    first = torch.arange(len(order), device=order.device) * len(every)
    places = (states.flatten(0, -2) + first.unsqueeze(-1)).flatten()
    sign = signs.flatten(0, 1).index_select(0, places).view(logits.shape)
    zeros = logits.new_zeros(())
    nothing = torch.where(states == STATE_VOID, zeros + _NOTHING, zeros)
    signed = logits * sign + nothing.unsqueeze(-1)
    return sum_softplus(signed.float().flatten(-2))


def sum_softplus(values: Tensor) -> Tensor:
    """Return Σ ln(1 + eˣ) over the last axis, of 16·n values float32 [..., 16·n]: float32 [...].

    As torch has it, it takes ten times as long on a CPU.
    """
    summed: Tensor = _SumSoftplus.apply(values)
    return summed


class _SumSoftplus(torch.autograd.Function):
    """ln(1 + eˣ) is max(x, 0) − ln sigmoid(|x|), and a sum of logarithms that of a product.

    Sixteen factors from 0.5 to 1 are far from the smallest number.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        product = values.abs().sigmoid_()
        for _ in range(4):
            one, other = product.chunk(2, dim=-1)
            product = one * other
        return values.relu().sum(dim=-1) - product.log_().sum(dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        gradient: Tensor = values.sigmoid().mul_(gradients[0].unsqueeze(-1))
        return gradient


def _area_order(states: Tensor) -> Tensor:
    return torch.arange(SLOTS, dtype=states.dtype, device=states.device)


def _predicted_order(logits: Tensor, slot_labels: Tensor) -> Tensor:
    """Return the slot of the class that ``cat`` ranks k-th: uint8 [..., 4].

    ``STATE_VOID``, whose pixels do not count, where the patch has no slot of that class.
    """
    predicted = top_labels(logits.detach())
    missing = SLOTS - predicted.shape[-1]
    if missing:  # fewer classes than slots: the last masks belong to none
        predicted = F.pad(predicted, (0, missing), value=logits.shape[-1])
    same = predicted.unsqueeze(-1) == slot_labels.unsqueeze(-2)
    slot = same.to(torch.uint8).argmax(dim=-1)
    return torch.where(same.any(dim=-1), slot, STATE_VOID).to(torch.uint8)
