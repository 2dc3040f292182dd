"""JPEG decoding on the GPU, and what is decoded or refused without one."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vocprep.errors import ImageDecodeError, UsageError
from vocprep.features.image import decode_jpeg
from vocprep.features.on_device import nvjpeg
from vocprep.features.on_device.nvjpeg import check_nvjpeg, decode_jpegs

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


def test_colour_spaces_that_nvjpeg_does_not_know_are_decoded_without_a_gpu() -> None:
    (found,) = decode_jpegs([jpeg(1, "CMYK")], ["a.jpg"], torch.device("cpu"))
    np.testing.assert_array_equal(found, decode_jpeg(jpeg(1, "CMYK"), "a.jpg"))


def test_file_that_is_no_jpeg_is_refused_by_its_name() -> None:
    with pytest.raises(ImageDecodeError, match=r"b\.jpg: "):
        decode_jpegs([jpeg(1, "CMYK"), b"no picture"], ["a.jpg", "b.jpg"], torch.device("cpu"))


def test_jpeg_that_was_cut_is_refused_by_its_name() -> None:
    cut = jpeg(2)[:-200]
    with pytest.raises(ImageDecodeError, match=r"^b\.jpg: "):
        decode_jpegs([jpeg(1, "CMYK"), cut], ["a.jpg", "b.jpg"], torch.device("cpu"))


@NEEDS_GPU
def test_pictures_come_back_in_order_and_about_the_same() -> None:
    gpu = torch.device("cuda")
    check_nvjpeg(gpu)
    datas = [jpeg(0), jpeg(1, "L"), jpeg(3)]
    for data, pixels in zip(datas, decode_jpegs(datas, list("abc"), gpu), strict=True):
        expected = decode_jpeg(data, "")
        assert isinstance(pixels, torch.Tensor)
        assert pixels.shape == expected.shape
        assert np.abs(pixels.cpu().numpy().astype(int) - expected).mean() < 3


@NEEDS_GPU
def test_large_pictures_are_in_the_hosts_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvjpeg, "MOST_BYTES", 1000)
    (pixels,) = decode_jpegs([jpeg(0)], ["a"], torch.device("cuda"))
    assert isinstance(pixels, np.ndarray)


@NEEDS_GPU
def test_jpeg_that_nvjpeg_refuses_is_named_among_others_and_decoded_alone() -> None:
    gpu, sound = torch.device("cuda"), jpeg(2)
    begin = sound.index(b"\xff\xc4")
    bare = sound[:begin] + sound[begin + 2 + int.from_bytes(sound[begin + 2 : begin + 4], "big") :]
    with pytest.raises(ImageDecodeError, match="a, b"):
        decode_jpegs([jpeg(0), bare], ["a", "b"], gpu)
    (pixels,) = decode_jpegs([bare], ["b"], gpu)
    np.testing.assert_array_equal(pixels, decode_jpeg(bare, "b"))
