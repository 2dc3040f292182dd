"""JPEG decoding on the GPU, for machines whose CPU cores are the limit.

nvJPEG's pixels differ a little from libjpeg-turbo's, so that embeddings made with it are a numerics
class of their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import compress

import numpy as np
import torch
from numpy.typing import NDArray

from vocprep.errors import UsageError
from vocprep.features.image import decode_picture, is_plain_jpeg, picture_format
from vocprep.features.image_errors import image_decode_error


def check_nvjpeg(device: torch.device) -> None:
    """Raise UsageError where nvJPEG cannot be used."""
    if device.type != "cuda":
        raise UsageError(
            f"decoder 'nvjpeg' runs on a GPU, found device {str(device)!r}; use --decoder "
            "simplejpeg"
        )


def decode_jpegs(
    datas: Sequence[bytes], wheres: Sequence[str], device: torch.device
) -> list[NDArray[np.uint8]]:
    """Decode JPEGs together: for each its RGB uint8 [H, W, 3].

    Colour spaces that nvJPEG does not support, and pictures of other formats, are decoded by
    ``decode_picture``. Raises
    ImageDecodeError when one of them is damaged; of several, nvJPEG does not report which one, and
    the error names them all: decode each alone then.
    """
    plain = [
        picture_format(where) is None and is_plain_jpeg(data, where)
        for data, where in zip(datas, wheres, strict=True)
    ]
    on_gpu = iter(
        _decode_plain(list(compress(datas, plain)), list(compress(wheres, plain)), device)
    )
    return [
        next(on_gpu) if is_plain else decode_picture(data, where)
        for data, where, is_plain in zip(datas, wheres, plain, strict=True)
    ]


def _decode_plain(
    datas: Sequence[bytes], wheres: Sequence[str], device: torch.device
) -> list[NDArray[np.uint8]]:
    if not datas:
        return []
    from torchvision.io import ImageReadMode  # noqa: PLC0415  # takes a second to import
    from torchvision.io import decode_jpeg as nvjpeg  # noqa: PLC0415

    encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in datas]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision announces that its decoders will move
            decoded = nvjpeg(encoded, mode=ImageReadMode.RGB, device=device)
    except RuntimeError as error:
        raise image_decode_error(", ".join(wheres), datas[0], error) from error
    return [pixels.permute(1, 2, 0).contiguous().cpu().numpy() for pixels in decoded]
