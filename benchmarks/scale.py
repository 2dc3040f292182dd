"""What versions of 10⁴ to 10⁶ samples cost: opening, planning, comparing them, and the memory.

Records are made without pictures and networks: one patch each, of drawn numbers, in real shards.
The two source files of a sample are names of a few real files (hard links), so that a build digests
as many files as samples, from the page cache. Each job is a process of its own:

- publish: a build whose shards all wait in the staging folder, as after an interruption
- open: `ShardDataset.open`, as a training begins
- plan: what a build decides first, with the look at every file's presence
- no-op build: a build that finds that nothing has changed, its plan included
- verify files: `vocprep verify --level files`
- diff: of the version and a copy

Seconds are those of the call, imports apart. Peaks are what the system says of the process
(ru_maxrss), and what is above the peak of its imports. Bytes per sample are the growth of the
peak from one row of a job to the next.

Run: python benchmarks/scale.py [--most 1000000] [--folder DIR]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from _report import Cell, Column, Report, Table, command_line

SIZES = (10_000, 100_000, 1_000_000)
JOBS = {
    "publish": "publish",
    "open": "open",
    "plan": "plan",
    "no-op": "no-op build",
    "verify": "verify files",
    "diff": "diff of equal versions",
}
COLUMNS = (
    Column("name", "job"),
    Column("samples", "samples", ",d"),
    Column("seconds", "seconds", ",.3f"),
    Column("us_per_sample", "µs per sample", ",.1f"),
    Column("peak_mb", "peak MB", ",.0f"),
    Column("above_imports_mb", "above imports", ",.1f"),
    Column("bytes_per_sample", "bytes per sample", ",.0f"),
)
FILES = (
    Column("name", "file"),
    Column("samples", "samples", ",d"),
    Column("bytes", "bytes", ",d"),
    Column("per_sample", "per sample", ",.1f"),
    Column("per_shard", "per shard", ",.1f"),
)
_SCRIPT = Path(__file__).with_name("_scale_jobs.py")
# A process begins with the peak of the one that started it: this script, which holds torch, must
# not start the jobs itself.
_START = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"


@dataclass(frozen=True)
class Run:
    """One job in a process of its own."""

    job: str
    samples: int
    seconds: float
    peak: int
    """Bytes."""
    before: int
    """The peak of its imports."""


def run(job: str, folder: Path, samples: int) -> Run:
    """Run a job and return what it took."""
    words = [sys.executable, str(_SCRIPT), job, str(folder), str(samples)]
    done = subprocess.run(
        [sys.executable, "-c", _START, *words], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{job} of {samples} samples failed")
    return Run(job, samples, **(json.loads(done.stdout) if done.stdout else _NOTHING))


_NOTHING = {"seconds": 0.0, "peak": 0, "before": 0}


def measure(samples: int, folder: Path) -> tuple[list[Run], list[dict[str, Cell]]]:
    """Make a version of so many samples, run every job on it, and return its files too."""
    run("sources", folder, samples)
    run("stage", folder, samples)
    runs = []
    for job in JOBS:
        if job == "diff":
            copy_links(folder / "out", folder / "copy")
        runs.append(run(job, folder, samples))
    return runs, list_files(folder / "out", samples)


def copy_links(source: Path, target: Path) -> None:
    """Copy a folder as links."""
    target.mkdir()
    for path in source.iterdir():
        os.link(path, target / path.name)


def list_files(out: Path, samples: int) -> list[dict[str, Cell]]:
    """Return the sizes of a version's files, those of its shards together."""
    sizes = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    shards = [size for name, size in sizes.items() if name.endswith(".h5")]
    named = {
        f"{len(shards):,} shards": sum(shards),
        **{name: sizes[name] for name in ("samples.jsonl", "dataset.json", "croissant.json")},
    }
    return [
        {
            "name": name,
            "samples": samples,
            "bytes": size,
            "per_sample": size / samples,
            "per_shard": size / len(shards),
        }
        for name, size in named.items()
    ]


def fill_table(runs: list[Run]) -> Table:
    """Return the table of all runs, by job."""
    rows: list[dict[str, Cell]] = []
    for job, title in JOBS.items():
        smaller: Run | None = None
        for each in sorted((each for each in runs if each.job == job), key=lambda run: run.samples):
            row: dict[str, Cell] = {
                "name": title,
                "samples": each.samples,
                "seconds": each.seconds,
                "us_per_sample": each.seconds / each.samples * 1e6,
                "peak_mb": each.peak / 1e6,
                "above_imports_mb": (each.peak - each.before) / 1e6,
            }
            if smaller is not None:
                grown = (each.peak - each.before) - (smaller.peak - smaller.before)
                row["bytes_per_sample"] = grown / (each.samples - smaller.samples)
            rows.append(row)
            smaller = each
    return Table("", COLUMNS, rows)


def main() -> None:
    """Measure and print the tables."""
    parser = command_line(__doc__)
    parser.add_argument(
        "--most", type=int, default=SIZES[-1], help="samples of the largest version"
    )
    parser.add_argument("--folder", type=Path, help="where the versions are made (3 GB for 10⁶)")
    arguments = parser.parse_args()
    if arguments.most < 100:
        parser.error(f"--most {arguments.most}: expected 100 or more")
    sizes = [*(size for size in SIZES if size < arguments.most), arguments.most]
    report = Report(
        "scale",
        {"most": arguments.most},
        f"versions of {', '.join(f'{size:,}' for size in sizes)} samples of one patch, 500 per "
        "shard; one run a row",
        ("pydantic", "h5py"),
    )
    runs: list[Run] = []
    files: list[dict[str, Cell]] = []
    for size in sizes:
        folder = Path(tempfile.mkdtemp(dir=arguments.folder, prefix="scale-"))
        try:
            made, listed = measure(size, folder)
        finally:
            shutil.rmtree(folder)
        runs += made
        files += listed
    report.add(fill_table(runs))
    report.add(Table("", FILES, files))
    report.write(arguments.json)


if __name__ == "__main__":
    main()
