"""The oracle of a grid of cells: what a head of cells draws whose shares are the true ones.

Shape legend: B batch, P patches, N some of the B·P patches, G cells of a patch, L classes in the
slots of a batch, K = 4 slots, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from vocprep.heads.model.mask_heads.cell_pixels import CellPixels
from vocprep.heads.model.mask_heads.cells import cell_shares
from vocprep.heads.model.mask_heads.pixel_choices import PixelChoices
from vocprep.labels.targets import NO_LABEL, PIXELS, SLOTS


def shares_by_grid(slot_planes: Tensor, grids: Sequence[int]) -> list[Tensor]:
    """Return each slot's share of the valid pixels of every cell, for several grids of cells.

    float32 [B, P, g², 4] for each g of ``grids``, 1, 2 or 4; of bit planes uint8 [B, P, 3, 128].
    """
    finest = max(grids)
    shares, valid = cell_shares(slot_planes, finest)
    counts = torch.cat([shares * valid.unsqueeze(-1), valid.unsqueeze(-1)], dim=-1)
    counts = counts.view(*counts.shape[:2], finest, finest, -1)
    found = []
    for per_side in grids:
        size = finest // per_side
        parts = counts.view(*counts.shape[:2], per_side, size, per_side, size, -1)
        sums = parts.sum(dim=(3, 5)).flatten(2, 3)
        found.append(sums[..., :-1] / sums[..., -1:].clamp(min=1))
    return found


class CellOracle:
    """Pixels of the shares that slots have of each cell, interpolated as a head's are."""

    def __init__(self, slot_labels: Tensor, shares: Tensor, grids: Tensor) -> None:
        """``slot_labels`` int64 [B, P, 4], ``shares`` float32 [B, P, G, 4], ``grids`` [B, 2]."""
        # Only the classes that occur: label spaces have hundreds, a batch some tens.
        held = torch.unique(slot_labels[slot_labels >= 0])
        self._classes: Tensor = held if len(held) else held.new_zeros(1)
        self._places = torch.searchsorted(self._classes, slot_labels)
        self._places.masked_fill_(slot_labels < 0, NO_LABEL)
        per_side = math.isqrt(shares.shape[-2])
        places = self._places.clamp(min=0).unsqueeze(-2).expand_as(shares)
        # The place of the class that has a cell alone, −1 of the others: [B·P·G].
        alone = torch.where(shares == 1, places, NO_LABEL)
        self._alone = alone.amax(dim=-1).flatten()
        cells = shares.new_zeros(*shares.shape[:-1], len(self._classes))
        # Slots that a patch does not have share nothing of it.
        self._pixels = CellPixels(cells.scatter_add_(-1, places, shares), grids, per_side)

    def choices_of(self, patches: Tensor) -> Iterator[PixelChoices]:
        """Yield the classes of the largest shares in patches int64 [N]; −1 where none has any."""
        around = self._alone[self._pixels.around[patches]]
        is_plain = (around == around[:, :1]).all(dim=1) & (around[:, 0] >= 0)
        plain = is_plain.nonzero().squeeze(1)
        if len(plain):
            nowhere = torch.zeros(1, 1, dtype=torch.uint8, device=patches.device)
            yield PixelChoices(
                patches=patches[plain],
                classes=self._classes[around[plain, :1]],
                chosen=nowhere.expand(len(plain), PIXELS),
            )
        for part in self._pixels.choices_of(patches[~is_plain]):
            last = part.classes.shape[1]
            nothing = (part.scores <= 0).to(torch.int16).mul_(last)
            yield PixelChoices(
                patches=part.patches,
                classes=functional.pad(self._classes[part.classes], (0, 1), value=NO_LABEL),
                chosen=torch.maximum(part.chosen.to(torch.int16), nothing),
            )

    def masks_of_slots(self, patches: Tensor, slots: int = SLOTS) -> Tensor:
        """Return the shares of the first slots of patches int64 [N]: float32 [N, slots, 1024]."""
        return self._pixels.masks_of(patches, self._places.flatten(0, 1)[patches, :slots])
