"""Weights files: dictionaries of tensors, read without running code that a file may contain."""

from __future__ import annotations

import io
import pickle
import reprlib
import warnings
import zipfile
from typing import Any

import torch
from torch import Tensor

from vocprep.errors import WeightsError
from vocprep.storage.places import Place
from vocprep.storage.reading import read_bytes
from vocprep.validation import explain

MAX_WEIGHTS_BYTES = 8 << 30
"""Of one weights file: a ViT-L has 1.2 GB, the largest ViTs that fit one machine 4.5 GB."""
_WIDENED = (torch.float16, torch.bfloat16)
"""Read as float32, which holds each of their numbers exactly."""
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
_DTYPES = (torch.float32, *_WIDENED, *_WHOLE)


def read_weights(path: Place, data: bytes | None = None) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` file, or of one that ``torch.save`` wrote.

    Numbers of 16 bits are widened to float32. ``data`` are the file's bytes where they are read
    already. WeightsError for anything but a dictionary of tensors.
    """
    try:
        data = read_bytes(path, MAX_WEIGHTS_BYTES) if data is None else data
        value = _load_safetensors(data) if path.suffix == ".safetensors" else _load_pickle(data)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such weights file; check --weights") from error
    except OSError as error:
        raise WeightsError(f"{path}: weights cannot be read: {explain(error)}") from error
    # torch's own message advises to load such a file without protection, so it is not shown.
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: weights cannot be read: damaged, or more than tensors inside; expected a "
            "dictionary of tensors, as torch.save(network.state_dict(), PATH) writes it"
        ) from error
    # torch.load raises whatever unpickling damaged bytes raises.
    except Exception as error:
        raise WeightsError(
            f"{path}: weights cannot be read: damaged, or no weights file; expected a dictionary "
            "of tensors as torch.save or safetensors writes it; copy it again from where it came, "
            "or run vocprep download for published weights"
        ) from error
    return _checked(value, path, len(data))


def _load_safetensors(data: bytes) -> Any:
    from safetensors.torch import load  # noqa: PLC0415  # few weights come this way

    return load(data)


def _load_pickle(data: bytes) -> Any:
    if data.startswith(b"PK"):  # torch.save stores members as they are; deflated ones may be bombs
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > len(data):
                raise ValueError("larger unpacked than packed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's warnings about old pickle formats
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _checked(value: Any, path: Place, size: int) -> dict[str, Tensor]:
    """Return the value of a file; WeightsError unless it is a dictionary of usable tensors.

    ``size`` is the file's: a tensor of strides 0 could be declared larger than any memory.
    """
    if not isinstance(value, dict):
        raise WeightsError(
            f"{path}: expected a dictionary of tensors, found {type(value).__name__}"
        )
    for name, item in value.items():
        is_tensor = isinstance(name, str) and isinstance(item, Tensor) and item.device.type == "cpu"
        if not is_tensor or item.dtype not in _DTYPES or item.layout != torch.strided:
            raise WeightsError(
                f"{path}: expected a dictionary of tensors of float32, float16, bfloat16 or whole "
                f"numbers, found {reprlib.repr(name)}: {_kind(item)}{_advice(name, item)}"
            )
    declared = sum(item.numel() * item.element_size() for item in value.values())
    if declared > size:
        raise WeightsError(
            f"{path}: its tensors are declared to have {declared:,} bytes: expected no more than "
            f"the {size:,} bytes of the file; save copies, which share no memory"
        )
    return {name: item.float() if item.dtype in _WIDENED else item for name, item in value.items()}


def _kind(item: Any) -> str:
    if not isinstance(item, Tensor):
        return type(item).__name__
    return f"{item.dtype}" + (", without data" if item.device.type == "meta" else "")


def _advice(name: Any, item: Any) -> str:
    if isinstance(item, Tensor) and item.dtype == torch.float64:
        return "; save them as float32: {name: t.float() …}"
    if not isinstance(item, dict):
        return ""
    return f"; save that dictionary alone: torch.save(torch.load(PATH)[{reprlib.repr(name)}], NEW)"
