from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vocprep.errors import ImageDecodeError, UsageError
from vocprep.features.image import decode_jpeg
from vocprep.features.nvjpeg import check_nvjpeg, decode_jpegs

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def jpeg(seed: int, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    picture = Image.fromarray(pixels).resize((80, 60), Image.Resampling.BICUBIC)
    picture.convert(mode).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def test_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="simplejpeg"):
        check_nvjpeg(torch.device("cpu"))


def test_what_needs_no_gpu_is_decoded_or_refused_in_its_place() -> None:
    """Inks go to Pillow, and what is no picture goes nowhere."""
    cpu = torch.device("cpu")
    found = decode_jpegs([b"no picture", jpeg(1, "CMYK")], ["a.jpg", "b.jpg"], cpu)
    assert isinstance(found[0], ImageDecodeError)
    assert "a.jpg" in str(found[0])
    np.testing.assert_array_equal(found[1], decode_jpeg(jpeg(1, "CMYK"), "b.jpg"))


@NEEDS_GPU
def test_pictures_come_back_in_order_and_about_the_same() -> None:
    gpu = torch.device("cuda")
    check_nvjpeg(gpu)
    datas = [jpeg(0), jpeg(1, "L"), jpeg(2)[:300], jpeg(3)]
    found = decode_jpegs(datas, list("abcd"), gpu)
    assert isinstance(found[2], ImageDecodeError)
    for place in (0, 1, 3):
        pixels = found[place]
        assert isinstance(pixels, np.ndarray)
        expected = decode_jpeg(datas[place], "")
        assert pixels.shape == expected.shape
        assert np.abs(pixels.astype(int) - expected).mean() < 3
