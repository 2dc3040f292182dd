"""The same records for every row of read.py: vocprep's shards, plain arrays, the peers' formats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.building.output.publish import write_dataset
from vocprep.geometry import Geometry
from vocprep.labels.label_space import load_label_space
from vocprep.labels.png import encode_png
from vocprep.labels.targets import make_targets
from vocprep.options import Layout, ShardFormat
from vocprep.placement import place_labels
from vocprep.recipe import LabelSpaceId, Recipe, SplitIds
from vocprep.shards.record import Record
from vocprep.synthetic.scene import draw_label_map

Fields = dict[str, Tensor]
PATCHES, DIM = 49, 256
LAYOUT: dict[str, tuple[str, tuple[int, ...]]] = {
    "embeddings": ("float16", (PATCHES, DIM)),
    "slot_labels": ("int16", (PATCHES, 4)),
    "slot_pixels": ("uint16", (PATCHES, 4)),
    "slot_planes": ("uint8", (PATCHES, 3, 128)),
}
"""What every row reads: dtype and shape of a record's fields, as they are stored."""
SAMPLE_BYTES = sum(np.dtype(dtype).itemsize * np.prod(shape) for dtype, shape in LAYOUT.values())
_READY = {
    "embeddings": torch.float32,
    "slot_labels": torch.int64,
    "slot_pixels": torch.int64,
    "slot_planes": torch.uint8,
}
_MAPS = 256
_SHARD = 500


def ready(arrays: dict[str, NDArray[Any]]) -> Fields:
    """Return stacked fields [B, P, …] as the tensors that a training step takes."""
    return {name: torch.from_numpy(arrays[name]).to(dtype) for name, dtype in _READY.items()}


def collate_fields(samples: list[dict[str, Any]]) -> Fields:
    """Stack the fields of samples: the peers' collate function."""
    return ready({name: np.stack([sample[name] for sample in samples]) for name in LAYOUT})


def make_records(count: int) -> Iterator[Record]:
    """Yield records with random embeddings and the targets of generated scenes."""
    schema = load_label_space("context460")
    maps = [
        place_labels(draw_label_map(np.random.default_rng([0, number]), number), Geometry(), 0)
        for number in range(min(count, _MAPS))
    ]
    targets = [vars(make_targets(label_map, schema.void)) for label_map in maps]
    pngs = [encode_png(label_map) for label_map in maps]
    generator = np.random.default_rng(1)
    for number in range(count):
        embeddings = generator.standard_normal((PATCHES, DIM), dtype=np.float32)
        yield Record(
            image_id=f"2010_{number:06d}",
            split="train",
            grid=(7, 7),
            embeddings=embeddings.astype(np.float16),
            label_png=pngs[number % _MAPS],
            image_sha256=generator.bytes(32).hex(),
            label_sha256=generator.bytes(32).hex(),
            **targets[number % _MAPS],
        )


def write_shards(records: list[Record], out: Path, container: ShardFormat) -> None:
    """Write a finished dataset version without a backbone."""
    out.mkdir()
    schema = load_label_space("context460")
    recipe = Recipe(
        dataset="generated",
        schema=LabelSpaceId(name=schema.name, sha256=schema.sha256),
        splits={"train": SplitIds.of([record.image_id for record in records])},
        backbone="resnet32-cifar100",
        weights_sha256="00" * 32,
        geometry=Geometry(),
    )
    write_dataset(
        out, recipe, {"train": records}, Layout(format=container, samples_per_shard=_SHARD)
    )


def write_arrays(records: list[Record], out: Path) -> None:
    """Write each field as one .npy of all records [N, P, …]."""
    out.mkdir()
    for name in LAYOUT:
        np.save(out / f"{name}.npy", np.stack([getattr(record, name) for record in records]))


def samples_of(records: list[Record]) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield each record's fields as a plain dict."""
    for record in records:
        yield {name: getattr(record, name) for name in LAYOUT}
