"""Patches → embeddings through the frozen backbone."""

from __future__ import annotations

import logging
import platform
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.errors import UsageError
from vocprep.features.backbone import EMBEDDING_DIM, FrozenBackbone, StateDict
from vocprep.geometry import PATCH
from vocprep.recipe import Normalisation, Precision

CHUNK = 98
"""Patches a forward pass on a CPU: two 7×7 pictures fill its caches best."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Embedder:
    """Turns uint8 patches into embeddings, in chunks of a size that suits the device.

    A patch's embedding does not depend on the patches it is computed with, to the bit: no chunk
    holds a single patch, which oneDNN would compute by another algorithm. Several threads may share
    an embedder.
    """

    def __init__(
        self,
        weights: StateDict,
        normalisation: Normalisation,
        *,
        device: torch.device,
        precision: Precision = "fp32",
        chunk: int = CHUNK,
    ) -> None:
        if chunk < 2:
            raise UsageError(f"chunk {chunk}: expected 2 patches or more")
        if device.type == "cuda" and precision == "fp32":
            # cuDNN's default for fp32 convolutions is TF32, which keeps 10 bits of 23.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
        self.device = device
        self.chunk = chunk
        self._dtype = _DTYPES[precision]
        self.backbone = FrozenBackbone.from_weights(weights).to(device, self._dtype)
        self._network: Callable[[Tensor], Tensor] = self.backbone
        self._fixed_shape = False
        self._mean = torch.tensor(normalisation.mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(normalisation.std, device=device).view(3, 1, 1)

    def compile(self) -> None:
        """Compile the backbone for whole chunks: the same bits, sooner, after seconds of work.

        The weights are frozen into the code. Raises UsageError, and leaves the embedder as it was,
        where there is no C++ compiler or it fails.
        """
        if not can_compile():
            raise UsageError(
                "compiling needs a C++ compiler: found none of c++, g++, clang++; install one, or "
                "use --no-compile"
            )
        self._network = torch.compile(self.backbone, options={"freezing": True}, dynamic=False)
        self._fixed_shape = True
        try:
            with _quiet_compiler():
                self.embed(np.zeros((self.chunk, PATCH, PATCH, 3), dtype=np.uint8))
        # The compiler's own errors, of many types, and whatever its tools say.
        except Exception as error:
            self._network, self._fixed_shape = self.backbone, False
            reason = str(error).split("\n", maxsplit=1)[0]
            raise UsageError(
                f"the backbone does not compile: {reason}; use --no-compile"
            ) from error

    @torch.inference_mode()
    def embed(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return embeddings float32 [P, 256] of patches uint8 [P, 32, 32, 3] (RGB)."""
        out = np.empty((len(patches), EMBEDDING_DIM), dtype=np.float32)
        for part in _chunks(len(patches), self.chunk, whole=self._fixed_shape):
            out[part] = self._forward(patches[part])[: part.stop - part.start]
        return out

    def _forward(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        wanted = self.chunk if self._fixed_shape else 2
        if len(patches) < wanted:
            # Copies of the last patch; what becomes of them is thrown away.
            filler = np.repeat(patches[-1:], wanted - len(patches), axis=0)
            patches = np.concatenate([patches, filler])
        pixels = self.normalise(torch.from_numpy(patches)).to(self._dtype)
        embeddings: NDArray[np.float32] = self._network(pixels).float().cpu().numpy()
        return embeddings

    def normalise(self, patches: Tensor) -> Tensor:
        """Return the backbone's input float32 [P, 3, 32, 32] of patches uint8 [P, 32, 32, 3]."""
        pixels = patches.to(self.device).permute(0, 3, 1, 2).float().div_(255)
        return pixels.sub_(self._mean).div_(self._std)


def _chunks(count: int, size: int, *, whole: bool = False) -> Iterator[slice]:
    """Cut ``count`` patches into slices of ``size``.

    Unless chunks must be ``whole``, the last takes a single leftover along.
    """
    start = 0
    while start < count:
        stop = min(start + size, count)
        if count - stop == 1 and not whole:
            stop = count
        yield slice(start, stop)
        start = stop


@contextmanager
def _quiet_compiler() -> Iterator[None]:
    """Keep back the compiler's remarks on this machine, which no user can act on."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def can_compile() -> bool:
    """Say whether this machine has the C++ compiler that torch.compile needs."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


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
        else f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}{_amx()}",
        "jpeg_decoder": f"simplejpeg {simplejpeg.__version__}",
    }


def _amx() -> str:
    """Name the matrix unit that bf16 runs on where there is one: its sums round differently."""
    return " AMX" if "amx_bf16" in _cpu_flags() else ""


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
