"""Frozen backbones: networks cut at the layers that embeddings are taken from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from vocprep.backbones import BACKBONES, DEFAULT_BACKBONE, Backbone, Network
from vocprep.features.libraries.folding import fold_norms
from vocprep.features.libraries.kinds import make_network
from vocprep.features.libraries.maps import MapNetwork, patch_cells, require_layer
from vocprep.features.networks import MAKERS, fold_batch_norms, stages_of
from vocprep.features.weights import StateDict, load_strictly
from vocprep.geometry import PATCH, SIDE

_KEPT = 16 << 20
"""Bytes: larger than any activation of a chunk on a CPU, and small enough for glibc to heed it."""


class FrozenBackbone(nn.Module):
    """Normalised inputs [N, 3, s, s] → embeddings [N·places, D].

    Each chosen layer's map is averaged over its cells and flattened, channel·cells² + row·side +
    column (ResNet-32's layer3: 64×8×8 → 256); the layers are concatenated in the order given. A
    backbone of whole images gives each place of its map one embedding, row-major. Batch norms are
    folded into the convolutions. The module stays in eval mode whatever a parent module does, and
    has no gradients: unfolded and in train mode, its batch norms would change with the first
    forward pass.

    >>> from pathlib import Path
    >>> from vocprep.features.weights import load_weights
    >>> weights = load_weights("random:0", Path("data"))
    >>> frozen = FrozenBackbone.from_weights(weights)
    >>> frozen(torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 256])
    """

    def __init__(
        self,
        network: nn.Module,
        backbone: Backbone,
        layers: Sequence[str],
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        super().__init__()
        stages = list(stages_of(network.eval()).items())
        last = max(place for place, (name, _) in enumerate(stages) if name in layers)
        self.names = [name for name, _ in stages[: last + 1]]
        trunk = nn.Sequential(*(stage for _, stage in stages[: last + 1]))
        self.memory_format = memory_format
        self.trunk = fold_batch_norms(trunk).to(memory_format=memory_format)
        self.layers = tuple(layers)
        self.per_place = backbone.takes_whole_images
        self.cells = {name: backbone.layers[name].cells for name in layers}
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_weights(
        cls,
        weights: StateDict,
        backbone: str = DEFAULT_BACKBONE,
        layers: Sequence[str] | None = None,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> Self:
        """Build it from a network's full state dict; WeightsError when that does not fit."""
        described = BACKBONES[backbone]
        network = MAKERS[backbone]()
        load_strictly(network, weights)
        return cls(network, described, layers or described.default_layers, memory_format)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        del mode
        return super().train(False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return embeddings."""
        x = inputs.contiguous(memory_format=self.memory_format)
        found = {}
        for name, stage in zip(self.names, self.trunk, strict=True):
            x = stage(x)
            if name in self.cells:
                found[name] = self._flatten(x, self.cells[name])
        return torch.cat([found[name] for name in self.layers], dim=1)

    def _flatten(self, x: Tensor, cells: int) -> Tensor:
        if self.per_place:  # each place of the map is an embedding: [N, C, 7, 7] → [N·49, C]
            return x.permute(0, 2, 3, 1).flatten(0, 2)
        return torch.flatten(nn.functional.adaptive_avg_pool2d(x, cells), 1)


class FrozenMaps(nn.Module):
    """Normalised pixels [N, 3, h, w] → embeddings [N·ny·nx, D], by a network that is not built in.

    Each patch gets its cells of each chosen layer's map, as with ``FrozenBackbone``; batch norms
    are folded into convolutions where that changes nothing but rounding, but not in a network of a
    file of one's own.
    """

    def __init__(self, maps: MapNetwork, network: Network, layers: Sequence[str]) -> None:
        super().__init__()
        if network.source_sha256 is None:  # code of one's own may use its modules in other ways
            side = SIDE // PATCH * network.patch_pixels
            fold_norms(maps, torch.zeros(1, 3, side, side))
        self.maps = maps.to(memory_format=torch.channels_last)
        self.patch_pixels = network.patch_pixels
        self.layers = {name: network.layers[name] for name in layers}
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_weights(
        cls, weights: StateDict, backbone: str, network: Network, layers: Sequence[str]
    ) -> Self:
        """Build it from the network's full state dict; WeightsError when that does not fit."""
        maps = make_network(backbone, network)
        load_strictly(maps.model, weights)
        return cls(maps, network, layers)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        del mode
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return embeddings."""
        grid = (pixels.shape[2] // self.patch_pixels, pixels.shape[3] // self.patch_pixels)
        found = self.maps(pixels.contiguous(memory_format=torch.channels_last))
        for name, layer in self.layers.items():
            require_layer(name, layer, found[name], grid)
        parts = [patch_cells(found[name], grid, layer.cells) for name, layer in self.layers.items()]
        return torch.cat(parts, dim=1)


def set_tf32(device: torch.device, *, allowed: bool) -> None:
    """Allow or forbid that a GPU rounds fp32 products to TF32, which keeps 10 of 23 bits.

    cuDNN's default allows it. The setting is global, so it is set before each pass, by torch's
    older switches: they can no longer be read once the newer ones are used. Releases of torch
    that warn of them do it on CPUs too, where nothing is to be set.
    """
    if device.type != "cuda":
        return
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next activations.

    By default glibc returns much of it to the system, which clears all pages of what it gives
    again: a tenth of the time of a pass in fp32 and bf16, a sixth in ``exact``. When a block is
    freed that the system had given for itself, glibc takes its size for the least one of such
    blocks, and twice that for how much may stay unused. This one is never written to and so takes
    no memory. Limits that a user has set stay, and other C libraries have none.
    """
    torch.empty(_KEPT, dtype=torch.uint8)
