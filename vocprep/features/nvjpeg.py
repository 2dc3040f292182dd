"""JPEG decoding on the GPU, for machines whose CPU cores are the limit.

nvJPEG's pixels differ a little from libjpeg-turbo's, so that embeddings made with it are a numerics
class of their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vocprep.errors import ImageDecodeError, UsageError
from vocprep.features.image import decode_jpeg, image_decode_error, is_plain_jpeg

Decoded = NDArray[np.uint8] | ImageDecodeError


def check_nvjpeg(device: torch.device) -> None:
    """Raise UsageError where nvJPEG cannot be used."""
    if device.type != "cuda":
        raise UsageError(
            f"decoder 'nvjpeg' runs on a GPU, found device {str(device)!r}; use --decoder "
            "simplejpeg"
        )
    try:
        import torchvision  # noqa: F401, PLC0415  # the extra "gpu"
    except ImportError as error:
        raise UsageError(
            "decoder 'nvjpeg' needs torchvision; install vocprep[gpu], or use --decoder simplejpeg"
        ) from error


def decode_jpegs(
    datas: Sequence[bytes], wheres: Sequence[str], device: torch.device
) -> list[Decoded]:
    """Decode pictures together: for each its RGB uint8 [H, W, 3], or what is wrong with it.

    Colour spaces that nvJPEG does not know take the way of ``decode_jpeg``.
    """
    found = [_by_header(data, where) for data, where in zip(datas, wheres, strict=True)]
    plain = [i for i, decoded in enumerate(found) if decoded is None]
    decoded = _decode([datas[i] for i in plain], [wheres[i] for i in plain], device)
    for i, pixels in zip(plain, decoded, strict=True):
        found[i] = pixels
    return [item for item in found if item is not None]


def _by_header(data: bytes, where: str) -> Decoded | None:
    """Return what needs no GPU: an error, or the pixels of an unusual colour space."""
    try:
        return None if is_plain_jpeg(data, where) else decode_jpeg(data, where)
    except ImageDecodeError as error:
        return error


def _decode(datas: Sequence[bytes], wheres: Sequence[str], device: torch.device) -> list[Decoded]:
    if not datas:
        return []
    from torchvision.io import ImageReadMode  # noqa: PLC0415  # an extra
    from torchvision.io import decode_jpeg as nvjpeg  # noqa: PLC0415

    encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in datas]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision announces that its decoders will move
            decoded = nvjpeg(encoded, mode=ImageReadMode.RGB, device=device)
    except RuntimeError as error:
        # It does not say which picture it was: each goes alone then.
        if len(datas) == 1:
            return [image_decode_error(wheres[0], datas[0], error)]
        return [
            found
            for data, where in zip(datas, wheres, strict=True)
            for found in _decode([data], [where], device)
        ]
    return [pixels.permute(1, 2, 0).contiguous().cpu().numpy() for pixels in decoded]
