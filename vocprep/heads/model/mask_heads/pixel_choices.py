"""Pixels as choices among the few classes of their patch, and label maps made of them.

Of hundreds of classes a handful is in question in any patch. What is counted of pixels is counted
by their place among these.

Shape legend: B batch, P patches, N some of the B·P patches, J classes in question of each of them,
1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelChoices:
    """The pixels of some patches, each of one of the J classes of its patch."""

    patches: Tensor
    """int64 [N]: which of the B·P."""
    classes: Tensor
    """int64 [N, J] class ids; some may stand there twice, the first is chosen."""
    chosen: Tensor
    """Small integers [N, 1024]: the place of each pixel's class among them."""

    @property
    def ids(self) -> Tensor:
        """int64 [N, 1024]: the class ids of the pixels."""
        return self.classes.gather(1, self.chosen.long())


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredChoices(PixelChoices):
    """The same, with the probability of what decided each pixel."""

    scores: Tensor
    """float32 [N, 1024] in 0..1"""


def strongest(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest of J values [N, J, 1024] of each pixel, and its place: [N, 1024].

    Places are small integers; of equal values the first counts. A pass per value takes a tenth of
    the time of ``Tensor.max``.
    """
    if torch.compiler.is_exporting():  # in one operator, where runtimes have it
        found = values.max(dim=1)
        return found.values, found.indices
    largest, *others = values.unbind(1)
    dtype = torch.uint8 if len(others) < 1 << 8 else torch.int16
    place = torch.zeros(largest.shape, dtype=dtype, device=values.device)
    for number, each in enumerate(others, start=1):
        # Places rise, so that the last larger value has the largest place.
        torch.maximum(place, (each > largest).to(dtype).mul_(number), out=place)
        largest = torch.maximum(largest, each)
    return largest, place


def label_map_of(parts: Sequence[ScoredChoices], patches: int) -> Tensor:
    """Return class ids int64 [patches, 1024] of parts that together hold all patches."""
    return _assembled(parts, [part.ids for part in parts], patches)


def scores_of(parts: Sequence[ScoredChoices], patches: int) -> Tensor:
    """Return scores float32 [patches, 1024] of parts that together hold all patches."""
    return _assembled(parts, [part.scores for part in parts], patches)


def _assembled(parts: Sequence[ScoredChoices], values: Sequence[Tensor], patches: int) -> Tensor:
    if len(parts) == 1:
        return values[0]
    whole = values[0].new_empty(patches, values[0].shape[1])
    for part, each in zip(parts, values, strict=True):
        whole[part.patches] = each
    return whole
