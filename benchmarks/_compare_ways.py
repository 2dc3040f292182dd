"""Four ways to the same features and masks on disk, each of which can be run again and read.

The pictures, the crop, the patches, the network and its weights are the same; what a way stores
beside them is its own. ``Work`` counts pictures, so that a run can be stopped in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import torch
from _offline import datasets
from _pictures import Pictures
from _plain_builds import Bytes, load, masks, top_four, trunk
from numpy.typing import NDArray
from torch.utils.data import DataLoader, TensorDataset

import vocprep
from vocprep.data_dir.layout import SampleRef
from vocprep.options import BuildChoices, BuildOptions, Layout
from vocprep.progress import NoProgress
from vocprep.recipe import Precision
from vocprep.shards.reader import ShardDataset
from vocprep.storage.places import local_path

PATCHES, WIDTH, MASK_BYTES = 49, 256, 4 * 128
AT_ONCE = 2
"""Pictures in a batch of ``map``: on a CPU two fill the caches, sixteen halve the speed."""
PER_CALL = 64
"""Patches that the loop embeds at once, TRIDENT's default."""


@dataclass
class Work:
    """Counts pictures over all ways, and stops a run after some of them."""

    made: int = 0
    stop_after: int | None = None

    def count(self, pictures: int) -> None:
        """Add pictures; KeyboardInterrupt, as Ctrl-C raises it, when those allowed are made."""
        self.made += pictures
        if self.stop_after is not None and self.made >= self.stop_after:
            raise KeyboardInterrupt


WORK = Work()
"""Not a parameter: ``datasets`` makes the parameters of a function part of its cache's name."""


@dataclass(frozen=True)
class Stored:
    """What a way gives back of one picture."""

    features: NDArray[np.float16]
    """[P, 256]."""
    masks: Bytes
    """Packed bits; their layout is the way's own."""

    def differs(self, other: Stored) -> bool:
        """Return whether any bit is another one."""
        return not (
            np.array_equal(self.features.view(np.uint16), other.features.view(np.uint16))
            and np.array_equal(self.masks, other.masks)
        )


class Way(Protocol):
    """A program that makes features of all pictures in a folder, and reads them."""

    @property
    def title(self) -> str:
        """What the way is called in the tables."""

    def run(self, pictures: Pictures, out: Path) -> int:
        """Make what is missing in ``out``, and return how many pictures were made."""

    def read(self, out: Path, image_id: str) -> Stored:
        """Return one picture's features and masks; raises what the way's reader raises."""

    def file_of(self, out: Path, image_id: str) -> Path:
        """Return the file that holds the features of a picture."""


@cache
def network_of(weights: str) -> torch.nn.Module:
    """Return the eager trunk in fp32, loaded once a process as by any of these programs."""
    return trunk(weights)


def embed_rows(batch: Mapping[str, list[Any]], weights: str, suffix: str) -> dict[str, Any]:
    """Return columns for a batch of pictures, whose label maps are in the folder beside."""
    samples = [sample_of(image, suffix) for image in batch["image"]]
    WORK.count(len(samples))
    loaded = [load(sample) for sample in samples]
    with torch.inference_mode():
        found = network_of(weights)(torch.cat([patches for patches, _ in loaded]))
    packed = [masks(tiles, top_four(tiles)) for _, tiles in loaded]
    return {
        "image_id": [sample.image_id for sample in samples],
        "features": list(found.half().numpy().reshape(len(samples), -1)),
        "masks": [each.reshape(-1) for each in packed],
    }


def sample_of(image: str | Mapping[str, str], suffix: str) -> SampleRef:
    """Return the files of a picture, which a table has by its path or as an image by reference."""
    path = Path(image if isinstance(image, str) else image["path"])
    label_path = path.parent.parent / "masks" / f"{path.stem}{suffix}"
    return SampleRef(image_id=path.stem, split="train", image_path=path, label_path=label_path)


def open_list(pictures: Pictures, out: Path) -> Any:
    """Return a table of paths, from a CSV file that is written once."""
    listed = out / "pictures.csv"
    if not listed.is_file():
        lines = ["image", *(str(sample.image_path) for sample in pictures.samples())]
        listed.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    cache_dir = str(out / "cache")
    return datasets.load_dataset("csv", data_files=str(listed), cache_dir=cache_dir, split="train")


def open_folder(pictures: Pictures, out: Path) -> Any:
    """Return the table that ``imagefolder`` makes of the folder of pictures."""
    folder, cache_dir = str(pictures.data_dir / "pictures"), str(out / "cache")
    table = datasets.load_dataset(
        "imagefolder", data_dir=folder, cache_dir=cache_dir, split="train"
    )
    return table.cast_column("image", datasets.Image(decode=False))


@dataclass
class DatasetsMap:
    """``datasets``: a table of files, ``map`` with a function, its cache in Arrow files."""

    title: str
    open: Callable[[Pictures, Path], Any]
    rows: dict[Path, Any] = field(default_factory=dict)
    """The last result of each folder, as a program has it in its hands."""

    def run(self, pictures: Pictures, out: Path) -> int:
        """Map the table of files."""
        out.mkdir(parents=True, exist_ok=True)
        before, table = WORK.made, self.open(pictures, out)
        columns = {
            name: datasets.List(datasets.Value(kind), length=PATCHES * width)
            for name, kind, width in (
                ("features", "float16", WIDTH),
                ("masks", "uint8", MASK_BYTES),
            )
        }
        self.rows[out] = table.map(
            embed_rows,
            batched=True,
            batch_size=AT_ONCE,
            fn_kwargs={
                "weights": pictures.weights,
                "suffix": local_path(pictures.samples()[0].label_path).suffix,
            },
            remove_columns="image",
            features=datasets.Features({"image_id": datasets.Value("string"), **columns}),
        )
        return WORK.made - before

    def read(self, out: Path, image_id: str) -> Stored:
        """Return a row of the cache, opened anew as the next program does."""
        rows = datasets.Dataset.from_file(str(self.file_of(out, image_id)))
        row = rows.with_format("numpy")[rows["image_id"].index(image_id)]
        features = row["features"].astype(np.float16)  # the formatter widens them
        return Stored(features.reshape(PATCHES, -1), row["masks"].astype(np.uint8))

    def file_of(self, out: Path, image_id: str) -> Path:
        """Return the one file of the cache."""
        return Path(self.rows[out].cache_files[0]["filename"])


@dataclass(frozen=True)
class FilePerPicture:
    """A loop in the manner of TRIDENT: a file per picture, made where there is none."""

    title: str = "(b) a file per picture, as TRIDENT does"

    def run(self, pictures: Pictures, out: Path) -> int:
        """Skip pictures whose file is there, or that another process has locked."""
        out.mkdir(parents=True, exist_ok=True)
        before = WORK.made
        for sample in pictures.samples():
            path = self.file_of(out, sample.image_id)
            lock = path.with_suffix(".lock")
            if path.exists() or lock.exists():
                continue
            lock.touch()
            try:
                WORK.count(1)
                self._make(sample, pictures.weights, path)
            finally:
                lock.unlink()
        return WORK.made - before

    @staticmethod
    @torch.inference_mode()
    def _make(sample: SampleRef, weights: str, path: Path) -> None:
        """Embed the patches of one picture, without workers: 49 patches are not worth theirs."""
        patches, tiles = load(sample)
        network = network_of(weights)
        loader = DataLoader(TensorDataset(patches), batch_size=PER_CALL)
        found = torch.cat([network(batch) for (batch,) in loader])
        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=found.half().numpy(), chunks=(1, WIDTH))
            file["masks"] = masks(tiles, top_four(tiles))

    def read(self, out: Path, image_id: str) -> Stored:
        """Return what the file holds."""
        with h5py.File(self.file_of(out, image_id), "r") as file:
            return Stored(file["features"][()], file["masks"][()])

    def file_of(self, out: Path, image_id: str) -> Path:
        """Return the picture's own file."""
        return out / f"{image_id}.h5"


class CountingProgress(NoProgress):
    """Counts the pictures that a build advances by."""

    def advance(self, count: int) -> None:
        """Count them, which may stop the build."""
        WORK.count(count)


@dataclass(frozen=True)
class BuildShards:
    """``vocprep build-shards``."""

    title: str
    precision: Precision
    samples_per_shard: int = 500

    def run(self, pictures: Pictures, out: Path) -> int:
        """Build what is missing of the version."""
        result = vocprep.build(
            pictures.dataset,
            out=out,
            data_dir=pictures.data_dir,
            weights=pictures.weights,
            choices=BuildChoices(precision=self.precision),
            layout=Layout(samples_per_shard=self.samples_per_shard),
            options=BuildOptions(device="cpu"),
            progress=CountingProgress(),
        )
        return result.made

    def read(self, out: Path, image_id: str) -> Stored:
        """Return the record's features, and the planes of its masks."""
        record = ShardDataset.open(str(out)).record(image_id)
        return Stored(record.embeddings.astype(np.float16), record.slot_planes)

    def file_of(self, out: Path, image_id: str) -> Path:
        """Return the picture's shard."""
        names = sorted(path for path in out.iterdir() if path.suffix == ".h5")
        number = int(image_id[1:]) // self.samples_per_shard
        return names[number]


def all_ways() -> list[Way]:
    """Return the ways in the order of the table of speeds."""
    return [
        DatasetsMap("(a) datasets.map over a list of files", open_list),
        FilePerPicture(),
        BuildShards("(c) build-shards, fp32", "fp32"),
        BuildShards("(d) build-shards, exact", "exact"),
    ]


def noticing_ways(samples_per_shard: int) -> list[Way]:
    """Return the ways in the order of the table of what they notice, at any precision the same."""
    return [
        DatasetsMap("(a) datasets.map over a list of files", open_list),
        DatasetsMap("(a) datasets.map over imagefolder", open_folder),
        FilePerPicture(),
        BuildShards("(c) build-shards", "fp32", samples_per_shard),
    ]
