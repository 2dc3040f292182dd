"""Images a second from picture and label files to shards on disk, on the CPU.

(a) is the project's first notebook, written plainly: one picture at a time, Pillow, the eager
backbone, a Python loop for the top 4. (b) is what a careful engineer would write by hand: a
DataLoader whose workers decode and make targets, the backbone on sixteen pictures at once. (c) to
(e) are vocprep. (f) is the backbone alone on tensors that are in memory already, each core on
chunks of its own, the best that the same precision can do here.

Start-up (imports, compiling, the first group) is taken out of all rows. Real pictures where
VOCPREP_SHARED_DATA or ../shared/data has them, else generated ones.

Run: python benchmarks/build.py [--images 300] [--repeats 1]
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vocprep.engines.local import build_dataset
from vocprep.features.backbone import cifar100_resnet32, load_weights
from vocprep.features.embed import CHUNK, Embedder
from vocprep.recipe import Choices, EngineOptions, Layout, Normalisation, Precision
from vocprep.shards.plan import plan_build
from vocprep.sources.manifest import DatasetManifest, load_dataset
from vocprep.sources.sample import SampleOptions, write_sample
from vocprep.sources.tree import SampleRef, list_samples

WARM = 32
"""Pictures before the clock starts."""
ROOT = Path(__file__).resolve().parent.parent


class Clock:
    """Images a second from the ``WARM``-th picture on."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def tick(self) -> None:
        """Count one picture."""
        self.times.append(time.perf_counter())

    @property
    def rate(self) -> float:
        """Images a second."""
        return (len(self.times) - WARM) / (self.times[-1] - self.times[WARM - 1])


def crop(picture: Image.Image, how: Image.Resampling) -> NDArray[np.uint8]:
    """Bring the shorter side to 256 and crop the centre."""
    scale = 256 / min(picture.size)
    width, height = (max(256, int(side * scale)) for side in picture.size)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    resized = picture.resize((width, height), how)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def load(sample: SampleRef) -> tuple[torch.Tensor, NDArray[np.uint8]]:
    """Return normalised patches [49, 3, 32, 32] and label patches [49, 1024], with Pillow."""
    with Image.open(sample.image_path) as picture, Image.open(sample.label_path) as labels:
        pixels = crop(picture.convert("RGB"), Image.Resampling.BILINEAR)
        label_map = crop(labels, Image.Resampling.NEAREST)
    normalisation = Normalisation()
    mean, std = torch.tensor(normalisation.mean), torch.tensor(normalisation.std)
    image = ((torch.from_numpy(pixels.copy()) / 255 - mean) / std).permute(2, 0, 1)
    patches = image.unfold(1, 32, 32).unfold(2, 32, 32).flatten(1, 2).permute(1, 0, 2, 3)
    tiles = label_map.reshape(7, 32, 7, 32).swapaxes(1, 2).reshape(49, 1024)
    return patches.contiguous(), tiles


def top_four(tiles: NDArray[np.uint8], void: int = 255) -> list[list[tuple[int, int]]]:
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


def masks(tiles: NDArray[np.uint8], slots: list[list[tuple[int, int]]]) -> NDArray[np.uint8]:
    """Return four packed masks a patch."""
    out = np.zeros((len(tiles), 4, 128), dtype=np.uint8)
    for patch, ranked in enumerate(slots):
        for slot, (label, _) in enumerate(ranked):
            out[patch, slot] = np.packbits(tiles[patch] == label)
    return out


def trunk(weights: Path) -> nn.Module:
    """Return the eager, unfolded trunk with its pool."""
    network = cifar100_resnet32()
    network.load_state_dict(load_weights(str(weights), Path()))
    return nn.Sequential(
        *list(network.children())[:-2], nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(1)
    ).eval()


@torch.inference_mode()
def seeds_way(samples: list[SampleRef], weights: Path, out: Path) -> float:
    """(a) One picture at a time."""
    network, clock = trunk(weights), Clock()
    with h5py.File(out / "a.h5", "w") as file:
        for sample in samples:
            patches, tiles = load(sample)
            embeddings = network(patches)
            group = file.create_group(sample.image_id)
            group["embeddings"] = embeddings.half().numpy()
            group["masks"] = masks(tiles, top_four(tiles))
            clock.tick()
    return clock.rate


class Pictures(Dataset[tuple[torch.Tensor, NDArray[np.uint8]]]):
    """Decodes and makes targets in the DataLoader's workers."""

    def __init__(self, samples: list[SampleRef]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, NDArray[np.uint8]]:
        torch.set_num_threads(1)
        patches, tiles = load(self.samples[index])
        return patches, masks(tiles, top_four(tiles))


@torch.inference_mode()
def by_hand(samples: list[SampleRef], weights: Path, out: Path) -> float:
    """(b) A DataLoader with workers, sixteen pictures through the backbone at once."""
    network, clock = trunk(weights), Clock()
    loader = DataLoader(Pictures(samples), batch_size=16, num_workers=2, collate_fn=list)
    with h5py.File(out / "b.h5", "w") as file:
        shape = (len(samples), 49)
        embeddings = file.create_dataset("embeddings", (*shape, 256), dtype="f2")
        packed = file.create_dataset("masks", (*shape, 4, 128), dtype="u1")
        row = 0
        for batch in loader:
            found = network(torch.cat([patches for patches, _ in batch]))
            embeddings[row : row + len(batch)] = found.half().numpy().reshape(-1, 49, 256)
            packed[row : row + len(batch)] = np.stack([mask for _, mask in batch])
            row += len(batch)
            for _ in batch:
                clock.tick()
    return clock.rate


def vocprep(
    tree: tuple[DatasetManifest, Path, int], weights: Path, out: Path, how: tuple[Precision, bool]
) -> float:
    """(c) to (e): what `vocprep build-shards` does."""
    manifest, data_dir, images = tree
    precision, compiled = how
    plan = plan_build(
        manifest,
        data_dir,
        str(weights),
        Choices(splits=("train",), limit=images, precision=precision),
        Layout(),
    )
    clock = Clock()
    options = EngineOptions(device="cpu", compiled=compiled, if_exists="overwrite")
    build_dataset(plan, out / "vocprep", options, clock.tick)
    return clock.rate


def backbone_alone(weights: Path, images: int, how: tuple[Precision, bool]) -> float:
    """(f) Chunks that are in memory, each core on its own."""
    precision, compiled = how
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    state = load_weights(str(weights), Path())
    embedder = Embedder(state, Normalisation(), device=torch.device("cpu"), precision=precision)
    if compiled:
        embedder.compile()
    patches = np.random.default_rng(0).integers(0, 256, (CHUNK, 32, 32, 3), dtype=np.uint8)
    embedder.embed(patches)
    chunks = images * 49 // CHUNK // cores
    threads = [
        threading.Thread(target=embed_chunks, args=(embedder, patches, chunks))
        for _ in range(cores)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    torch.set_num_threads(cores)
    return chunks * cores * CHUNK / 49 / seconds


def embed_chunks(embedder: Embedder, patches: NDArray[np.uint8], count: int) -> None:
    """Embed the same chunk again and again."""
    for _ in range(count):
        embedder.embed(patches)


def find_data(images: int, folder: Path) -> tuple[DatasetManifest, Path, str]:
    """Return real pictures where there are any, else generated ones."""
    shared = Path(os.environ.get("VOCPREP_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if (shared / "voc2012-real").is_dir():
        return load_dataset("voc2012"), shared / "voc2012-real", "real VOC 2012 pictures"
    write_sample(folder, SampleOptions(images=images * 6 // 5 + 2))
    return load_dataset("voc2010"), folder, "generated pictures"


def rows(
    images: int, folder: Path
) -> tuple[str, Iterable[tuple[str, Callable[[], float], str | None]]]:
    """Return what the pictures are, and each row's name, work and the row to compare it with."""
    manifest, data_dir, kind = find_data(images, folder / "data")
    samples = list_samples(data_dir, manifest, ["train"], limit=images)
    shared = data_dir.parent / "weights" / "cifar100_resnet32.pth"
    weights = shared if shared.is_file() else Path("random:0")
    tree = manifest, data_dir, len(samples)
    ways: dict[str, tuple[Precision, bool]] = {
        "fp32": ("fp32", False),
        "fp32, compiled": ("fp32", True),
        "bf16, compiled": ("bf16", True),
    }

    def generate() -> Iterator[tuple[str, Callable[[], float], str | None]]:
        yield "(a) the seed's way", partial(seeds_way, samples, weights, folder), None
        yield "(b) DataLoader by hand", partial(by_hand, samples, weights, folder), None
        for letter, (name, how) in zip("cde", ways.items(), strict=True):
            alone = f"(f) backbone alone, {name}"
            yield (
                f"({letter}) vocprep, {name}",
                partial(vocprep, tree, weights, folder, how),
                alone,
            )
            yield alone, partial(backbone_alone, weights, len(samples), how), None

    return f"{len(samples)} {kind}, weights {weights.name}", generate()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        what, generator = rows(arguments.images, Path(name))
        works = list(generator)
        print(
            f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} "
            f"CPUs; Python {platform.python_version()}, torch {version('torch')}; {what}; best of "
            f"{arguments.repeats}"
        )
        rates: dict[str, float] = {}
        for _ in range(arguments.repeats):
            for title, work, _ in works:
                rates[title] = max(rates.get(title, 0.0), work())
    first = next(iter(rates.values()))
    print(f"\n{'':36}  images/s  of (a)  of its (f)")
    for title, _, alone in works:
        share = f"{rates[title] / rates[alone]:10.2f}" if alone else ""
        print(f"{title:36}  {rates[title]:8.1f}  {rates[title] / first:6.2f}  {share}")


if __name__ == "__main__":
    main()
