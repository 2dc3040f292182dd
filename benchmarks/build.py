"""Images a second from picture and label files to shards on disk.

(a) is the project's first notebook, written plainly: one picture at a time, Pillow, the eager
backbone, a Python loop for the top 4. (b) is what a careful engineer would write by hand: a
DataLoader whose workers decode and make targets, the backbone on a batch of pictures at once. (c)
to (e) are vocprep. (f) is the backbone alone on tensors that are in memory already, on a CPU each
core on chunks of its own: the best that the same precision can do here.

Start-up (imports, compiling, the first group) is taken out of all rows; writing the last shard is
not. Real pictures where VOCPREP_SHARED_DATA or ../shared/data has them, else generated ones; both
are repeated when more are asked for.

Run: python benchmarks/build.py [--device cuda] [--images 200] [--repeats 1]
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from _pictures import Pictures, make_pictures
from _plain_builds import Clock, by_hand, seeds_way
from _report import Column, Report, Table, command_line, usable_cores
from numpy.typing import NDArray

import vocprep
from vocprep.errors import VocprepError
from vocprep.features.embed import Embedder, EmbeddingSpec
from vocprep.features.weights import load_weights
from vocprep.options import BuildChoices, BuildOptions
from vocprep.progress import NoProgress
from vocprep.recipe import Precision

COLUMNS = (
    Column("name", ""),
    Column("images_per_s", "images/s", ",.1f"),
    Column("of_seeds_way", "of (a)", ".2f"),
    Column("of_backbone", "of its (f)", ".2f"),
)
ON_GPU: tuple[tuple[str, bool], ...] = (
    ("fp32", False),
    ("tf32", False),
    ("fp16", False),
    ("bf16", False),
    ("exact", False),
    ("exact", True),
)
"""Precisions to measure on a GPU, and whether compiled."""
ON_CPU: tuple[tuple[str, bool], ...] = (
    ("fp32", False),
    ("fp32", True),
    ("bf16", True),
    ("exact", True),
)


@dataclass(frozen=True)
class Way:
    """One way for vocprep to build."""

    precision: Precision
    compiled: bool
    decoder: str | None = None
    """A JPEG decoder other than the usual one."""

    @property
    def backbone(self) -> str:
        """What the backbone's own row is called."""
        return self.precision + (", compiled" if self.compiled else "")

    @property
    def title(self) -> str:
        """What the row is called, by the letters of the docstring."""
        letter = "e" if self.precision != "fp32" else "d" if self.compiled else "c"
        decoder = f", {self.decoder}" if self.decoder else ""
        return f"({letter}) vocprep, {self.backbone}{decoder}"


@dataclass(frozen=True)
class Row:
    """A row to be measured: ``work`` returns images a second."""

    title: str
    work: Callable[[], float]
    backbone: str | None = None
    """Title of the row with the backbone alone."""


def find_ways(device: torch.device, *, compile_too: bool) -> list[Way]:
    """Return the ways that this version of vocprep has on this device."""
    wanted = ON_GPU if device.type == "cuda" else ON_CPU
    ways = [
        Way(precision, compiled)
        for precision in get_args(Precision)
        for name, compiled in wanted
        if name == precision and (compile_too or not compiled)
    ]
    if device.type == "cuda" and "decoder" in {field.name for field in fields(BuildOptions)}:
        in_floats = [way for way in ways if way.precision != "exact"]
        ways += [replace(way, decoder="nvjpeg") for way in in_floats[-1:]]
    return ways


class TickingProgress(NoProgress):
    """Ticks a clock for each image."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def advance(self, count: int) -> None:
        """Tick once per image."""
        for _ in range(count):
            self._clock.tick()


def by_vocprep(pictures: Pictures, out: Path, device: torch.device, way: Way, warm: int) -> float:
    """(c) to (e): what `vocprep build-shards` does."""
    more: dict[str, Any] = {"decoder": way.decoder} if way.decoder else {}
    options = BuildOptions(
        device=device.type,
        workers=max(2, usable_cores()),
        compiled=way.compiled,
        if_exists="overwrite",
        **more,
    )
    clock = Clock(warm)
    vocprep.build(
        pictures.dataset,
        out=out / "vocprep",
        data_dir=pictures.data_dir,
        weights=pictures.weights,
        choices=BuildChoices(precision=way.precision),
        options=options,
        progress=TickingProgress(clock),
    )
    return clock.stop()


def backbone_alone(weights: str, images: int, device: torch.device, way: Way) -> float:
    """(f) Patches that are in memory: each core on its own, or the whole GPU."""
    cores = torch.get_num_threads()
    callers, pictures = (1, 256) if device.type == "cuda" else (cores, 2)
    torch.set_num_threads(1)
    embedder = Embedder(
        load_weights(weights, Path()), EmbeddingSpec(precision=way.precision), device=device
    )
    if way.compiled:
        embedder.compile()
    shape = (pictures * 49, 32, 32, 3)
    patches = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    embedder.embed(patches)
    calls = -(-images // pictures // callers)
    threads = [
        threading.Thread(target=embed_again, args=(embedder, patches, calls))
        for _ in range(callers)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    torch.set_num_threads(cores)
    return calls * callers * pictures / seconds


def embed_again(embedder: Embedder, patches: NDArray[np.uint8], count: int) -> None:
    """Embed the same patches again and again."""
    for _ in range(count):
        embedder.embed(patches)


def make_rows(
    pictures: Pictures, out: Path, device: torch.device, ways: list[Way], warm: int
) -> list[Row]:
    """Return the rows in the order of the table."""
    samples, weights = pictures.samples(), pictures.weights
    rows = [
        Row("(a) the seed's way", partial(seeds_way, samples, weights, out, device, warm)),
        Row("(b) DataLoader by hand", partial(by_hand, samples, weights, out, device, warm)),
    ]
    for way in ways:
        alone = f"(f) backbone alone, {way.backbone}"
        rows.append(Row(way.title, partial(by_vocprep, pictures, out, device, way, warm), alone))
        if alone not in {row.title for row in rows}:
            rows.append(Row(alone, partial(backbone_alone, weights, len(samples), device, way)))
    return rows


def measure(rows: list[Row], repeats: int, report: Report) -> dict[str, float]:
    """Return each row's best images a second; what vocprep refuses here is said and left out."""
    rates: dict[str, float] = {}
    for number in range(repeats):
        for row in rows:
            if number and row.title not in rates:
                continue
            try:
                rates[row.title] = max(rates.get(row.title, 0.0), row.work())
            except VocprepError as error:
                print(f"{row.title}: {error}", file=sys.stderr)
                report.note(f"{row.title}: left out, refused here ({type(error).__name__})")
    return rates


def fill_table(rows: list[Row], rates: dict[str, float]) -> Table:
    """Return the table, with ratios to the first row and to the backbone alone."""
    first = rates[rows[0].title]
    lines: list[dict[str, str | float | None]] = [
        {
            "name": row.title,
            "images_per_s": rates[row.title],
            "of_seeds_way": rates[row.title] / first,
            "of_backbone": rates[row.title] / rates[row.backbone]
            if row.backbone in rates
            else None,
        }
        for row in rows
        if row.title in rates
    ]
    return Table("", COLUMNS, lines)


def main() -> None:
    """Measure and print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--images", type=int, help="default: 200 on a CPU, 10,000 on a GPU")
    parser.add_argument("--start-up", type=int, help="pictures of a row before its clock starts")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled rows")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        parser.error("--device cuda: found no CUDA device")
    images = arguments.images or (10_000 if on_gpu else 200)
    warm = arguments.start_up or (1024 if on_gpu else 32)
    if images <= warm:
        parser.error(f"--images {images}: expected more than {warm}, the start-up of a row")
    with tempfile.TemporaryDirectory() as name:
        pictures = make_pictures(images, Path(name) / "data")
        report = Report(
            "build",
            {"images": images, "start_up": warm, "repeats": arguments.repeats},
            f"on {device.type}; {pictures.title}, weights {Path(pictures.weights).name}; "
            f"best of {arguments.repeats}",
            ("simplejpeg", "pillow", "h5py"),
        )
        ways = find_ways(device, compile_too=not arguments.no_compile)
        rows = make_rows(pictures, Path(name), device, ways, warm)
        report.add(fill_table(rows, measure(rows, arguments.repeats, report)))
    if not on_gpu:
        found = "a GPU is here: --device cuda" if torch.cuda.is_available() else "none here"
        report.note(f"GPU rows: not measured in this run ({found})")
    report.write(arguments.json)


if __name__ == "__main__":
    main()
