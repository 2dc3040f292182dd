"""Rows (a) and (b) of build.py, plain PyTorch programs, and the clock of all its rows."""

from __future__ import annotations

import time
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vocprep.backbones import Normalisation
from vocprep.data_dir.layout import SampleRef
from vocprep.features.networks import cifar100_resnet32
from vocprep.features.weights import load_weights
from vocprep.storage.places import local_path

Bytes = NDArray[np.uint8]


class Clock:
    """Images a second from the ``warm``-th picture on."""

    def __init__(self, warm: int) -> None:
        self._warm = warm
        self._times: list[float] = []

    def tick(self) -> None:
        """Count one picture."""
        self._times.append(time.perf_counter())

    def stop(self) -> float:
        """Return images a second, now that everything is written."""
        elapsed = time.perf_counter() - self._times[self._warm - 1]
        return (len(self._times) - self._warm) / elapsed


def crop(picture: Image.Image, how: Image.Resampling) -> Bytes:
    """Bring the shorter side to 256 and crop the centre."""
    scale = 256 / min(picture.size)
    width, height = (max(256, int(side * scale)) for side in picture.size)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    resized = picture.resize((width, height), how)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def load(sample: SampleRef) -> tuple[torch.Tensor, Bytes]:
    """Return normalised patches [49, 3, 32, 32] and label patches [49, 1024], with Pillow."""
    image_path, label_path = local_path(sample.image_path), local_path(sample.label_path)
    with Image.open(image_path) as picture, Image.open(label_path) as labels:
        pixels = crop(picture.convert("RGB"), Image.Resampling.BILINEAR)
        label_map = crop(labels, Image.Resampling.NEAREST)
    normalisation = Normalisation()
    mean, std = torch.tensor(normalisation.mean), torch.tensor(normalisation.std)
    image = ((torch.from_numpy(pixels.copy()) / 255 - mean) / std).permute(2, 0, 1)
    patches = image.unfold(1, 32, 32).unfold(2, 32, 32).flatten(1, 2).permute(1, 0, 2, 3)
    tiles = label_map.reshape(7, 32, 7, 32).swapaxes(1, 2).reshape(49, 1024)
    return patches.contiguous(), tiles


def top_four(tiles: Bytes, void: int = 255) -> list[list[tuple[int, int]]]:
    """Return each patch's four largest labels with their pixels, patch by patch."""
    slots = []
    for tile in tiles:
        labels, counts = np.unique(tile[tile != void], return_counts=True)
        ranked = sorted(zip(counts.tolist(), labels.tolist(), strict=True), key=rank)[:4]
        slots.append([(label, count) for count, label in ranked])
    return slots


def rank(pair: tuple[int, int]) -> tuple[int, int]:
    """Order (count, label) by falling count, then rising label."""
    return -pair[0], pair[1]


def masks(tiles: Bytes, slots: list[list[tuple[int, int]]]) -> Bytes:
    """Return four packed masks a patch."""
    out = np.zeros((len(tiles), 4, 128), dtype=np.uint8)
    for patch, ranked in enumerate(slots):
        for slot, (label, _) in enumerate(ranked):
            out[patch, slot] = np.packbits(tiles[patch] == label)
    return out


def trunk(weights: str) -> nn.Module:
    """Return the eager, unfolded trunk with its pool."""
    network = cifar100_resnet32()
    network.load_state_dict(load_weights(weights, Path()))
    return nn.Sequential(
        *list(network.children())[:-2], nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(1)
    ).eval()


@torch.inference_mode()
def seeds_way(
    samples: list[SampleRef], weights: str, out: Path, device: torch.device, warm: int
) -> float:
    """(a) One picture at a time; return images a second."""
    network, clock = trunk(weights).to(device), Clock(warm)
    with h5py.File(out / "a.h5", "w") as file:
        for sample in samples:
            patches, tiles = load(sample)
            embeddings = network(patches.to(device))
            group = file.create_group(sample.image_id)
            group["embeddings"] = embeddings.half().cpu().numpy()
            group["masks"] = masks(tiles, top_four(tiles))
            clock.tick()
    return clock.stop()


class Decoded(Dataset[tuple[torch.Tensor, Bytes]]):
    """Decodes and makes targets in the DataLoader's workers."""

    def __init__(self, samples: list[SampleRef]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Bytes]:
        torch.set_num_threads(1)
        patches, tiles = load(self.samples[index])
        return patches, masks(tiles, top_four(tiles))


def collate(items: list[tuple[torch.Tensor, Bytes]]) -> tuple[torch.Tensor, Bytes]:
    """Join the patches of a batch [B·49, 3, 32, 32] and its masks [B, 49, 4, 128]."""
    return torch.cat([patches for patches, _ in items]), np.stack([mask for _, mask in items])


@torch.inference_mode()
def by_hand(
    samples: list[SampleRef], weights: str, out: Path, device: torch.device, warm: int
) -> float:
    """(b) A DataLoader whose workers decode, the backbone on a batch; return images a second."""
    network, clock = trunk(weights).to(device), Clock(warm)
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        Decoded(samples),
        # On a CPU two pictures fill the caches: with sixteen this row is less than half as fast.
        batch_size=256 if on_gpu else 2,
        num_workers=torch.get_num_threads(),
        collate_fn=collate,
        pin_memory=on_gpu,
    )
    with h5py.File(out / "b.h5", "w") as file:
        shape = (len(samples), 49)
        embeddings = file.create_dataset("embeddings", (*shape, 256), dtype="f2")
        packed = file.create_dataset("masks", (*shape, 4, 128), dtype="u1")
        row = 0
        for patches, mask in loader:
            rows = slice(row, row + len(mask))
            found = network(patches.to(device, non_blocking=True)).half().cpu().numpy()
            embeddings[rows], packed[rows] = found.reshape(-1, 49, 256), mask
            row = rows.stop
            for _ in mask:
                clock.tick()
    return clock.stop()
