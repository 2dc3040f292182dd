"""What commands take that have little to do: their start-up, and which libraries it loads.

Each row is a new process over a small version of generated pictures, beside Python alone, numpy and
torch. Rows take turns; the best of each counts. What a row loads is asked of Python
(``-X importtime``) in a run that is not timed.

Run: python benchmarks/startup.py [--images 24] [--repeats 5] [--rows NAME ...] [--json PATH]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from _report import Cell, Column, Report, Table, command_line

from vocprep.building.local import build
from vocprep.options import BuildChoices, BuildOptions
from vocprep.synthetic.dataset import sample

HEAVY = ("pydantic", "numpy", "PIL", "h5py", "scipy", "torch")
"""Libraries of weight, in the order of it."""
DATASET, WEIGHTS = "pascal-context", "random:0"
COLUMNS = (
    Column("name", ""),
    Column("ms", "ms", ",.0f"),
    Column("cpu_ms", "processor", ",.0f"),
    Column("of_python", "of python", ",.1f"),
    Column("loads", "loads"),
)


def commands(data: Path, version: Path) -> dict[str, list[str]]:
    """Return the words after ``python`` of each row."""
    of_build = [DATASET, "--data-dir", str(data), "--weights", WEIGHTS, "--out", str(version)]
    verbs = {
        "--version": ["--version"],
        "--help": ["--help"],
        "report --help": ["report", "--help"],
        "build-shards --help": ["build-shards", "--help"],
        "inspect": ["inspect", str(version)],
        "diff, of equal versions": ["diff", str(version), str(version)],
        "verify --level files": ["verify", str(version)],
        "verify --level content": ["verify", str(version), "--level", "content"],
        "build-shards, nothing to do": ["build-shards", *of_build, "--device", "cpu"],
    }
    return {
        "python -c pass": ["-c", "pass"],
        "python -c 'import numpy'": ["-c", "import numpy"],
        "python -c 'import torch'": ["-c", "import torch"],
        **{f"vocprep {name}": ["-m", "vocprep", *words] for name, words in verbs.items()},
    }


def main() -> None:
    """Measure and print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only those whose name has this")
    arguments = parser.parse_args()
    samples: dict[str, Cell] = {"images": arguments.images, "repeats": arguments.repeats}
    report = Report(
        "startup",
        samples,
        f"a version of {arguments.images} generated pictures; best of {arguments.repeats}",
        packages=HEAVY[:1],
    )
    with tempfile.TemporaryDirectory() as folder:
        data, version = Path(folder) / "data", Path(folder) / "version"
        sample(data, images=arguments.images)
        build(
            DATASET,
            data_dir=data,
            out=version,
            weights=WEIGHTS,
            options=BuildOptions(device="cpu", compiled=False),
            choices=BuildChoices(),
        )
        rows = {
            name: words
            for name, words in commands(data, version).items()
            if not arguments.rows or any(part in name for part in arguments.rows)
        }
        report.add(Table("start-up", COLUMNS, measure(rows, arguments.repeats)))
    report.write(arguments.json)


def measure(rows: Mapping[str, Sequence[str]], repeats: int) -> list[dict[str, Cell]]:
    """Return the lines of the table: the least of the seconds by the clock and of the processor."""
    loaded = {name: loads(words) for name, words in rows.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for _ in range(repeats):
        for name, words in rows.items():
            times[name].append(run(words))
    lines: list[dict[str, Cell]] = []
    for name in rows:
        clock, processor = (min(values) for values in zip(*times[name], strict=True))
        first = lines[0]["cpu_ms"] if lines else 1e3 * processor
        assert isinstance(first, float)
        lines.append(
            {
                "name": name,
                "ms": 1e3 * clock,
                "cpu_ms": 1e3 * processor,
                "of_python": 1e3 * processor / first,
                "loads": loaded[name],
            }
        )
    return lines


def loads(words: Sequence[str]) -> str:
    """Return the libraries of weight that a process of Python loads; stop where it fails."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    return ", ".join(name for name in HEAVY if name in names) or "none of them"


def run(words: Sequence[str]) -> tuple[float, float]:
    """Run a process of Python; return its seconds by the clock, and those of the processor."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


if __name__ == "__main__":
    main()
