"""Pixels of patches, counted by what they are and by what is predicted of them.

A patch has few classes, true or predicted. So its pixels are counted by small numbers: the slot
that they belong to, how near to a border they lie, the place of the predicted class among those in
question. Class ids come in where counts become entries, of which a patch has some few.

Shape legend: N patches of a batch, n some of them, S = 6 states, J classes in question, E entries,
F pixels that belong to no slot, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vocprep.heads.model.mask_heads.pixel_choices import PixelChoices
from vocprep.heads.scoring.measures.borders import BANDS
from vocprep.labels.targets import NO_LABEL, PIXELS, SLOTS, STATE_VOID

STATES = STATE_VOID + 1
WRONG, RIGHT, NOT_SCORED = range(3)
"""Outcomes of a pixel's prediction."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelEntries:
    """Numbers of pixels by patch, band, ground truth and prediction; void is left out."""

    patch: Tensor
    """int64 [E] among the batch's N; entries may repeat."""
    band: Tensor
    """int64 [E]: how near to a border (``borders.border_bands``)."""
    truth: Tensor
    """int64 [E] class ids."""
    predicted: Tensor
    """int64 [E] class ids, −1 for no class."""
    pixels: Tensor
    """int64 [E] 1 or more."""

    @classmethod
    def joined(cls, parts: Sequence[PixelEntries]) -> PixelEntries:
        """Return the entries of several, at least one."""
        return cls(
            patch=torch.cat([part.patch for part in parts]),
            band=torch.cat([part.band for part in parts]),
            truth=torch.cat([part.truth for part in parts]),
            predicted=torch.cat([part.predicted for part in parts]),
            pixels=torch.cat([part.pixels for part in parts]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TruePixels:
    """The ground truth of a batch's patches."""

    labels: Tensor
    """int64 [N, 4]: the classes of the slots, −1 for none."""
    states: Tensor
    """uint8 [N, 1024]: which slot a pixel belongs to; or none; or void."""
    bands: Tensor | None
    """uint8 [N, 1024]: how near to a border; None: all are in the last band."""
    other: Tensor
    """int64 [F]: places of the pixels that belong to no slot, among all N·1024."""
    other_labels: Tensor
    """int64 [F] their class ids."""

    @cached_property
    def slots(self) -> Tensor:
        """int64 [N]: how many slots a patch has."""
        return (self.labels >= 0).sum(dim=-1)

    @cached_property
    def counts(self) -> Tensor:
        """int64 [N, BANDS, S]: pixels by band and state."""
        return count_keys(self._keys, BANDS * STATES).view(-1, BANDS, STATES)

    @cached_property
    def _keys(self) -> Tensor:
        """uint8 [N, 1024]: bands and states."""
        if self.bands is None:
            return self.states + (BANDS - 1) * STATES
        return (self.bands * STATES).add_(self.states)

    def entries_of_slots(self, classes: Tensor) -> PixelEntries:
        """Return the entries where the pixels of each slot are given a class id int64 [N, 4].

        All others are given none.
        """
        counts = self.counts[:, :, :SLOTS]
        patch, band, slot = places = counts.nonzero(as_tuple=True)
        entries = PixelEntries(
            patch=patch,
            band=band,
            truth=self.labels[patch, slot],
            predicted=classes[patch, slot],
            pixels=counts[places],
        )
        return PixelEntries.joined([entries, self._entries_of_other([])])

    def entries_of_choices(self, parts: Sequence[PixelChoices]) -> PixelEntries:
        """Return the entries of choices, which hold every patch with a pixel that is not void."""
        entries = [self._entries_of(part) for part in parts]
        return PixelEntries.joined([*entries, self._entries_of_other(parts)])

    def drawn_counts(self, patches: Tensor, drawn: Tensor) -> Tensor:
        """Return pixels of some patches [n] by state and drawn slot: int64 [n, S, 5].

        ``drawn`` uint8 [n, 1024]: 4 stands for no slot.
        """
        keys = (self.states[patches] * (SLOTS + 1)).add_(drawn)
        return count_keys(keys, STATES * (SLOTS + 1)).view(-1, STATES, SLOTS + 1)

    def outcomes(self, part: PixelChoices) -> Tensor:
        """Return ``WRONG``, ``RIGHT`` or ``NOT_SCORED`` for a part's pixels: uint8 [n, 1024]."""
        right = self.labels[part.patches].unsqueeze(-1) == part.classes.unsqueeze(-2)
        choices = right.shape[-1]
        outcome = right.new_zeros((len(right), STATES, choices), dtype=torch.uint8)
        outcome[:, :SLOTS] = right
        outcome[:, STATE_VOID] = NOT_SCORED
        keys = self.states[part.patches].long().mul_(choices).add_(part.chosen)
        found = outcome.flatten(1).gather(1, keys)
        held, rows, pixels = self._other_in(part)
        predicted = part.classes[rows, part.chosen[rows, pixels].long()]
        found[rows, pixels] = (predicted == self.other_labels[held]).to(found.dtype)
        return found

    def _entries_of(self, part: PixelChoices) -> PixelEntries:
        """Return the entries of a part, without the pixels that belong to no slot."""
        choices = part.classes.shape[1]
        if choices == 1:
            counts = self.counts[part.patches].unsqueeze(-1)
        else:
            size = BANDS * STATES * choices
            keys = self._keys[part.patches].to(_smallest_dtype(size))
            keys = keys.mul_(choices).add_(part.chosen)
            counts = count_keys(keys, size).view(-1, BANDS, STATES, choices)
        counts = counts[:, :, :SLOTS]
        row, band, slot, choice = places = counts.nonzero(as_tuple=True)
        patch = part.patches[row]
        return PixelEntries(
            patch=patch,
            band=band,
            truth=self.labels[patch, slot],
            predicted=part.classes[row, choice],
            pixels=counts[places],
        )

    def _entries_of_other(self, parts: Sequence[PixelChoices]) -> PixelEntries:
        """Return an entry for each pixel that belongs to no slot."""
        return PixelEntries(
            patch=self.other // PIXELS,
            band=self._keys.flatten()[self.other].long() // STATES,
            truth=self.other_labels,
            predicted=self._choices_of_other(parts),
            pixels=torch.ones_like(self.other),
        )

    def _choices_of_other(self, parts: Sequence[PixelChoices]) -> Tensor:
        """Return what parts choose for the pixels that belong to no slot: int64 [F].

        −1 in patches that none of the parts holds.
        """
        predicted = torch.full_like(self.other, NO_LABEL)
        for part in parts:
            held, rows, pixels = self._other_in(part)
            predicted[held] = part.classes[rows, part.chosen[rows, pixels].long()]
        return predicted

    def _other_in(self, part: PixelChoices) -> tuple[Tensor, Tensor, Tensor]:
        """Return which of the pixels that belong to no slot a part holds: int64 [f].

        With the row of each in the part, and its place in the patch.
        """
        row = torch.full_like(self.labels[:, 0], -1)
        row[part.patches] = torch.arange(len(part.patches), device=row.device)
        rows = row[self.other // PIXELS]
        held = (rows >= 0).nonzero().squeeze(1)
        return held, rows[held], self.other[held] % PIXELS


def count_keys(keys: Tensor, size: int) -> Tensor:
    """Return how often each number below ``size`` occurs in each row: int64 [n, size].

    ``keys`` integers [n, 1024].
    """
    first = torch.arange(len(keys), dtype=torch.int32, device=keys.device) * size
    places = (keys + first.unsqueeze(1)).flatten()
    return torch.bincount(places, minlength=len(keys) * size).view(-1, size)


def _smallest_dtype(size: int) -> torch.dtype:
    """Return the dtype of the fewest bytes that holds numbers below ``size``."""
    if size <= 1 << 8:
        return torch.uint8
    return torch.int16 if size <= 1 << 15 else torch.int32
