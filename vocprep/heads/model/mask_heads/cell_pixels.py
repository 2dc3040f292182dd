"""Pixels of cells: the strongest class of every pixel, interpolated between cells.

A pixel's class probabilities are means, with bilinear weights, of those of the cells in and around
its patch. So a class whose largest probability among these cells is below another's smallest wins
no pixel of the patch: of tens or hundreds of classes a few are left in most patches, and only these
are interpolated.

Shape legend: B batch, P patches, N some of the B·P patches, G cells per patch, H cells in and
around a patch, C classes, K = 4 slots, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from vocprep.geometry import PATCH
from vocprep.heads.model.mask_heads.cells import around, between
from vocprep.heads.model.mask_heads.pixel_choices import (
    ScoredChoices,
    label_map_of,
    scores_of,
    strongest,
)

_CANDIDATES = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)
"""Most classes of the groups of patches that are interpolated together."""
_PIECE = 1 << 20
"""Class scores of cells that are looked at together, which caches hold."""
_BLOCK = 1 << 24
"""Class scores of pixels that are held at once."""
_EXPORTED_BLOCK = 64
"""Classes that are interpolated together in an exported program."""
_SLACK = 1 - 1e-4
"""Keeps classes that rounding could bring to the top."""


class CellPixels:
    """Pixels of cells: the class probabilities of cells, interpolated over the picture."""

    def __init__(self, cells: Tensor, grids: Tensor, per_side: int) -> None:
        """``cells`` float32 [B, P, G, C]: the classes' probabilities in every cell.

        ``grids`` int64 [B, 2] of (ny, nx), G = ``per_side``².
        """
        batch, patches, _, self._classes = cells.shape
        self._shape, self._cells = (batch, patches), cells.flatten(0, 2)
        first = torch.arange(batch, device=grids.device) * patches * per_side**2
        self.around = (around(grids, patches, per_side) + first.view(-1, 1, 1)).flatten(0, 1)
        """int64 [B·P, H]: the cells in and around each patch, among all B·P·G."""
        self._weights = between(per_side, PATCH, cells.device)

    @cached_property
    def choices(self) -> Sequence[ScoredChoices]:
        """All patches, in groups of about as many classes in question."""
        every = torch.arange(self.around.shape[0], device=self._cells.device)
        if torch.compiler.is_exporting():
            return [self._choices_of_all_classes(every)]
        return list(self.choices_of(every))

    @property
    def label_map(self) -> Tensor:
        """Ids of the classes with the largest interpolated probability."""
        return label_map_of(self.choices, self.around.shape[0]).view(*self._shape, -1)

    @property
    def confidence(self) -> Tensor:
        """These probabilities."""
        return scores_of(self.choices, self.around.shape[0]).view(*self._shape, -1)

    def choices_of(self, patches: Tensor) -> Iterator[ScoredChoices]:
        """Yield the pixels of some patches int64 [N]. Of equal scores the smallest id counts."""
        if not len(patches):
            return
        size = max(1, _PIECE // (self.around.shape[1] * self._classes))
        can_win = torch.cat([self._can_win(part) for part in torch.split(patches, size)])
        counts = can_win.sum(dim=1).clamp(min=1)  # one of patches of zeros, or of no numbers
        for rows, most in _groups(counts, self._classes):
            kept = _first_of(can_win[rows], most)
            chosen = self._values(patches[rows], kept)
            scores, places = strongest(_interpolated(chosen, self._weights))
            yield ScoredChoices(patches=patches[rows], classes=kept, chosen=places, scores=scores)

    def _choices_of_all_classes(self, patches: Tensor) -> ScoredChoices:
        """Return what ``choices_of`` yields, by steps that do not depend on the scores.

        All classes are interpolated: slower, but what can be exported as a program.
        """
        scores = self._around_of(patches).transpose(1, 2)
        parts = torch.split(scores, _EXPORTED_BLOCK, dim=1)
        values, places = strongest(_interpolated(parts[0], self._weights))
        for number, part in enumerate(parts[1:], start=1):
            others, place = strongest(_interpolated(part, self._weights))
            places = torch.where(others > values, place + number * _EXPORTED_BLOCK, places)
            values = torch.maximum(values, others)
        classes = torch.arange(self._classes, device=scores.device).expand(scores.shape[0], -1)
        return ScoredChoices(patches=patches, classes=classes, chosen=places, scores=values)

    def masks_of(self, patches: Tensor, labels: Tensor) -> Tensor:
        """Interpolated probabilities of the given classes."""
        chosen = self._values(patches, labels.clamp(min=0))
        chosen.masked_fill_((labels < 0).unsqueeze(2), 0)
        return _interpolated(chosen, self._weights)

    def _can_win(self, patches: Tensor) -> Tensor:
        """Return which classes may have the largest score of a pixel: bool [N, C]."""
        scores = self._around_of(patches)
        largest = scores.amax(dim=1)
        least = scores.amin(dim=1).amax(dim=1, keepdim=True)
        return (largest > 0) & (largest >= least * _SLACK)

    def _around_of(self, patches: Tensor) -> Tensor:
        """Return the scores of all classes in the cells around patches: [N, H, C]."""
        around = self.around[patches]
        return self._cells.index_select(0, around.flatten()).view(*around.shape, -1)

    def _values(self, patches: Tensor, labels: Tensor) -> Tensor:
        """Return the scores of classes int64 [N, J] in the cells around patches: [N, J, H]."""
        places = self.around[patches].unsqueeze(1) * self._classes
        return self._cells.take(places + labels.unsqueeze(2))


def _interpolated(chosen: Tensor, weights: Tensor) -> Tensor:
    """Return values of cells [N, J, H] at pixels: [N, J, 1024]."""
    # One product of two matrices, which is faster than one for each patch.
    return (chosen.flatten(0, 1) @ weights.T).view(*chosen.shape[:2], len(weights))


def _first_of(is_in: Tensor, most: int) -> Tensor:
    """Return up to ``most`` places that are true of each row of bool [N, C]: int64 [N, most].

    Rows that have fewer repeat their first one, or 0.
    """
    rows, places = is_in.nonzero(as_tuple=True)
    rank = (is_in.cumsum(dim=1) - 1)[rows, places]
    first = is_in.to(torch.uint8).argmax(dim=1, keepdim=True)
    kept = first.repeat(1, most)
    kept[rows, rank] = places
    return kept


def _groups(counts: Tensor, classes: int) -> Iterator[tuple[Tensor, int]]:
    """Yield patches with about as many candidates, and their most; large groups in pieces."""
    lower = 0
    for most in (*(size for size in _CANDIDATES if size < classes), classes):
        rows = ((counts > lower) & (counts <= most)).nonzero().squeeze(1)
        for part in torch.split(rows, max(1, _BLOCK // (PATCH**2 * most))):
            if len(part):
                yield part, most
        lower = most
