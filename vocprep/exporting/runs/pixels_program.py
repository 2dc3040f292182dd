"""A whole run as a module to export: pixels in, classes of pixels out, the backbone between them.

It computes what ``features.embed.Embedder`` does, in tensors alone and for any grid of patches.

Shape legend: B pictures of one size; ny, nx their patch grid; P = ny·nx patches; s side in pixels
of a patch in the network's input (32 but for some networks that are not built in); D embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocprep.exporting.runs.heads_program import HeadsProgram
from vocprep.features.embed import EmbeddingSpec
from vocprep.features.reduction import Reducer
from vocprep.geometry import PATCH
from vocprep.recipe import EmbeddingDtype


class PixelsProgram(nn.Module):
    """Pixels uint8 [B, s·ny, s·nx, 3] (RGB) → label map and confidence [B, 32·ny, 32·nx]."""

    def __init__(self, embedding: EmbeddingProgram, heads: HeadsProgram) -> None:
        super().__init__()
        self.embedding, self.heads = embedding, heads

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return class ids int32 and the probability float32 of what decided each of them."""
        side = self.embedding.patch_pixels
        count, ny, nx = pixels.shape[0], pixels.shape[1] // side, pixels.shape[2] // side
        embeddings = self.embedding(pixels).view(count, ny * nx, self.heads.embedding_dim)
        ones = torch.ones(count, 1, dtype=torch.int64, device=pixels.device)
        grids = torch.cat([ones * ny, ones * nx], dim=1)
        _, label_map, confidence = self.heads.decoded(embeddings, grids, None)
        return _joined(label_map, ny, nx), _joined(confidence, ny, nx)


def _joined(patches: Tensor, ny: int, nx: int) -> Tensor:
    """Join patches [B, P, 32, 32] to [B, 32·ny, 32·nx]."""
    tiles = patches.view(patches.shape[0], ny, nx, PATCH, PATCH).transpose(2, 3)
    return tiles.reshape(patches.shape[0], ny * PATCH, nx * PATCH)


class EmbeddingProgram(nn.Module):
    """Pixels uint8 [B, s·ny, s·nx, 3] → embeddings float32 [B·P, D], as a build stores them."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        spec: EmbeddingSpec,
        reducer: Reducer | None,
        stored_as: EmbeddingDtype,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.patch_pixels = spec.described_backbone.patch_pixels
        self._windows, self._is_exact = spec.windows, spec.precision == "exact"
        self._is_rounded = stored_as == "float16"
        self.register_buffer("mean", torch.tensor(spec.normalisation.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.normalisation.std).view(3, 1, 1))
        self.reduction = None if reducer is None else ReductionProgram(reducer)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the embeddings of all patches, picture by picture, row-major."""
        if self._windows:
            parts = [self._embedded(cut_windows(pixels, window)) for window in self._windows]
            embeddings = torch.cat(parts, dim=1)
        else:
            embeddings = self._embedded(pixels)
        if self.reduction is not None:
            embeddings = self.reduction(embeddings)
        return embeddings.half().float() if self._is_rounded else embeddings

    def _embedded(self, inputs: Tensor) -> Tensor:
        """Return what the backbone gives for inputs uint8 [N, s, s, 3]."""
        inputs = inputs.permute(0, 3, 1, 2)
        if not self._is_exact:  # whose network takes the pixels themselves
            inputs = (inputs.float() / 255 - self.mean) / self.std
        embedded: Tensor = self.backbone(inputs)
        return embedded


class ReductionProgram(nn.Module):
    """A reduction of embeddings, ``features.reduction.Reducer``, in one product of float64.

    Sums that would pass 2⁵² are rounded here, and exact there.
    """

    matrix: Tensor
    offset: Tensor

    def __init__(self, reducer: Reducer) -> None:
        super().__init__()
        matrix, offset = reducer.affine
        self.register_buffer("matrix", torch.from_numpy(matrix))
        self.register_buffer("offset", torch.from_numpy(offset))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return embeddings float32 [P, D] of such [P, N]."""
        return (embeddings.half().double() @ self.matrix - self.offset).float()


def cut_windows(pixels: Tensor, window: int) -> Tensor:
    """Return the window around each patch as pixels uint8 [B·P, 32, 32, 3].

    Of pictures uint8 [B, 32·ny, 32·nx, 3]; what ``shrink_windows`` and ``cut_patches`` of
    ``features.on_device.placing`` give, in operators that programs are made of.
    """
    ny, nx = pixels.shape[1] // PATCH, pixels.shape[2] // PATCH
    factor = window // PATCH
    if factor > 1:
        pixels = _shrunk(pixels, window, factor)
    step = PATCH // factor
    rows, columns = _tiles(ny, step, pixels), _tiles(nx, step, pixels)
    picked = pixels.index_select(1, rows).index_select(2, columns)
    tiles = picked.view(pixels.shape[0], ny, PATCH, nx, PATCH, 3).transpose(2, 3)
    return tiles.reshape(-1, PATCH, PATCH, 3)


def _tiles(count: int, step: int, pixels: Tensor) -> Tensor:
    """Return the places int64 [count·32] of tiles of 32 pixels, ``step`` pixels apart."""
    first = torch.arange(count, device=pixels.device) * step
    return (first.unsqueeze(1) + torch.arange(PATCH, device=pixels.device)).flatten()


def _shrunk(pixels: Tensor, window: int, factor: int) -> Tensor:
    """Return pictures with a mirrored border, each square of ``factor``² pixels averaged: uint8."""
    margin = (window - PATCH) // 2
    rows, columns = _mirrored(pixels.shape[1], margin), _mirrored(pixels.shape[2], margin)
    padded = pixels.index_select(1, rows).index_select(2, columns).to(torch.int32)
    height, width = padded.shape[1] // factor, padded.shape[2] // factor
    squares = padded.view(pixels.shape[0], height, factor, width, factor, 3).sum(dim=(2, 4))
    return ((squares + factor * factor // 2) // (factor * factor)).to(torch.uint8)


def _mirrored(length: int, margin: int) -> Tensor:
    """Return the places int64 [length + 2·margin] of a side that is mirrored at both ends."""
    places, last = torch.arange(length + 2 * margin) - margin, length - 1
    for _ in range(margin // (2 * (PATCH - 1)) + 1):  # a side of one patch is passed several times
        places = last - (last - places.abs()).abs()
    return places.abs()
