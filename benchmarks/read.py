"""Samples per second from shards to ready batches: vocprep's readers beside other loaders.

Every row gives batches of the same records, shuffled unless its name says otherwise, as the same
tensors: embeddings (float32), slot_labels and slot_pixels (int64), slot_planes (uint8). One untimed
pass per row is compared by sums, then the rows take turns. A timed pass is a whole epoch, starting
of its workers included; files are in the page cache. MB/s counts a sample's four fields as they are
stored. Peers come with `pip install 'vocprep[bench]'`; one that is not installed is named and left
out.

The second table is what it costs that each shard's digest is compared with the index: the best
passes of a version opened anew, the same with the files known already, and a later epoch, in
processor time of all threads.

Run: python benchmarks/read.py [--records 4000] [--repeats 3] [--threads 1]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from _read_data import LAYOUT, SAMPLE_BYTES, Fields, make_records, write_arrays, write_shards
from _read_peers import (
    LanceScan,
    MemmapLoader,
    lance_loader,
    litdata_loader,
    mosaic_loader,
    webdataset_loader,
    write_lance,
    write_litdata,
    write_mosaic,
)
from _report import Column, Report, Table, command_line

from vocprep.options import LoaderMode, LoaderOptions, ShardFormat
from vocprep.shards.reader import Loader, ShardDataset
from vocprep.shards.record import Record

BATCH = 64
CEILING = "numpy.memmap"
STOCK = "webdataset"
LANCE = "pylance"
PEERS = (STOCK, "litdata", "mosaicml-streaming", LANCE)
CONTAINERS: tuple[tuple[str, ShardFormat], ...] = (("HDF5", "hdf5"), ("tar", "webdataset"))
MODES: tuple[tuple[LoaderMode, int], ...] = (
    ("resident", 0),
    ("streaming", 0),
    ("streaming", 2),
)
COLUMNS = (
    Column("name", "loader"),
    Column("workers", "workers", "d"),
    Column("samples_per_s", "samples/s", ",.0f"),
    Column("mb_per_s", "MB/s", ",.0f"),
    Column("of_memmap", "of memmap", ".2f"),
    Column("of_webdataset", "× webdataset", ".2f"),
    Column("opened_s", "opened in, s", ".2f"),
)
COMPARISON_COLUMNS = (
    Column("name", "loader"),
    Column("workers", "workers", "d"),
    Column("first", "first epoch", ",.0f"),
    Column("known", "not compared", ",.0f"),
    Column("later", "later epoch", ",.0f"),
    Column("cost", "costs", ".0%"),
)


class VocprepLoader:
    """One of vocprep's readers; each pass is the next epoch."""

    def __init__(self, folder: Path, mode: LoaderMode, workers: int) -> None:
        options = LoaderOptions(batch_size=BATCH, mode=mode, shuffle=True, workers=workers)
        self._loader = ShardDataset.open(folder).loader("train", options)
        self._epoch = 0

    def __iter__(self) -> Iterator[Fields]:
        self._epoch += 1
        self._loader.set_epoch(self._epoch)
        for batch in self._loader:
            yield {name: getattr(batch, name) for name in LAYOUT}


@dataclass
class Row:
    """A loader in the table."""

    name: str
    workers: int
    open: Callable[[], Iterable[Fields]]
    open_s: float = 0.0
    loader: Iterable[Fields] = ()
    sums: tuple[float, ...] = ()


def main() -> None:
    """Measure and print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch, in the main process")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")  # the peers' own; vocprep's tests turn warnings into errors
    report = Report(
        "read",
        {"records": arguments.records, "batch": BATCH, "repeats": arguments.repeats},
        f"{arguments.records} records of {SAMPLE_BYTES / 1000:.1f} kB, 500 a shard, batches of "
        f"{BATCH}, shuffled; median of {arguments.repeats} passes",
        ("h5py", *PEERS),
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = make_rows(Path(folder), list(make_records(arguments.records)), report)
        rows = [row for row in rows if starts(row, report)]
        check_same(rows)
        medians = measure(rows, arguments.repeats)
        report.add(fill_table(rows, medians, arguments.records))
        report.add(comparison_table(Path(folder), arguments.records, arguments.repeats))
    report.write(arguments.json)


def make_rows(folder: Path, records: list[Record], report: Report) -> list[Row]:
    """Write every format and return the rows that read them."""
    for title, container in CONTAINERS:
        write_shards(records, folder / title, container)
    write_arrays(records, folder / "arrays")
    memmap = partial(MemmapLoader, folder / "arrays", BATCH)
    rows = [
        Row(f"{CEILING}, as stored", 0, partial(memmap, widen=False)),
        Row(CEILING, 0, partial(memmap, widen=True)),
    ]
    for mode, workers in MODES:
        for title, _ in CONTAINERS:
            opener = partial(VocprepLoader, folder / title, mode, workers)
            rows.append(Row(f"vocprep {mode}, {title}", workers, opener))
    peers = [(STOCK, webdataset_loader, folder / "tar")]
    for name, write, loader in (
        ("litdata", write_litdata, litdata_loader),
        ("mosaicml-streaming", write_mosaic, mosaic_loader),
        (LANCE, write_lance, lance_loader),
    ):
        try:
            write(records, folder / name)
        except Exception as error:  # whatever a peer raises, the table goes on
            leave_out(name, error, report)
        else:
            peers.append((name, loader, folder / name))
    for workers in (0, 2):
        if workers == 0 and any(name == LANCE for name, _, _ in peers):
            scan = partial(LanceScan, folder / LANCE, BATCH)
            rows.append(Row(f"{LANCE}, not shuffled", 0, scan))
        rows += [
            Row(name, workers, partial(loader, path, BATCH, workers))
            for name, loader, path in peers
        ]
    return rows


def starts(row: Row, report: Report) -> bool:
    """Open a row's loader and pass through it once; print why when it cannot be opened."""
    started = time.perf_counter()
    try:
        row.loader = row.open()
        row.open_s = time.perf_counter() - started
        row.sums = sums_of(row.loader)
    except Exception as error:  # whatever a peer raises, the table goes on
        if row.name.startswith("vocprep"):
            raise
        leave_out(f"{row.name}, {row.workers} workers", error, report)
        return False
    return True


def leave_out(name: str, error: Exception, report: Report) -> None:
    """Print why a row is not in the table."""
    if isinstance(error, ImportError):
        report.note(f"{name}: left out, not installed: pip install 'vocprep[bench]'")
        return
    print(f"{name}: {error}", file=sys.stderr)
    report.note(f"{name}: left out, does not start here ({type(error).__name__})")


def sums_of(loader: Iterable[Fields]) -> tuple[float, ...]:
    """Return the sums of a pass's fields, which its order does not change."""
    totals = dict.fromkeys(LAYOUT, 0.0)
    for batch in loader:
        for name in LAYOUT:
            # Absolute values, so that rounding does not decide: sums of 10⁷ normals near 0 would.
            field = torch.as_tensor(batch[name])
            totals[name] += float(field.to(torch.float64).abs().sum())
    return tuple(float(f"{total:.9g}") for total in totals.values())


def check_same(rows: list[Row]) -> None:
    """Exit unless all rows gave the same records."""
    for row in rows:
        if row.sums != rows[0].sums:
            raise SystemExit(f"{row.name} gave other samples: {row.sums} {rows[0].sums}")


def measure(rows: list[Row], repeats: int) -> list[float]:
    """Return the median seconds of each row's passes, the rows taking turns."""
    seconds: list[list[float]] = [[] for _ in rows]
    for _ in range(repeats):
        for row, times in zip(rows, seconds, strict=True):
            started = time.perf_counter()
            for _ in row.loader:
                pass
            times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in seconds]


def fill_table(rows: list[Row], medians: list[float], records: int) -> Table:
    """Return speeds, with ratios to the ceiling and to stock webdataset of as many workers."""
    of_ceiling = {row.name: median for row, median in zip(rows, medians, strict=True)}[CEILING]
    of_stock = {
        row.workers: median for row, median in zip(rows, medians, strict=True) if row.name == STOCK
    }
    lines: list[dict[str, str | float | None]] = [
        {
            "name": row.name,
            "workers": row.workers,
            "samples_per_s": records / median,
            "mb_per_s": records * SAMPLE_BYTES / median / 1e6,
            "of_memmap": of_ceiling / median,
            "of_webdataset": of_stock[row.workers] / median if row.workers in of_stock else None,
            "opened_s": row.open_s,
        }
        for row, median in zip(rows, medians, strict=True)
    ]
    return Table("", COLUMNS, lines)


def comparison_table(folder: Path, records: int, repeats: int) -> Table:
    """Return the speeds of first epochs with and without comparing digests, and of later ones."""
    lines = []
    for mode, workers in MODES:
        for title, _ in CONTAINERS:
            options = LoaderOptions(batch_size=BATCH, mode=mode, shuffle=True, workers=workers)
            times = [time_epochs(folder / title, options) for _ in range(repeats + 1)][1:]
            first, known, later = (min(each) for each in zip(*times, strict=True))
            line: dict[str, str | float | None] = {
                "name": f"vocprep {mode}, {title}",
                "workers": workers,
                "first": records / first,
                "known": records / known,
                "later": records / later,
                "cost": first / known - 1,
            }
            lines.append(line)
    return Table("per second of processor time", COMPARISON_COLUMNS, lines)


def time_epochs(folder: Path, options: LoaderOptions) -> tuple[float, float, float]:
    """Return the processor time of a first epoch, of one over known files, and of a later one.

    A resident loader reads when it is made; that counts for its first epochs.
    """
    opened = ShardDataset.open(folder)
    loader, first = time_first(opened, options)
    known = time_first(opened, options)[1]  # the same dataset, which has compared them
    loader.set_epoch(1)
    started = time.process_time()
    for _ in loader:
        pass
    return first, known, time.process_time() - started


def time_first(dataset: ShardDataset, options: LoaderOptions) -> tuple[Loader, float]:
    """Return a loader and the processor time that making it and its first epoch took."""
    started = time.process_time()
    loader = dataset.loader("train", options)
    for _ in loader:
        pass
    return loader, time.process_time() - started


if __name__ == "__main__":
    main()
