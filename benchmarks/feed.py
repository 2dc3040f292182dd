"""What a build takes beside its backbone: processor time per picture and stage, pictures a second.

The backbone is replaced by one that gives zeros at once, so that all that is left is what would
have to feed a GPU: reading, decoding, geometry, targets, records, digests, writing. (a) is a plain
loop in one process over the same libraries, (b) a DataLoader with a process per core: both keep the
same arrays and the digests of the files, but no digests of records and no index. (c) is vocprep,
with as many threads as cores, in one process and divided among several. With --against, the same is
measured of another revision of vocprep in turn, and it is said whether both have stored the same
records.

Each row may use so many cores. What the same takes over a few pictures, its start-up, is left out.
Processor time is that of all threads and processes, in user and system mode,
so that it can be compared on a busy machine too; pictures a second cannot. The shares are processor
time too, of functions in the threads that they run in, from another run of one core.

Real pictures where VOCPREP_SHARED_DATA or ../shared/data has them, else generated ones; their
palette masks are also given as .mat.

Run: python benchmarks/feed.py [--images 300] [--against REVISION]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from _feed_jobs import STAGES, Cost, Job
from _feed_readers import read_table
from _pictures import ROOT, Pictures, make_pictures
from _report import Column, Report, Table, command_line, usable_cores
from PIL import Image
from scipy.io import savemat

from vocprep.geometry import GeometryKind
from vocprep.labels.decode import decode_label_map, read_label_file

GEOMETRIES: tuple[GeometryKind, ...] = ("crop", "native")
WAYS = {"loop": "(a) loop", "loader": "(b) DataLoader", "build": "(c) vocprep"}
COLUMNS = (
    Column("name", "a build with a null backbone"),
    Column("cores", "cores", "d"),
    Column("processor_ms", "ms/picture", ".2f"),
    Column("of_before", "of before", ".2f"),
    Column("of_loop", "of (a)", ".2f"),
    Column("images_per_s", "images/s", ",.0f"),
    Column("of_one_core", "of 1 core", ".2f"),
)
BEFORE = "before"


def lay_out(pictures: Pictures, kind: str) -> tuple[Path, Path]:
    """Give the pictures label maps of a kind, png or mat; return their manifest and folder."""
    folder = pictures.data_dir / kind
    (folder / "masks").mkdir(parents=True)
    for name in ("pictures", "splits"):
        (folder / name).symlink_to(pictures.data_dir / name)
    made: dict[Path, Path] = {}
    for sample in pictures.samples():
        original = Path(str(sample.label_path)).resolve()
        path = folder / "masks" / f"{sample.image_id}.{kind}"
        if original.suffix == path.suffix:
            path.symlink_to(original)
        elif original in made:
            path.symlink_to(made[original])
        else:
            write_labels(decode_label_map(read_label_file(original), original), path)
            made[original] = path
    manifest = folder / "pictures.toml"
    text = pictures.manifest.read_text()
    manifest.write_text(text.replace('"mat"', f'"{kind}"').replace('"png"', f'"{kind}"'))
    return manifest, folder


def write_labels(label_map: np.ndarray[Any, np.dtype[np.uint16]], path: Path) -> None:
    """Write a label map as the palette PNG or as the compressed .mat that datasets have."""
    if path.suffix == ".mat":
        savemat(path, {"LabelMap": label_map}, do_compression=True)
        return
    picture = Image.fromarray(label_map.astype(np.uint8))
    picture.putpalette(bytes(range(256)) * 3)
    picture.save(path)


class Code:
    """A revision of vocprep, with a process that measures it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks" / "_feed_jobs.py")],
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, job: Job) -> Cost:
        """Return what a job took."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{json.dumps(asdict(job))}\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise SystemExit(f"{job.way} on {job.cores} cores failed")
        return Cost(**json.loads(answer))

    def close(self) -> None:
        """End its process."""
        self._process.communicate()


@contextmanager
def measured(revision: str | None, folder: Path) -> Iterator[list[Code]]:
    """Yield the code to be measured: first that of another revision, in a worktree, if given."""
    codes, git = [Code("", ROOT)], ["git", "-C", str(ROOT), "worktree"]
    if revision is not None:
        subprocess.run([*git, "add", "--detach", "--quiet", str(folder), revision], check=True)
        codes.insert(0, Code(BEFORE, folder))
    try:
        yield codes
    finally:
        for code in codes:
            code.close()
        if revision is not None:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)


Costs = dict[tuple[Job, str], Cost]


def measure(jobs: list[Job], codes: list[Code], repeats: int) -> Costs:
    """Return what each job took by each code, the least of some runs in turn."""
    costs: Costs = {}
    for _ in range(repeats):
        for job in jobs:
            for code in codes if comparable(job) else codes[-1:]:
                cost = code.run(job)
                known = costs.get((job, code.name))
                if known is None or cost.processor_ms < known.processor_ms:
                    costs[job, code.name] = cost
    return costs


def comparable(job: Job) -> bool:
    """Return whether another revision does the same and stores the same bytes."""
    return job.way == "build" and job.processes == 1


def row(job: Job, name: str, costs: Costs) -> dict[str, str | float | None]:
    """Return a line of the table, with what it is compared to."""
    cost, alone = costs[job, name], replace(job, cores=1, processes=1)
    before, loop = costs.get((job, BEFORE)), costs[replace(alone, way="loop"), ""]
    one = costs.get((alone, name))
    rate = cost.images / cost.seconds
    processes = f"{job.processes} processes" if job.processes > 1 else ""
    return {
        "name": ", ".join(filter(None, (WAYS[job.way], processes, name))),
        "cores": job.cores,
        "processor_ms": cost.processor_ms,
        "of_before": cost.processor_ms / before.processor_ms if before and not name else None,
        "of_loop": cost.processor_ms / loop.processor_ms,
        "images_per_s": rate,
        "of_one_core": rate * one.seconds / one.images if one and job.cores > 1 else None,
    }


def stage_table(title: str, job: Job, codes: list[Code]) -> Table:
    """Return the processor time of each stage of a build on one core, by each code."""
    costs = {code.name or "now": code.run(replace(job, profile=True)) for code in codes}
    columns = [Column("name", title)]
    lines: list[dict[str, str | float | None]] = [{"name": stage} for stage in STAGES]
    lines += [{"name": "all else"}, {"name": "together"}]
    for name, cost in costs.items():
        columns += [Column(f"{name}_ms", f"{name}, ms", ".2f"), Column(f"{name}_share", "%", ".0f")]
        known = sum(cost.stages.values())
        numbers = [*cost.stages.values(), cost.processor_ms - known, cost.processor_ms]
        for line, number in zip(lines, numbers, strict=True):
            line[f"{name}_ms"], line[f"{name}_share"] = number, 100 * number / cost.processor_ms
    # Stages include a few pictures' start-up, which the whole does not: over few there is no rest.
    shown = [line for line in lines if any(isinstance(n, float) and n > 0 for n in line.values())]
    return Table("", tuple(columns), shown)


def add_tables(
    report: Report,
    data: tuple[Path, Path],
    kind: str,
    codes: list[Code],
    arguments: argparse.Namespace,
) -> None:
    """Measure builds from one kind of label files, and add their tables."""
    cores = sorted({1, *(min(count, usable_cores()) for count in arguments.cores)})
    for geometry in arguments.geometries:
        manifest, folder = map(str, data)
        first = Job("loop", manifest, folder, geometry, 1)
        jobs = [first]
        jobs += [replace(first, way=way, cores=n) for way in ("loader", "build") for n in cores]
        whole = jobs[-len(cores)]
        jobs += [
            replace(whole, cores=n, processes=p) for n in cores for p in in_parts(n, arguments)
        ]
        costs = measure(jobs, codes, arguments.repeats)
        title = f"JPEG + {kind}, {geometry}"
        lines = [row(job, name, costs) for job, name in costs]
        report.add(Table(title, COLUMNS, lines))
        report.add(stage_table(f"processor time, {title}", whole, codes))
        if len(codes) > 1:
            digests = {cost.sha256 for (job, _), cost in costs.items() if comparable(job)}
            same = "the same" if len(digests) == 1 else "OTHER"
            report.note(f"{title}: {same} records as before, by all identities")


def in_parts(cores: int, arguments: argparse.Namespace) -> list[int]:
    """Return with how many processes a build on so many cores is measured beside that with one."""
    return sorted(n for n in set(arguments.processes or [cores]) if 1 < n <= cores)


def main() -> None:
    """Measure and print the tables."""
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--records", type=int, default=2000, help="of an epoch for null heads")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--cores", nargs="+", type=int, default=[2], help="beside 1")
    parser.add_argument("--processes", nargs="+", type=int, help="of builds; as many as cores")
    parser.add_argument("--labels", nargs="+", choices=["png", "mat"], default=["png", "mat"])
    parser.add_argument("--geometries", nargs="+", choices=GEOMETRIES, default=GEOMETRIES)
    parser.add_argument(
        "--against", metavar="REVISION", help="another revision of vocprep, in turn"
    )
    arguments: argparse.Namespace = parser.parse_args()
    if arguments.images < 2:
        parser.error(f"--images {arguments.images}: expected 2 or more")
    with tempfile.TemporaryDirectory() as name:
        pictures = make_pictures(arguments.images, Path(name) / "data")
        report = Report(
            "feed",
            {
                "images": arguments.images,
                "records": arguments.records,
                "repeats": arguments.repeats,
            },
            f"{pictures.title}; best of {arguments.repeats}",
            ("simplejpeg", "pillow", "h5py", "scipy"),
        )
        with measured(arguments.against, Path(name) / "other") as codes:
            for kind in arguments.labels:
                add_tables(report, lay_out(pictures, kind), kind, codes, arguments)
        report.add(read_table(Path(name), arguments.records))
    report.write(arguments.json)


if __name__ == "__main__":
    main()
