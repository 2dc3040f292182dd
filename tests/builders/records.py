"""Records of any shape for the tests of shards: by generator, and as hypothesis strategies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.versions import write_records
from vocprep.geometry import Geometry, Grid
from vocprep.labels.png import encode_png
from vocprep.labels.targets import make_targets
from vocprep.options import Layout, ShardFormat
from vocprep.shards.columns import BATCH_FIELDS, Column, Columns
from vocprep.shards.feed.batches import Batch
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record
from vocprep.views import ViewChoice

VOID = 0


def make_record(
    image_id: str = "2010_000001",
    grid: Grid = (2, 3),
    *,
    dim: int = 256,
    dtype: str = "float16",
    split: str = "train",
    seed: int = 0,
) -> Record:
    """A record whose targets are those of its label map; the pixels are drawn from ``seed``."""
    rng = np.random.default_rng([seed, *image_id.encode()])
    label_map = random_label_map(grid, rng)
    return record_of(image_id, label_map, dim=dim, dtype=dtype, split=split, rng=rng)


def record_of(
    image_id: str,
    label_map: NDArray[np.uint16],
    *,
    void: int = VOID,
    dim: int = 8,
    dtype: str = "float16",
    split: str = "train",
    rng: np.random.Generator | None = None,
) -> Record:
    """A record of this label map; embeddings and digests of files are drawn at random."""
    rng = rng or np.random.default_rng([*image_id.encode()])
    grid = (label_map.shape[0] // 32, label_map.shape[1] // 32)
    targets = make_targets(label_map, void)
    return Record(
        image_id=image_id,
        split=split,
        grid=grid,
        embeddings=rng.normal(size=(grid[0] * grid[1], dim)).astype(dtype),
        slot_labels=targets.slot_labels,
        slot_pixels=targets.slot_pixels,
        label_count=targets.label_count,
        slot_planes=targets.slot_planes,
        label_png=encode_png(label_map),
        image_sha256=rng.bytes(32).hex(),
        label_sha256=rng.bytes(32).hex(),
    )


def random_label_map(grid: Grid, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Blocks of 8×8 pixels with ids of the whole range, some void."""
    blocks = rng.choice([0, 1, 2, 15, 255, 256, 431, 459], size=(grid[0] * 4, grid[1] * 4))
    return np.kron(blocks, np.ones((8, 8), dtype=np.int64)).astype(np.uint16)


IMAGE_IDS = st.text("ABCxyz0189_-", min_size=1, max_size=24)
GRIDS = st.tuples(st.integers(1, 4), st.integers(1, 4))


@st.composite
def records_of_a_shard(draw: st.DrawFn) -> list[Record]:
    """One to five records in id order, of different sizes, some of them with a mirrored view."""
    image_ids = sorted(draw(st.sets(IMAGE_IDS, min_size=1, max_size=5)))
    dtype = draw(st.sampled_from(["float16", "float32"]))
    dim = draw(st.sampled_from([1, 8, 256]))
    with_flip = draw(st.booleans())
    records = []
    for image_id in image_ids:
        grid = draw(GRIDS)
        for record_id in (image_id, f"{image_id}#flip")[: 1 + with_flip]:
            records.append(make_record(record_id, grid, dim=dim, dtype=dtype))
    return records


FIELDS = (
    "image_id",
    "split",
    "grid",
    "embeddings",
    "slot_labels",
    "slot_pixels",
    "label_count",
    "slot_planes",
    "label_png",
    "image_sha256",
    "label_sha256",
)


def assert_same_record(found: Record, expected: Record) -> None:
    """All fields agree, arrays in dtype, shape and bits."""
    for name in FIELDS:
        one, other = getattr(found, name), getattr(expected, name)
        if isinstance(other, np.ndarray):
            assert one.dtype == other.dtype, name
            assert one.shape == other.shape, name
            assert one.tobytes() == other.tobytes(), name
        else:
            assert one == other, name


def assert_same_records(found: Sequence[Record], expected: Sequence[Record]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert_same_record(one, other)


def write_version(
    out: Path,
    records: Sequence[Record],
    *,
    per_shard: int = 2,
    container: ShardFormat = "hdf5",
) -> ShardDataset:
    """Write records of one split as a finished dataset version, and open it."""
    layout = Layout(format=container, samples_per_shard=per_shard)
    write_records(out, records, layout, geometry=Geometry(geometry="native"))
    return ShardDataset.open(out)


def columns_of(records: Sequence[Record]) -> Columns:
    """The columns of records in memory, which hold the records too."""
    offsets = np.cumsum([0, *(len(record.embeddings) for record in records)])
    arrays = {name: [getattr(record, name) for record in records] for name in BATCH_FIELDS}
    return Columns(
        image_ids=[record.image_id for record in records],
        grids=np.array([record.grid for record in records]),
        fields={name: Column.of(np.concatenate(arrays[name]), offsets) for name in arrays},
        read=records.__getitem__,
    )


class MemorySource:
    """A ``ShardSource`` of records in memory, which notes what is read of it."""

    content_id = "ab" * 32

    def __init__(self, shards: Sequence[Sequence[Record]]) -> None:
        self.shards = {f"train-{number:05d}.h5": shard for number, shard in enumerate(shards)}
        self.opened: list[str] = []
        self.prefetched: list[str] = []

    def shard_names(self, split: str) -> list[str]:
        return list(self.shards)

    def shard_sizes(self, split: str, *, all_views: ViewChoice = False) -> list[int]:
        return [len(self._chosen(name, all_views)) for name in self.shards]

    def read_shard(self, name: str, *, all_views: ViewChoice = False) -> Iterator[Record]:
        self.opened.append(name)
        yield from self._chosen(name, all_views)

    def read_columns(self, name: str, *, all_views: ViewChoice = False) -> Columns:
        return columns_of(list(self.read_shard(name, all_views=all_views)))

    def prefetch(self, names: Sequence[str]) -> None:
        self.prefetched += names

    def _chosen(self, name: str, all_views: ViewChoice) -> list[Record]:
        endings = {"flip": r"#flip$", "crops": r"#crop\d+$"}
        chosen = (endings if all_views else ()) if isinstance(all_views, bool) else all_views
        others = [endings[kind] for kind in endings if kind not in chosen]
        ids = [record.image_id for record in self.shards[name]]
        left_out = {id_ for id_ in ids if any(re.search(ending, id_) for ending in others)}
        return [record for record in self.shards[name] if record.image_id not in left_out]


BATCH_TENSORS = ("grids", "padding", "embeddings", "slot_labels", "slot_pixels", "slot_planes")


def assert_same_batch(one: Batch, other: Batch) -> None:
    assert one.image_ids == other.image_ids
    assert one.has_padding == other.has_padding
    for name in BATCH_TENSORS:
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype, name
        assert torch.equal(left, right), name
    assert (one.label_maps is None) == (other.label_maps is None)
    for left, right in zip(one.label_maps or (), other.label_maps or (), strict=True):
        np.testing.assert_array_equal(left, right)


FEW_CORES = pytest.mark.filterwarnings("ignore:This DataLoader will create")
"""On a machine of one core, torch advises against a second worker process."""
