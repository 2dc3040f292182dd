"""Devices to compute on, and the numerics class that they are of."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import simplejpeg
import torch

from vocprep.errors import UsageError
from vocprep.features.probe import NUMERICS_CLASS
from vocprep.options import Decoder
from vocprep.recipe import Precision

GPU_CHUNK = 1568
"""Patches per forward pass on a GPU: 32 images of 7×7 patches fill it, and one image alone, which
is filled up to a chunk, costs no more. cuDNN chooses its algorithms by it, so that the numerics
class of a GPU names it."""


def choose_device(name: str) -> torch.device:
    """Return the torch device of ``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    return choose_devices(name)[0]


def choose_devices(name: str) -> list[torch.device]:
    """Return the torch devices of ``auto``, ``cpu``, ``cuda`` (all GPUs) or ``cuda:N``."""
    found = torch.cuda.device_count()
    gpus = [torch.device("cuda", index) for index in range(found)]
    if name == "auto":
        return gpus or [torch.device("cpu")]
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device {name!r}: expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= found:
        raise UsageError(f"device {name!r}: {_what_is_there(found)}")
    return gpus if device.type == "cuda" and device.index is None else [device]


def _what_is_there(gpus: int) -> str:
    """Return which GPUs there are, and what to choose instead of one that is not there."""
    if not gpus:
        return "PyTorch finds no CUDA device here; use --device cpu"
    if gpus == 1:
        return "found one CUDA device; use --device cuda:0"
    return f"found {gpus} CUDA devices; use one of --device cuda:0 to cuda:{gpus - 1}"


def numerics_class(
    devices: Sequence[torch.device],
    decoder: Decoder = "simplejpeg",
    precision: Precision = "fp32",
) -> dict[str, str]:
    """Return what decides the bits of embeddings beside the recipe.

    With the precision ``exact`` it is the same for all machines. Raises UsageError for GPUs of
    different kinds with any other, and for a decoder that ``exact`` is not defined with.
    """
    if precision == "exact":
        if decoder != "simplejpeg":
            raise UsageError(
                f"precision 'exact' is not defined with decoder {decoder!r}, whose pixels differ: "
                "expected --decoder simplejpeg, or another precision"
            )
        return dict(NUMERICS_CLASS)
    described = [_describe(device) for device in devices]
    if any(other != described[0] for other in described):
        names = ", ".join(f"{d}: {described[i][0]}" for i, d in enumerate(devices))
        raise UsageError(
            f"the GPUs differ ({names}), and so would their embeddings; choose one by --device "
            "cuda:N"
        )
    name, instruction_set = described[0]
    on_cpu = f"simplejpeg {simplejpeg.__version__}"
    return {
        "torch": torch.__version__,
        "device": name,
        "instruction_set": instruction_set,
        "jpeg_decoder": on_cpu if decoder == "simplejpeg" else f"nvjpeg {torch.version.cuda}",
    }


def _describe(device: torch.device) -> tuple[str, str]:
    """Return a device's name and its instruction set."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]  # torch's own gap
        return torch.cuda.get_device_name(
            device
        ), f"sm_{major}{minor} cuDNN {cudnn} chunk {GPU_CHUNK}"
    amx = " AMX" if "amx_bf16" in _cpu_flags() else ""  # whose sums round differently
    return "cpu", f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}{amx}"


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
