"""Mask quality: how well the slots of patches are drawn when their classes are given.

Shape legend: N patches, K = 4 slots, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vocprep.labels.targets import SLOTS, STATE_VOID

NOT_DRAWN = SLOTS
"""Stands for a slot where a pixel is drawn in none."""


@dataclass(frozen=True, kw_only=True)
class MaskQuality:
    """Quality of the masks when the classes are given; see ``MaskCounter``."""

    iou: float
    """Mean IoU of the drawn slots, 0..1, with the masks that fit the true slots best."""
    own_iou: float
    """The same with each slot drawn by the mask of its own class, 0 where there is none."""
    iou_of_largest: float
    """The same when each patch's largest slot is drawn everywhere."""
    slots: int
    """Slots that were drawn."""


class MaskCounter:
    """Mean, over slots, of the IoU of the drawn and the true slot.

    To be counted are the patches with two slots or more, since in the others nothing remains to be
    drawn. The true slot is the set of pixels of its state; the drawn one is that of the pixels,
    void left out, where it is drawn. Every slot has the same weight, whatever its class and area.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        # By the slots of a patch: the sum of IoUs, slots.
        self._sums = torch.zeros(SLOTS + 1, 2, dtype=torch.float64, device=device)

    def add(self, pixels: Tensor, slots: Tensor) -> None:
        """Count patches [N] of so many ``slots`` int64 [N].

        ``pixels`` int64 [N, 6, 5]: by their state, and by the slot that is drawn, 4 for none.
        """
        pixels = pixels[:, :STATE_VOID]
        both = pixels[:, :SLOTS, :SLOTS].diagonal(dim1=1, dim2=2)
        either = pixels[:, :SLOTS].sum(dim=2) + pixels[..., :SLOTS].sum(dim=1) - both
        present = torch.arange(SLOTS, device=slots.device) < slots.unsqueeze(1)
        ious = both.to(torch.float64) / either.clamp(min=1) * present
        rows = torch.stack([ious.sum(dim=1), slots.to(torch.float64)], dim=1)
        # A matrix product: adding by index has no fixed order on a GPU.
        self._sums += functional.one_hot(slots, SLOTS + 1).to(torch.float64).T @ rows

    def slots(self, slots: int | None = None) -> int:
        """Return how many slots were counted, of the patches with that many or of all."""
        return int(self._of(slots)[1])

    def iou(self, slots: int | None = None) -> float:
        """Return the mean so far, of the patches with that many slots or of all; 0 without any."""
        total, count = self._of(slots).tolist()
        return float(total / max(count, 1))

    def _of(self, slots: int | None) -> Tensor:
        return self._sums.sum(dim=0) if slots is None else self._sums[slots]
