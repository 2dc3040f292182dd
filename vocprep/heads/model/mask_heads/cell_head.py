"""The head of cells: class logits of every cell of a patch.

Each layer of an embedding keeps the numbers of its own n×n cells: channel · n² + row · n + column.
A linear map takes the numbers of each cell; what comes of layers with fewer cells than the head's
is interpolated between them, and averaged where there are more. The cells of a window that is
larger than its patch are taken at the places that the patch has in it.

Shape legend: B batch, P patches, G cells per patch, C classes, D embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vocprep.errors import UsageError
from vocprep.geometry import PATCH
from vocprep.heads.model.config import WIDTH, HeadsConfig
from vocprep.heads.model.loss_parts import LossParts, Targets, class_losses, soft_cross_entropy
from vocprep.heads.model.mask_heads.cells import (
    around_each,
    cell_shares,
    resample,
    take,
    within_window,
)

HIDDEN = 64
"""Numbers per cell between what a cell holds, with its patch's token, and its class logits."""
DROPOUT = 0.1


class CellLinear(nn.Module):
    """A linear map of the numbers that an embedding holds of each cell.

    It is one ``nn.Linear`` over the channels of all layers, computed at each layer's own cells.
    """

    def __init__(self, config: HeadsConfig, outputs: int) -> None:
        super().__init__()
        self._layers, self._per_side = config.layers, config.cells
        self._windows = config.windows or (PATCH,) * len(config.layers)
        channels = sum(layer.channels for layer in config.layers)
        self.linear = nn.Linear(channels, outputs)

    def forward(self, embeddings: Tensor, grids: Tensor) -> Tensor:
        """Return [B, P, G, outputs] of embeddings [B, P, D] and grids int64 [B, 2] of (ny, nx)."""
        parts = torch.split(embeddings, [layer.size for layer in self._layers], dim=-1)
        columns = torch.split(self.linear.weight, [each.channels for each in self._layers], dim=1)
        found: Tensor = self.linear.bias
        each = zip(self._layers, self._windows, parts, columns, strict=True)
        for layer, window, part, weight in each:
            own = part.reshape(*part.shape[:-1], layer.channels, -1).transpose(-1, -2)
            mapped = functional.linear(own, weight)
            if window == PATCH:
                found = found + resample(mapped, grids, layer.cells, self._per_side)
            else:
                weights = within_window(layer.cells, window, self._per_side, mapped.device)
                found = found + weights.to(mapped.dtype) @ mapped
        return found


class CellContext(nn.Module):
    """A residual 3×3 convolution over the picture's grid of cells, normalised for each cell alone.

    Its rows are gathered, so that pictures of any grids share a batch, and nothing is read from
    padding: beyond the picture its last cells are repeated.
    """

    def __init__(self, width: int, per_side: int) -> None:
        super().__init__()
        self._per_side = per_side
        self.linear = nn.Linear(9 * width, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, cells: Tensor, grids: Tensor) -> Tensor:
        """Return [B, P, G, X] of cells [B, P, G, X]."""
        places = around_each(grids, cells.shape[1], self._per_side)
        mixed = self.linear(take(_as_multiplied(cells), places).flatten(-2))
        return cells + functional.gelu(self.norm(mixed))


def _as_multiplied(values: Tensor) -> Tensor:
    """Return values in the precision of matrix products, before rows are copied nine times."""
    device = values.device.type
    if torch.is_autocast_enabled(device):
        return values.to(torch.get_autocast_dtype(device))
    return values


class CellHead(nn.Module):
    """Class logits of cells, from their part of the embedding and their patch's token.

    Without an encoder there are no tokens: the logits are one linear map of the embedding.
    """

    def __init__(self, config: HeadsConfig) -> None:
        super().__init__()
        self._per_side, self._has_tokens = config.cells, config.has_tokens
        self.classes: nn.Module
        if not config.has_tokens:
            self.classes = CellLinear(config, config.outputs)
            return
        self.own = CellLinear(config, HIDDEN)
        self.token = nn.Linear(WIDTH, HIDDEN)
        self.context = nn.ModuleList(
            CellContext(HIDDEN, config.cells) for _ in range(config.cell_context)
        )
        self.dropout = nn.Dropout(DROPOUT)
        self.classes = nn.Linear(HIDDEN, config.outputs)

    def forward(
        self, standard: Tensor, tokens: Tensor, patch_logits: Tensor, grids: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return class logits [B, P, C] and those of cells [B, P, G, C]: see ``kinds``."""
        if grids is None:
            raise UsageError(
                "mask_head cells: expected grids [B, 2], found None; pass each image's (ny, nx)"
            )
        if not self._has_tokens:
            logits: Tensor = self.classes(standard, grids)
        else:
            hidden = self.own(standard, grids) + self._spread(self.token(tokens), grids)
            hidden = functional.gelu(hidden)
            for mix in self.context:
                hidden = mix(hidden, grids)
            logits = self.classes(self.dropout(hidden))
            logits = logits + self._spread(patch_logits, grids)
        return mean_class_logits(logits), logits

    def _spread(self, values: Tensor, grids: Tensor) -> Tensor:
        """Return values of patches [B, P, X] interpolated at their cells [B, P, G, X]."""
        return resample(values.unsqueeze(-2), grids, 1, self._per_side)


def mean_class_logits(cell_logits: Tensor) -> Tensor:
    """Return each patch's class logits float32 [B, P, C]: the log of its cells' mean probability.

    ``cell_logits`` [B, P, G, C]. The softmax of these logits is that mean.
    """
    return cell_logits.float().log_softmax(dim=-1).logsumexp(dim=-2) - math.log(
        cell_logits.shape[-2]
    )


def cell_losses(
    class_logits: Tensor, cell_logits: Tensor, targets: Targets, config: HeadsConfig
) -> LossParts:
    """Return the losses of patches and of cells: cross-entropies against shares of area."""
    class_logits, cell_logits = class_logits.float(), cell_logits.float()
    per_side = math.isqrt(cell_logits.shape[-2])
    shares, valid = targets.cell_shares or cell_shares(targets.slot_planes, per_side)
    by_patch = class_losses(class_logits, targets, valid.sum(dim=-1), config)
    labels = targets.slot_labels.unsqueeze(-2).expand_as(shares)
    by_cell = soft_cross_entropy(cell_logits, labels, shares, config.label_smoothing)
    filled = valid > 0
    return LossParts(by_patch, filled.any(dim=-1), by_cell, filled.sum(dim=-1))
