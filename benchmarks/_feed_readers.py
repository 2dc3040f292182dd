"""What heads are fed by: batches of a train split, each given to heads that do nothing with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _read_data import LAYOUT, make_records, ready, write_shards
from _report import Column, Table

from vocprep.heads.training.distributed import Processes
from vocprep.heads.training.feed import make_feed
from vocprep.options import LoaderMode, LoaderOptions, ShardFormat
from vocprep.shards.reader import ShardDataset

BATCH = 32
COLUMNS = (
    Column("name", "an epoch for null heads"),
    Column("processor_us", "µs/record", ".1f"),
    Column("of_plain", "of plain", ".2f"),
    Column("records_per_s", "records/s", ",.0f"),
)
MODES: tuple[tuple[LoaderMode, ShardFormat], ...] = (
    ("resident", "hdf5"),
    ("streaming", "hdf5"),
    ("streaming", "webdataset"),
)


def read_table(folder: Path, records: int) -> Table:
    """Return what an epoch takes per record: plain arrays in memory, and each way of the feed."""
    made = list(make_records(records))
    arrays = {name: np.stack([getattr(record, name) for record in made]) for name in LAYOUT}
    order = np.random.default_rng(0).permutation(records)

    def plain() -> Iterable[object]:
        for start in range(0, records, BATCH):
            rows = order[start : start + BATCH]
            yield ready({name: array[rows] for name, array in arrays.items()})

    found = {"arrays in memory, gathered": epoch_costs(plain)}
    for container in ("hdf5", "webdataset"):
        write_shards(made, folder / container, container)
    for mode, container in MODES:
        options = LoaderOptions(batch_size=BATCH, mode=mode, shuffle=True)
        dataset = ShardDataset.open(folder / container)
        feed = make_feed(dataset, "train", options, Processes(device=torch.device("cpu")))
        found[f"{mode}, {container}"] = epoch_costs(partial(feed.batches, 1))
    least = found["arrays in memory, gathered"][0]
    lines: list[dict[str, str | float | None]] = [
        {
            "name": name,
            "processor_us": 1e6 * used / records,
            "of_plain": used / least,
            "records_per_s": records / taken,
        }
        for name, (used, taken) in found.items()
    ]
    return Table("", COLUMNS, lines)


def epoch_costs(batches: Callable[[], Iterable[object]]) -> tuple[float, float]:
    """Return the processor and the wall seconds of an epoch, after one that opens everything."""
    for _ in batches():
        pass
    started, before = time.perf_counter(), time.process_time()
    for _ in batches():
        pass
    return time.process_time() - before, time.perf_counter() - started
