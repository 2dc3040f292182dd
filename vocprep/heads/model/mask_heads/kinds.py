"""Mask heads: what makes class scores of pixels, behind one interface.

A mask head is three things, one entry of ``MASK_HEADS``: a module from tokens and embeddings to
logits, the losses that teach these, and what they say of pixels. To add one: a module of its own,
its name in ``config.MaskHeadName``, an entry here.

Shape legend: B batch, P patches, N some of the B·P patches, C classes, K = 4 slots, D embedding,
1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vocprep.heads.model.config import HeadsConfig, MaskHeadName
from vocprep.heads.model.loss_parts import LossParts, Targets
from vocprep.heads.model.mask_heads.cell_head import CellHead, cell_losses
from vocprep.heads.model.mask_heads.cell_pixels import CellPixels
from vocprep.heads.model.mask_heads.patch_head import patch_logits_alone, patch_losses
from vocprep.heads.model.mask_heads.pixel_choices import ScoredChoices
from vocprep.heads.model.mask_heads.slot_head import (
    SlotPixels,
    class_probabilities,
    make_slot_head,
    slot_logits,
)
from vocprep.heads.model.mask_heads.slot_losses import slot_losses
from vocprep.heads.model.mask_heads.slot_views import SlotViewPixels
from vocprep.heads.model.view_outputs import ViewOutputs, reweighted


class PixelScores(Protocol):
    """What the heads say of every pixel of a batch."""

    @property
    def choices(self) -> Sequence[ScoredChoices]:
        """All B·P patches, in one or several parts: the class of each pixel, and its score."""

    @property
    def label_map(self) -> Tensor:
        """int64 [B, P, 1024]: the class id of each pixel."""

    @property
    def confidence(self) -> Tensor:
        """float32 [B, P, 1024] in 0..1: the probability of what decided the pixel's class."""

    def masks_of(self, patches: Tensor, labels: Tensor) -> Tensor:
        """Return how strong given classes of some patches are: float32 [N, K, 1024] in 0..1.

        ``patches`` int64 [N] among the batch's B·P, ``labels`` int64 [N, K] class ids. 0 where an
        id is −1, and for classes that the head draws no mask of.
        """


@dataclass(frozen=True, kw_only=True)
class MaskHead:
    """One kind of mask head."""

    name: str
    """The module's name in ``TFDetHeads``, which is in the names of a run's weights."""
    make: Callable[[HeadsConfig], nn.Module]
    """Return the module with fresh weights."""
    logits: Callable[[nn.Module, Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
    """Return the patches' class logits [B, P, C] and the module's own: of the module, standardised
    embeddings [B, P, D], tokens [B, P, 256], the class logits of ``cat`` [B, P, C] and grids int64
    [B, 2] of (ny, nx), or None where they are not known. Without tokens
    (``HeadsConfig.has_tokens``) tokens and class logits are empty: [B, P, 0]."""
    losses: Callable[[Tensor, Tensor, Targets, HeadsConfig], LossParts]
    """Return the parts of both losses of class logits and the module's own."""
    pixels: Callable[[Tensor, Tensor, Tensor, HeadsConfig], PixelScores]
    """Return what class logits, the module's own and grids say of pixels."""
    pixels_of_views: Callable[
        [Sequence[ViewOutputs], Tensor, HeadsConfig, Tensor | None], PixelScores
    ]
    """Return what several views say of pixels together, or one with class weights [C]: of views,
    grids, and weights or None (``decoding``)."""
    probabilities: Callable[[Tensor, HeadsConfig], Tensor]
    """Return the module's own logits as probabilities."""


def pixels_of_cells(
    class_logits: Tensor, cell_logits: Tensor, grids: Tensor, config: HeadsConfig
) -> PixelScores:
    """Return what logits of cells [B, P, G, C] say of pixels; those of patches say nothing more."""
    del class_logits
    cells = class_probabilities(cell_logits, config.class_loss)
    return CellPixels(cells, grids, config.cells)


def pixels_of_cell_views(
    views: Sequence[ViewOutputs], grids: Tensor, config: HeadsConfig, class_weights: Tensor | None
) -> PixelScores:
    """Return what the mean of cells over views says of pixels; weights count in each cell.

    What is interpolated between means are the means of pixels.
    """
    cells = [class_probabilities(view.mask_logits, config.class_loss) for view in views]
    mean = torch.stack(cells).mean(dim=0)
    return CellPixels(reweighted(mean, class_weights), grids, config.cells)


MASK_HEADS: Mapping[MaskHeadName, MaskHead] = {
    "slots": MaskHead(
        name="reg",
        make=make_slot_head,
        logits=slot_logits,
        losses=slot_losses,
        pixels=lambda y, z, _grids, config: SlotPixels(y, z, config),
        pixels_of_views=lambda views, _grids, config, weights: SlotViewPixels(
            views, config, weights
        ),
        probabilities=lambda z, _config: z.sigmoid(),
    ),
    "cells": MaskHead(
        name="cells",
        make=CellHead,
        logits=CellHead.__call__,
        losses=cell_losses,
        pixels=pixels_of_cells,
        pixels_of_views=pixels_of_cell_views,
        probabilities=lambda z, _config: z.softmax(dim=-1),
    ),
    "none": MaskHead(
        name="none",
        make=lambda _config: nn.Identity(),
        logits=patch_logits_alone,
        losses=patch_losses,
        pixels=pixels_of_cells,
        pixels_of_views=pixels_of_cell_views,
        probabilities=lambda z, config: class_probabilities(z, config.class_loss),
    ),
}


def pixel_scores(
    class_logits: Tensor, mask_logits: Tensor, grids: Tensor, config: HeadsConfig
) -> PixelScores:
    """Return what outputs of heads [B, P, C] and [B, P, …] say of pixels.

    ``grids`` int64 [B, 2] of (ny, nx), ``config`` that of the heads.
    """
    return MASK_HEADS[config.mask_head].pixels(class_logits, mask_logits, grids, config)
