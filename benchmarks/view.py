"""The viewer over many pictures: its first page, searches for similar patches, and its memory.

A few generated pictures are built, and their records and photographs repeated under other ids. The
server is a process of its own, asked over HTTP as by a browser, with six connections. The first
page is all that a browser asks for until pictures show: the page and its files, the state, the
list, and the thumbnails of 40 photographs, while the server reads the label maps of all pictures
beside. The other rows begin when that has ended. Their patches and pictures are spread evenly over
the version. Memory is what the system says of the process (VmRSS), its peak too (VmHWM).

Run: python benchmarks/view.py [--pictures 10000] [--requests 2000] [--starts 3]
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import local
from typing import Any
from urllib.parse import quote, urlsplit

from _report import Cell, Column, Report, Table, command_line

from vocprep.building.local import build
from vocprep.building.output.publish import write_dataset
from vocprep.options import BuildChoices, BuildOptions, Layout
from vocprep.recipe import SplitIds
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record
from vocprep.synthetic.dataset import sample

DISTINCT = 120
DATASET = "pascal-context"
CONNECTIONS = 6
THUMBNAILS = 40
VALIDATION = 10
"""Every so many pictures one is of the split val."""
TIMES = (
    Column("name", "what is asked for"),
    Column("requests", "requests", ",d"),
    Column("median_ms", "median ms", ",.0f"),
    Column("worst_ms", "worst ms", ",.0f"),
)
MEMORY = (
    Column("name", "memory of the server"),
    Column("requests", "requests", ",d"),
    Column("mb", "MB", ",.0f"),
    Column("peak_mb", "peak MB", ",.0f"),
)
_SHARD = 500


@dataclass(frozen=True)
class Made:
    """What the server is given."""

    shards: Path
    data_dir: Path
    ids: list[str]


def make_version(count: int, folder: Path) -> Made:
    """Build few pictures and repeat them under ids of their own."""
    data_dir, small = folder / "data", folder / "small"
    sample(data_dir, images=min(DISTINCT, count))
    choices = BuildChoices(precision="fp32")
    build(
        DATASET,
        data_dir=data_dir,
        out=small,
        weights="random:0",
        choices=choices,
        options=BuildOptions(device="cpu"),
    )
    dataset = ShardDataset.open(small)
    records = [
        record for shard in dataset.index.shards for record in dataset.read_shard(shard.name)
    ]
    splits: dict[str, list[Record]] = {"train": [], "val": []}
    images = data_dir / "VOCdevkit/VOC2010/JPEGImages"
    for number in range(count):
        record = records[number % len(records)]
        split = "train" if number % VALIDATION else "val"
        image_id = f"p{number:06d}"
        splits[split].append(replace(record, image_id=image_id, split=split))
        os.link(images / f"{record.image_id}.jpg", images / f"{image_id}.jpg")
    ids = {name: SplitIds.of([r.image_id for r in own]) for name, own in splits.items()}
    recipe = replace(dataset.index.recipe, splits=ids)
    write_dataset(folder / "many", recipe, splits, Layout(samples_per_shard=_SHARD))
    return Made(folder / "many", data_dir, [f"p{number:06d}" for number in range(count)])


class Client:
    """Asks a server, with a connection per thread that is kept."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address, self._path = parts.netloc, parts.path
        self._threads = local()
        self._pool = ThreadPoolExecutor(CONNECTIONS)

    def get(self, path: str) -> bytes:
        """Return the body of an answer; ask again while it is not ready."""
        while True:
            status, body = self._ask(path)
            if status == 200:
                return body
            if status != 202:
                raise SystemExit(f"{path}: status {status}, {body[:300]!r}")
            time.sleep(0.05)

    def _ask(self, path: str) -> tuple[int, bytes]:
        if not hasattr(self._threads, "connection"):
            self._threads.connection = http.client.HTTPConnection(self._address, timeout=60)
        connection = self._threads.connection
        try:
            connection.request("GET", self._path + path)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.RemoteDisconnected:  # after a pause, as a browser meets it too
            connection.close()
            return self._ask(path)

    def json(self, path: str) -> Any:
        """Return an answer's JSON."""
        return json.loads(self.get(path))

    def all(self, paths: Sequence[str]) -> None:
        """Ask for several things at once."""
        list(self._pool.map(self.get, paths))


@dataclass(frozen=True)
class Served:
    """A running server."""

    client: Client
    process: subprocess.Popen[str]

    def memory(self) -> dict[str, float]:
        """Return the resident size in MB, and its peak so far."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
        return {"mb": int(sizes["VmRSS"]) / 1024, "peak_mb": int(sizes["VmHWM"]) / 1024}

    def wait(self) -> None:
        """Return when the server computes nothing any more."""
        while True:
            (version,) = self.client.json("api/state")["versions"]
            states = [version["columns"], *version["similar"].values()]
            if all(each["state"] == "ready" for each in states):
                return
            if broken := [each["error"] for each in states if each["error"]]:
                raise SystemExit(f"the server: {broken[0]}")
            time.sleep(0.1)


@contextmanager
def serve(made: Made) -> Iterator[Served]:
    """Start a server, and end it."""
    words = [sys.executable, "-m", "vocprep", "view", str(made.shards), "--no-browser"]
    words += ["--data-dir", str(made.data_dir)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise SystemExit("the server did not start")
        try:
            yield Served(Client(url), process)
        finally:
            process.terminate()


def first_page(client: Client) -> None:
    """Ask for what a browser asks for until pictures show."""
    page = client.get("").decode()
    names = [part.split('"')[0] for part in page.split('"static/')[1:]]
    client.all([f"static/{name}" for name in names])
    client.get("api/state")
    listed = client.json("api/pictures?v=a&offset=0&limit=100")["pictures"][:THUMBNAILS]
    client.all([f"api/image?v=a&layer=thumbnail&id={quote(each['id'])}" for each in listed])


def timed(ask: Callable[[], object]) -> float:
    """Return the milliseconds of a call."""
    began = time.perf_counter()
    ask()
    return 1000 * (time.perf_counter() - began)


def row(name: str, times: Sequence[float]) -> dict[str, Cell]:
    """Return a row of the table."""
    return {
        "name": name,
        "requests": len(times),
        "median_ms": statistics.median(times),
        "worst_ms": max(times),
    }


def queries(ids: Sequence[str], count: int) -> dict[str, list[str]]:
    """Return by title what is asked for, ``count`` times each."""
    spread = [ids[number * len(ids) // count] for number in range(count)]
    return {
        "similar patches of split train": [
            f"api/similar?v=a&id={image_id}&patch={number % 49}&split=train"
            for number, image_id in enumerate(spread)
        ],
        "similarity map": [
            f"api/image?v=a&layer=similarity&id={image_id}&patch={number % 49}"
            for number, image_id in enumerate(spread)
        ],
        "list by class and size": [
            f"api/pictures?v=a&class={number % 459 + 1}&sort=size&order=desc"
            for number in range(count)
        ],
        "list by text": [f"api/pictures?v=a&text={image_id[3:]}" for image_id in spread],
        "thumbnail": [f"api/image?v=a&layer=thumbnail&id={image_id}" for image_id in spread],
        "label map over the photograph": [
            f"api/image?v=a&layer=truth&id={image_id}" for image_id in spread
        ],
        "one picture with its patches": [f"api/picture?v=a&id={image_id}" for image_id in spread],
    }


def measure(
    made: Made, requests: int, starts: int
) -> tuple[list[dict[str, Cell]], list[dict[str, Cell]]]:
    """Return the rows of both tables."""
    pages = []
    for _ in range(starts - 1):
        with serve(made) as served:
            pages.append(timed(partial(first_page, served.client)))
    with serve(made) as served:
        client = served.client
        pages.append(timed(partial(first_page, client)))
        served.wait()
        times = [row("first page, 40 thumbnails", pages)]
        memory: list[dict[str, Cell]] = [
            {"name": "everything read", "requests": 0, **served.memory()}
        ]
        asked = queries(made.ids, max(1, requests // 20))
        for title, paths in asked.items():
            client.get(paths[0])
            times.append(row(title, [timed(partial(client.get, path)) for path in paths]))
        mixed = [path for group in zip(*asked.values(), strict=True) for path in group]
        done = len(mixed)
        for share in (1, 2, 4):
            while done < requests * share // 2:
                client.all(mixed)
                done += len(mixed)
            memory.append({"name": "after requests", "requests": done, **served.memory()})
    return times, memory


def main() -> None:
    """Measure and print the tables."""
    parser = command_line(__doc__)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=2_000, help="half of those of the last row")
    parser.add_argument("--starts", type=int, default=3, help="servers whose first page is timed")
    arguments = parser.parse_args()
    if min(arguments.pictures, arguments.requests) < 20 or arguments.starts < 1:
        parser.error("expected 20 or more --pictures and --requests, and a start")
    report = Report(
        "view",
        {"pictures": arguments.pictures, "requests": arguments.requests},
        f"{arguments.pictures:,} pictures of 49 patches, {min(DISTINCT, arguments.pictures)} of "
        f"them distinct, {_SHARD} per shard; {CONNECTIONS} connections",
        ("starlette", "uvicorn", "h5py", "pillow"),
    )
    folder = Path(tempfile.mkdtemp(prefix="view-"))
    try:
        times, memory = measure(
            make_version(arguments.pictures, folder), arguments.requests, arguments.starts
        )
    finally:
        shutil.rmtree(folder)
    report.add(Table("", TIMES, times))
    report.add(Table("", MEMORY, memory))
    report.write(arguments.json)


if __name__ == "__main__":
    main()
