"""Patches → embeddings through the frozen backbone."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.errors import UsageError
from vocprep.features.backbone import EMBEDDING_DIM, FrozenBackbone, StateDict
from vocprep.recipe import Normalisation

CHUNK = 98
"""Patches a forward pass on a CPU: two 7×7 pictures fill its caches best."""


class Embedder:
    """Turns uint8 patches into embeddings, in chunks of a size that suits the device.

    A patch's embedding does not depend on the patches it is computed with, to the bit: no chunk
    holds a single patch, which oneDNN would compute by another algorithm.
    """

    def __init__(
        self,
        weights: StateDict,
        normalisation: Normalisation,
        *,
        device: torch.device,
        chunk: int = CHUNK,
    ) -> None:
        if chunk < 2:
            raise UsageError(f"chunk {chunk}: expected 2 patches or more")
        self.device = device
        self.chunk = chunk
        self.backbone = FrozenBackbone.from_weights(weights).to(device)
        self._mean = torch.tensor(normalisation.mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(normalisation.std, device=device).view(3, 1, 1)

    @torch.inference_mode()
    def embed(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return embeddings float32 [P, 256] of patches uint8 [P, 32, 32, 3] (RGB)."""
        out = np.empty((len(patches), EMBEDDING_DIM), dtype=np.float32)
        for part in _chunks(len(patches), self.chunk):
            out[part] = self._forward(patches[part]).cpu().numpy()[: part.stop - part.start]
        return out

    def _forward(self, patches: NDArray[np.uint8]) -> Tensor:
        if len(patches) == 1:
            patches = np.repeat(patches, 2, axis=0)
        embeddings: Tensor = self.backbone(self.normalise(torch.from_numpy(patches)))
        return embeddings

    def normalise(self, patches: Tensor) -> Tensor:
        """Return the backbone's input float32 [P, 3, 32, 32] of patches uint8 [P, 32, 32, 3]."""
        pixels = patches.to(self.device).permute(0, 3, 1, 2).float().div_(255)
        return pixels.sub_(self._mean).div_(self._std)


def _chunks(count: int, size: int) -> Iterator[slice]:
    """Cut ``count`` patches into slices of ``size``; the last takes a single leftover along."""
    start = 0
    while start < count:
        stop = min(start + size, count)
        if count - stop == 1:
            stop = count
        yield slice(start, stop)
        start = stop


def choose_device(name: str) -> torch.device:
    """Return the torch device of ``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device {name!r}: expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name!r}: found {torch.cuda.device_count()} CUDA devices; use --device cpu"
        )
    return device


def numerics_class(device: torch.device) -> dict[str, str]:
    """Return what else decides the bits of embeddings, beside the recipe."""
    on_gpu = device.type == "cuda"
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "instruction_set": platform.machine()
        if on_gpu
        else f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "jpeg_decoder": f"simplejpeg {simplejpeg.__version__}",
    }
