"""Other libraries' loaders over the same records, each set up as its own documentation has it.

Each function returns something that gives one shuffled pass of ready batches per iteration. The
libraries are imported late: they are optional. All of them stay on local files.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _read_data import LAYOUT, Fields, collate_fields, ready, samples_of

from vocprep.shards.record import Record

OFFLINE = {
    "LITDATA_CHECK_UPDATES": "0",
    "LITDATA_DISABLE_VERSION_CHECK": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
"""Keeps the libraries from looking for updates or hubs; set before they are imported."""
os.environ.update(OFFLINE)


class MemmapLoader:
    """Plain numpy.memmap: one fancy-index gather per field and batch. Nothing is checked."""

    def __init__(self, folder: Path, batch_size: int, *, widen: bool) -> None:
        self._arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in LAYOUT}
        self._batch_size = batch_size
        self._widen = widen
        self._epochs = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._epochs += 1
        count = len(self._arrays["embeddings"])
        order = np.random.default_rng(self._epochs).permutation(count)
        for start in range(0, count, self._batch_size):
            rows = order[start : start + self._batch_size]
            batch = {name: array[rows] for name, array in self._arrays.items()}
            yield ready(batch) if self._widen else batch


def webdataset_loader(folder: Path, batch_size: int, workers: int) -> Iterable[Fields]:
    """Stock webdataset over vocprep's tars; members that no row reads are skipped undecoded."""
    import webdataset as wds

    shards = sorted(str(path) for path in folder.glob("*.tar"))
    wanted = tuple(f".{name}.npy" for name in LAYOUT)
    dataset = (
        wds.WebDataset(
            shards, shardshuffle=len(shards), select_files=lambda name: name.endswith(wanted)
        )
        .shuffle(500)
        .decode()
        .map(lambda sample: {name: sample[f"{name}.npy"] for name in LAYOUT})
        .batched(batch_size, collation_fn=collate_fields)
    )
    loader: Iterable[Fields] = wds.WebLoader(dataset, batch_size=None, num_workers=workers)
    return loader


def write_litdata(records: list[Record], out: Path) -> None:
    """Write litdata chunks of about 20 MB."""
    from litdata.streaming.cache import Cache

    cache = Cache(str(out), chunk_bytes="20MB")
    for number, sample in enumerate(samples_of(records)):
        cache[number] = sample
    cache.done()
    cache.merge()


def litdata_loader(folder: Path, batch_size: int, workers: int) -> Iterable[Fields]:
    """Litdata's own dataset and loader."""
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(folder), shuffle=True)
    loader: Iterable[Fields] = StreamingDataLoader(
        dataset, batch_size=batch_size, num_workers=workers, collate_fn=collate_fields
    )
    return loader


def write_mosaic(records: list[Record], out: Path) -> None:
    """Write MDS shards of about 20 MB."""
    from streaming import MDSWriter

    columns = {
        name: f"ndarray:{dtype}:{','.join(str(size) for size in shape)}"
        for name, (dtype, shape) in LAYOUT.items()
    }
    with MDSWriter(out=str(out), columns=columns, size_limit=20_000_000) as writer:
        for sample in samples_of(records):
            writer.write(sample)


def mosaic_loader(folder: Path, batch_size: int, workers: int) -> Iterable[Fields]:
    """MosaicML streaming's dataset with its loader, on a local folder with no remote."""
    from streaming import StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=batch_size)
    loader: Iterable[Fields] = StreamingDataLoader(
        dataset, batch_size=batch_size, num_workers=workers, collate_fn=collate_fields
    )
    return loader


def write_lance(records: list[Record], out: Path) -> None:
    """Write a Lance dataset with a fixed-size list per field, in fragments of 500 rows."""
    import lance
    import pyarrow as pa

    columns = {}
    for name, (dtype, shape) in LAYOUT.items():
        values = np.stack([getattr(record, name) for record in records]).astype(dtype).ravel()
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values), int(np.prod(shape)))
    lance.write_dataset(pa.table(columns), str(out), max_rows_per_file=500)


class LanceRows(torch.utils.data.Dataset[Any]):
    """A Lance dataset whose batches are taken by row numbers, opened anew in each process."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._opened: Any = None

    def __len__(self) -> int:
        return self._count

    def __getitems__(self, rows: list[int]) -> Any:
        if self._opened is None:
            import lance

            self._opened = lance.dataset(str(self._folder))
        return self._opened.take(rows)


def lance_fields(table: Any) -> Fields:
    """Return a table or batch of Arrow as the tensors that a training step takes."""
    warnings.simplefilter("ignore")  # in worker processes too: slot_planes stay Arrow's memory
    arrays = {}
    for name, (dtype, shape) in LAYOUT.items():
        column = table[name]
        column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
        values = column.flatten().to_numpy(zero_copy_only=False)
        arrays[name] = values.astype(dtype, copy=False).reshape(-1, *shape)
    return ready(arrays)


def lance_loader(folder: Path, batch_size: int, workers: int) -> Iterable[Fields]:
    """Lance by shuffled row numbers, in a DataLoader with the settings of its safe loader."""
    import lance

    rows = LanceRows(folder, lance.dataset(str(folder)).count_rows())
    if not workers:
        return torch.utils.data.DataLoader(rows, batch_size, shuffle=True, collate_fn=lance_fields)
    return torch.utils.data.DataLoader(
        rows,
        batch_size,
        shuffle=True,
        num_workers=workers,
        collate_fn=lance_fields,
        persistent_workers=True,
        multiprocessing_context="spawn",
    )


class LanceScan:
    """Lance in stored order, which reads whole fragments ahead in threads of its own."""

    def __init__(self, folder: Path, batch_size: int) -> None:
        import lance

        self._dataset, self._batch_size = lance.dataset(str(folder)), batch_size

    def __iter__(self) -> Iterator[Fields]:
        return map(lance_fields, self._dataset.to_batches(batch_size=self._batch_size))


def litdata_from_store(url: str, cache: Path, batch_size: int, workers: int) -> Iterable[Fields]:
    """Litdata's own dataset and loader over chunks in an object store, with an own cache."""
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(url, cache_dir=str(cache), shuffle=True, max_cache_size="10GB")
    loader: Iterable[Fields] = StreamingDataLoader(
        dataset, batch_size=batch_size, num_workers=workers, collate_fn=collate_fields
    )
    return loader


def mosaic_from_store(url: str, cache: Path, batch_size: int, workers: int) -> Iterable[Fields]:
    """MosaicML streaming's dataset and loader over shards in an object store, with an own cache."""
    from streaming import StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    dataset = StreamingDataset(remote=url, local=str(cache), shuffle=True, batch_size=batch_size)
    loader: Iterable[Fields] = StreamingDataLoader(
        dataset, batch_size=batch_size, num_workers=workers, collate_fn=collate_fields
    )
    return loader
