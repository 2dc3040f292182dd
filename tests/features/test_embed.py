"""Embeddings: the same bits however the patches are grouped, and devices that exist."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from vocprep.backbones import NORMALISATIONS, Normalisation
from vocprep.errors import UsageError
from vocprep.features import embed
from vocprep.features.devices import choose_device, choose_devices, numerics_class
from vocprep.features.embed import CHUNK, Embedder, EmbeddingSpec
from vocprep.features.networks import cifar100_resnet32, stages_of
from vocprep.features.weights import load_weights
from vocprep.placement import split_patches
from vocprep.recipe import Precision

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
WEIGHTS = load_weights("random:0", Path())
PATCHES = np.random.default_rng(0).integers(0, 256, (101, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def whole() -> NDArray[np.float32]:
    return embedder(len(PATCHES)).embed(PATCHES)


def embedder(chunk: int = CHUNK) -> Embedder:
    return Embedder(WEIGHTS, EmbeddingSpec(), device=CPU, chunk=chunk)


def test_embeddings_are_float32_rows(whole: NDArray[np.float32]) -> None:
    assert (whole.dtype, whole.shape) == (np.float32, (101, 256))
    assert np.isfinite(whole).all()
    assert len(np.unique(whole, axis=0)) == 101


@pytest.mark.parametrize("chunk", [2, 3, 7, 98, 100])
def test_bits_do_not_depend_on_the_chunk(chunk: int, whole: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(embedder(chunk).embed(PATCHES), whole)


PASSES = """
import resource
from pathlib import Path
import numpy as np, torch
from vocprep.features.embed import Embedder, EmbeddingSpec
from vocprep.features.weights import load_weights
torch.set_num_threads(1)
made = Embedder(load_weights("random:0", Path()), EmbeddingSpec(), device=torch.device("cpu"))
patches = np.zeros((98, 32, 32, 3), dtype=np.uint8)
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    made.embed(patches)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other rules")
def test_later_passes_get_the_memory_of_earlier_ones() -> None:
    """In a process of its own: what others have freed in this one decides too."""
    plain = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    done = subprocess.run(
        [sys.executable, "-c", PASSES], env=plain, check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 1000  # of the 7,000 pages that are asked for


def test_bits_of_single_patches_are_those_among_others(whole: NDArray[np.float32]) -> None:
    alone = embedder()
    for index in (0, 1, 50, 100):
        found = alone.embed(PATCHES[index : index + 1])
        np.testing.assert_array_equal(found, whole[index : index + 1])


def test_bits_do_not_depend_on_neighbours_or_order(whole: NDArray[np.float32]) -> None:
    order = np.random.default_rng(1).permutation(101)
    np.testing.assert_array_equal(embedder(7).embed(PATCHES[order]), whole[order])


def test_bits_do_not_depend_on_threads(whole: NDArray[np.float32]) -> None:
    torch.set_num_threads(2)
    try:
        np.testing.assert_array_equal(embedder(49).embed(PATCHES), whole)
    finally:
        torch.set_num_threads(1)


def test_no_patches_give_no_rows() -> None:
    assert embedder().embed(PATCHES[:0]).shape == (0, 256)


@given(st.integers(0, 300), st.integers(2, 99))
def test_chunks_cover_all_patches_and_none_is_a_single_one(count: int, size: int) -> None:
    parts = list(embed._chunks(count, size))
    covered = [index for part in parts for index in range(part.start, part.stop)]
    assert covered == list(range(count))
    for part in parts:
        assert part.stop - part.start <= size + 1
        assert part.stop - part.start > 1 or count == 1


@pytest.mark.parametrize("chunk", [1, 0, -3])
def test_chunks_of_single_patches_are_refused(chunk: int) -> None:
    with pytest.raises(UsageError, match=f"chunk {chunk}: expected 2 inputs or more"):
        embedder(chunk)


def test_embeddings_are_those_of_the_plain_network_on_normalised_pixels() -> None:
    network = cifar100_resnet32()
    network.load_state_dict(WEIGHTS)
    trunk = torch.nn.Sequential(*list(network.eval().children())[:-2])
    mean, std = np.array([0.5070, 0.4865, 0.4409]), np.array([0.2673, 0.2564, 0.2761])
    pixels = ((PATCHES[:4] / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.inference_mode():
        maps = trunk(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()
    expected = maps.reshape(4, 64, 2, 4, 2, 4).mean(axis=(3, 5)).reshape(4, 256)
    found = embedder().embed(PATCHES[:4])
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4


def test_normalisation_changes_embeddings(whole: NDArray[np.float32]) -> None:
    other = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    found = Embedder(WEIGHTS, EmbeddingSpec(normalisation=other), device=CPU).embed(PATCHES[:4])
    assert np.abs(found - whole[:4]).max() > 0.01


def test_the_patches_are_left_alone() -> None:
    before = PATCHES.copy()
    embedder().embed(PATCHES[:3])
    np.testing.assert_array_equal(PATCHES, before)


def test_devices_by_name() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["tpu", "", "cuda:x", "gpu", "meta", "mps", "CPU"])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"device '{name}': expected auto, cpu, cuda or cuda:N"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda:99", "cuda"])
def test_devices_that_are_not_there_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(
        UsageError, match=f"device '{name}': PyTorch finds no CUDA device here; use --device cpu"
    ):
        choose_device(name)


def test_numerics_class_says_what_else_decides_bits() -> None:
    found = numerics_class([CPU])
    assert found.keys() == {"torch", "device", "instruction_set", "jpeg_decoder"}
    assert found["torch"] == torch.__version__
    assert found["device"] == "cpu"
    assert found["instruction_set"].endswith(torch.backends.cpu.get_cpu_capability())
    assert found["jpeg_decoder"].startswith("simplejpeg ")


def test_pictures_are_embedded_as_their_patches_are() -> None:
    draw = np.random.default_rng(3)
    images = [
        draw.integers(0, 256, (32 * ny, 32 * nx, 3), dtype=np.uint8)
        for ny, nx in ((7, 7), (1, 1), (3, 2), (2, 5))
    ]
    one = embedder()
    found = one.embed_images(images)
    assert [len(embeddings) for embeddings in found] == [49, 1, 6, 10]
    for image, embeddings in zip(images, found, strict=True):
        np.testing.assert_array_equal(embeddings, one.embed(split_patches(image)))


def test_no_picture_gives_no_embedding() -> None:
    assert embedder().embed_images([]) == []


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_precisions_of_gpus_are_refused_on_a_cpu(precision: Precision) -> None:
    with pytest.raises(UsageError, match=f"precision '{precision}' needs a GPU"):
        Embedder(WEIGHTS, EmbeddingSpec(precision=precision), device=CPU)


def test_auto_takes_every_gpu_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    both = [torch.device("cuda:0"), torch.device("cuda:1")]
    assert choose_devices("auto") == choose_devices("cuda") == both
    assert choose_devices("cuda:1") == [torch.device("cuda:1")]
    with pytest.raises(
        UsageError, match=r"found 2 CUDA devices; use one of --device cuda:0 to cuda:1$"
    ):
        choose_devices("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=r"found one CUDA device; use --device cuda:0$"):
        choose_devices("cuda:1")


def test_gpus_of_two_kinds_do_not_share_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {0: "A", 1: "B"}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: kinds[device.index])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    devices = [torch.device("cuda:0"), torch.device("cuda:1")]
    with pytest.raises(UsageError, match="cuda:1: B"):
        numerics_class(devices)
    kinds[1] = "A"
    assert numerics_class(devices)["device"] == "A"
    assert numerics_class(devices, "nvjpeg")["jpeg_decoder"].startswith("nvjpeg")


# Windows and layers, and the backbone that sees whole pictures


def naive_window(image: NDArray[np.uint8], row: int, column: int, size: int) -> NDArray[np.uint8]:
    """One patch's window, pixel by pixel: mirrored at the border, squares averaged."""
    height, width = image.shape[:2]
    factor = size // 32
    top, left = 32 * row + 16 - size // 2, 32 * column + 16 - size // 2

    def mirrored(place: int, length: int) -> int:
        period = 2 * (length - 1)
        place %= period
        return place if place < length else period - place

    tile = np.zeros((32, 32, 3), dtype=np.uint8)
    for y in range(32):
        for x in range(32):
            square = [
                image[
                    mirrored(top + y * factor + dy, height), mirrored(left + x * factor + dx, width)
                ]
                for dy in range(factor)
                for dx in range(factor)
            ]
            for channel in range(3):
                total = sum(int(pixel[channel]) for pixel in square)
                tile[y, x, channel] = int(total / len(square) + 0.5)
    return tile


@pytest.mark.parametrize("grid", [(1, 1), (2, 3)])
def test_windows_are_embedded_as_pictures_of_the_surroundings(grid: tuple[int, int]) -> None:
    shape = (32 * grid[0], 32 * grid[1], 3)
    image = np.random.default_rng(4).integers(0, 256, shape, dtype=np.uint8)
    windows = (64, 32, 128)
    spec = EmbeddingSpec(windows=windows, layers=("layer3",))
    wide = Embedder(WEIGHTS, spec, device=CPU)
    (found,) = wide.embed_images([image])
    assert wide.dim == found.shape[1] == 3 * 256
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    for place, (row, column) in enumerate(places):
        tiles = np.stack([naive_window(image, row, column, window) for window in windows])
        expected = embedder().embed(tiles).reshape(-1)
        np.testing.assert_array_equal(found[place], expected)


def test_layers_stand_behind_one_another_in_the_order_declared() -> None:
    image = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    network = cifar100_resnet32()
    network.load_state_dict(WEIGHTS)
    network.eval()
    stages = stages_of(network)
    spec = EmbeddingSpec(layers=("layer2", "layer3"))
    both = Embedder(WEIGHTS, spec, device=CPU)
    (found,) = both.embed_images([image])
    assert both.dim == found.shape[1] == 32 * 16 + 256
    with torch.no_grad():
        x = both.normalise(torch.from_numpy(split_patches(image)))
        maps = {}
        for name, stage in stages.items():
            x = stage(x)
            maps[name] = x.numpy()
    layer2 = maps["layer2"].reshape(4, 32, 4, 4, 4, 4).mean(axis=(3, 5)).reshape(4, -1)
    layer3 = maps["layer3"].reshape(4, 64, 2, 4, 2, 4).mean(axis=(3, 5)).reshape(4, -1)
    expected = np.concatenate([layer2, layer3], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    (only,) = embedder().embed_images([image])
    np.testing.assert_array_equal(found[:, 512:], only)


RESNET18 = EmbeddingSpec(
    backbone="resnet18-imagenet",
    windows=(),
    layers=("layer4",),
    normalisation=NORMALISATIONS["imagenet"],
)


@pytest.fixture(scope="module")
def resnet18() -> Embedder:
    weights = load_weights("random:0", Path(), "resnet18-imagenet")
    return Embedder(weights, RESNET18, device=CPU)


def test_whole_pictures_give_an_embedding_a_place(resnet18: Embedder) -> None:
    draw = np.random.default_rng(6)
    images = [draw.integers(0, 256, (224, 224, 3), dtype=np.uint8) for _ in range(5)]
    found = resnet18.embed_images(images)
    assert [embeddings.shape for embeddings in found] == [(49, 512)] * 5
    assert resnet18.dim == 512
    alone = [resnet18.embed_images([image])[0] for image in images]
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_places_are_those_of_torchvisions_network(resnet18: Embedder) -> None:
    models = pytest.importorskip("torchvision.models")
    network = models.resnet18(weights=None)
    network.load_state_dict(load_weights("random:0", Path(), "resnet18-imagenet"))
    trunk = nn.Sequential(*list(network.eval().children())[:-2])
    image = np.random.default_rng(7).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        (maps,) = trunk((pixels - mean) / std).numpy()
    (found,) = resnet18.embed_images([image])
    expected = np.stack([maps[:, place // 7, place % 7] for place in range(49)])
    scale = float(np.abs(expected).max())
    assert scale > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * scale)
