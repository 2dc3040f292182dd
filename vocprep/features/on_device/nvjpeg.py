"""JPEG decoding on the GPU, for machines whose CPU cores are the limit.

nvJPEG's pixels differ a little from libjpeg-turbo's, so that embeddings made with it are a numerics
class of their own. It passes over damage within a picture's data that libjpeg-turbo reports.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import compress

import torch
from torch import Tensor

from vocprep.errors import UsageError
from vocprep.features.image import decode_picture, is_plain_jpeg, picture_format
from vocprep.features.image_errors import image_decode_error
from vocprep.features.on_device.placing import MOST_BYTES, Pixels


def check_nvjpeg(device: torch.device) -> None:
    """Raise UsageError where nvJPEG cannot be used."""
    if device.type != "cuda":
        raise UsageError(
            f"decoder 'nvjpeg' runs on a GPU, found device {str(device)!r}; use --decoder "
            "simplejpeg"
        )


def decode_jpegs(
    datas: Sequence[bytes], wheres: Sequence[str], device: torch.device
) -> list[Pixels | Tensor]:
    """Decode JPEGs together: for each its RGB uint8 [H, W, 3], on the device if it is small.

    What nvJPEG does not support is decoded by ``decode_picture``: other colour spaces and formats,
    files without an end, and a JPEG that nvJPEG refuses alone. Raises ImageDecodeError when one of
    them is damaged; of several, nvJPEG does not report which one, and the error names them all:
    decode each alone then.
    """
    plain = [
        picture_format(where) is None and is_plain_jpeg(data, where) and _has_end(data)
        for data, where in zip(datas, wheres, strict=True)
    ]
    on_gpu = iter(
        _decode_plain(list(compress(datas, plain)), list(compress(wheres, plain)), device)
    )
    return [
        next(on_gpu) if is_plain else decode_picture(data, where)
        for data, where, is_plain in zip(datas, wheres, plain, strict=True)
    ]


def _has_end(data: bytes) -> bool:
    """Return whether a JPEG's last scan is followed by the marker of its end.

    nvJPEG may fill what is missing of a file that was cut.
    """
    return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")


def _decode_plain(
    datas: Sequence[bytes], wheres: Sequence[str], device: torch.device
) -> list[Pixels | Tensor]:
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
        if len(datas) == 1:
            return [decode_picture(datas[0], wheres[0])]
        raise image_decode_error(", ".join(wheres), datas[0], error) from error
    # Other streams take the pixels, as soon as they are returned.
    torch.cuda.current_stream(device).synchronize()
    pictures = [pixels.permute(1, 2, 0) for pixels in decoded]
    return [
        picture if picture.numel() <= MOST_BYTES else picture.cpu().contiguous().numpy()
        for picture in pictures
    ]
