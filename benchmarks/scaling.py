"""What more pictures cost: seconds and peak memory of `vocprep build-shards` over N of them.

Each row is the command in a process of its own on two workers, in fp32, which is not compiled
unless asked for; its peak is what the system says of that process when it has ended. Start-up is
what a short run takes beyond its own pictures, and is taken out of the seconds: so
t(N) = (T(N) − T(short)) · N / (N − short).
What is asked of the numbers stands beside them: the peak does not grow with the number
of pictures, and four times as many take four times as long.

Real pictures where VOCPREP_SHARED_DATA or ../shared/data has them, else generated ones, repeated
as links under ids of their own.

Run: python benchmarks/scaling.py [--images 1000]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from _pictures import Pictures, make_pictures
from _report import Column, Report, Table, command_line

WORKERS = 2
COLUMNS = (
    Column("name", "vocprep build-shards"),
    Column("images", "images", ",d"),
    Column("seconds", "seconds", ",.1f"),
    Column("without_start_up_s", "without start-up", ",.1f"),
    Column("images_per_s", "images/s", ",.1f"),
    Column("peak_gb", "peak GB", ".3f"),
)
ASKED = (
    Column("name", "what is asked"),
    Column("asked", "at most", ".2f"),
    Column("measured", "measured", ".2f"),
)
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
# A process begins with the peak of the one that started it: this script, which holds torch, must
# not start the builds itself. RUSAGE_CHILDREN would keep the largest of all builds.
_WAIT = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss)
sys.exit(status != 0)
"""


@dataclass(frozen=True)
class Run:
    """One build in a process of its own."""

    images: int
    seconds: float
    peak: int
    """Largest resident size in bytes."""


def build(pictures: Pictures, images: int, out: Path) -> Run:
    """Build shards of the first ``images`` pictures and say what it took."""
    words = [sys.executable, "-m", "vocprep", "build-shards", str(pictures.manifest)]
    words += ["--data-dir", str(pictures.data_dir), "--out", str(out)]
    words += ["--weights", pictures.weights, "--limit-per-split", str(images)]
    words += ["--device", "cpu", "--workers", str(WORKERS), "--precision", "fp32"]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _WAIT, *words], stdout=subprocess.PIPE, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"build-shards of {images} images failed")
    return Run(images, seconds, int(done.stdout) * _RSS_UNIT)


def without_start_up(run: Run, short: Run) -> float:
    """Return the seconds of a run's pictures alone."""
    return (run.seconds - short.seconds) * run.images / (run.images - short.images)


def fill_table(runs: list[Run], short: Run) -> Table:
    """Return the table of runs, the short one first."""
    lines: list[dict[str, str | float | None]] = [
        {
            "name": "short run, its start-up",
            "images": short.images,
            "seconds": short.seconds,
            "peak_gb": short.peak / 1e9,
        }
    ]
    for run in runs:
        net = without_start_up(run, short)
        lines.append(
            {
                "name": f"fp32, {WORKERS} workers",
                "images": run.images,
                "seconds": run.seconds,
                "without_start_up_s": net,
                "images_per_s": run.images / net,
                "peak_gb": run.peak / 1e9,
            }
        )
    return Table("", COLUMNS, lines)


def compare(runs: dict[str, Run], short: Run) -> Table:
    """Return what is asked beside what was measured."""
    half, one, four, five = (runs[name] for name in ("half", "one", "four", "five"))
    seconds = without_start_up(four, short) / without_start_up(one, short)
    lines: list[dict[str, str | float | None]] = [
        {
            "name": f"peak of {five.images:,} images over {half.images:,}",
            "asked": 1.10,
            "measured": five.peak / half.peak,
        },
        {
            "name": f"peak of {five.images:,} images, GB",
            "asked": 2.5,
            "measured": five.peak / 1e9,
        },
        {
            "name": f"seconds of {four.images:,} images over {one.images:,}",
            "asked": 4.3,
            "measured": seconds,
        },
    ]
    return Table("", ASKED, lines)


def main() -> None:
    """Measure and print the tables."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=1000, help="the unit: also ½, 4 and 5 × it")
    arguments = parser.parse_args()
    unit = arguments.images
    if unit < 8:
        parser.error(f"--images {unit}: expected 8 or more")
    few = max(1, unit // 31)
    sizes = {"half": unit // 2, "one": unit, "four": 4 * unit, "five": 5 * unit}
    with tempfile.TemporaryDirectory() as name:
        pictures = make_pictures(sizes["five"], Path(name) / "data")
        report = Report(
            "scaling",
            {"workers": WORKERS, "start_up": few, **sizes},
            f"{pictures.title}, weights {Path(pictures.weights).name}; one run a row",
            ("simplejpeg", "h5py"),
        )
        build(pictures, 2, Path(name) / "warm")  # brings the libraries into the page cache
        short = build(pictures, few, Path(name) / "short")
        runs = {size: build(pictures, images, Path(name) / size) for size, images in sizes.items()}
        report.add(fill_table(list(runs.values()), short))
        report.add(compare(runs, short))
    report.write(arguments.json)


if __name__ == "__main__":
    main()
