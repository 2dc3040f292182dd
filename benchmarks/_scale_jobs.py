"""The jobs of scale.py, each run as a process of its own that prints what it took as JSON.

Run: python benchmarks/_scale_jobs.py JOB FOLDER SAMPLES
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vocprep.building.finish import finish_shard
from vocprep.building.local import build_plan
from vocprep.building.output.publish import open_output
from vocprep.building.plan import BuildKey, BuildPlan, ShardPlan, plan
from vocprep.checks.diff import diff
from vocprep.checks.verify import verify
from vocprep.features.devices import choose_devices, numerics_class
from vocprep.files.writing import sha256_hex
from vocprep.labels.png import encode_png
from vocprep.labels.targets import make_targets
from vocprep.manifests import load_dataset
from vocprep.options import BuildOptions, VerifyOptions
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record

DATASET = "pascal-context"
OPTIONS = BuildOptions(device="cpu", workers=2)
VALIDATION = 10
"""Every so many samples one is of the split val."""
LINKS = 50_000
"""Names that one file gets: file systems allow 65,000."""
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def make_plan(folder: Path) -> BuildPlan:
    """Plan the build of the samples in a folder."""
    return plan(DATASET, data_dir=folder / "data", weights="random:0")


def write_sources(folder: Path, samples: int) -> None:
    """Write split files, and the two files of each sample as links to few real ones."""
    dataset, data = load_dataset(DATASET), folder / "data"
    image_ids = [f"2008_{number:07d}" for number in range(samples)]
    splits: dict[str, list[str]] = {"train": [], "val": []}
    for number, image_id in enumerate(image_ids):
        splits["train" if number % VALIDATION else "val"].append(image_id)
    split_files = data / str(dataset.split_files)
    split_files.mkdir(parents=True)
    for split, members in splits.items():
        text = "".join(f"{image_id}\n" for image_id in members)
        (split_files / f"{split}.txt").write_text(text)
    for place, suffix, content in (
        (dataset.images, "jpg", _small_jpeg()),
        (dataset.labels, dataset.label_kind, b"MATLAB 5.0 MAT-file".ljust(2048, b"\0")),
    ):
        (data / place).mkdir(parents=True, exist_ok=True)
        for start in range(0, samples, LINKS):
            first = data / place / f"{image_ids[start]}.{suffix}"
            first.write_bytes(content)
            for image_id in image_ids[start + 1 : start + LINKS]:
                os.link(first, data / place / f"{image_id}.{suffix}")


def _small_jpeg() -> bytes:
    import simplejpeg  # noqa: PLC0415  # of all jobs, this one needs it

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data: bytes = simplejpeg.encode_jpeg(pixels, quality=90)
    return data


def stage_records(folder: Path) -> None:
    """Stage every shard of the planned version, as an interrupted build would have left them."""
    decided = make_plan(folder)
    made_in = numerics_class(choose_devices("cpu"), "simplejpeg", decided.recipe.precision)
    key = BuildKey(plan=decided, numerics_class=made_in)
    with open_output(folder / "out", key, "resume") as output:
        for shard in decided.shards:
            records = list(_records(shard, decided))
            output.staging.add(shard.name, finish_shard(shard, records, [], decided.layout))


def _records(shard: ShardPlan, decided: BuildPlan) -> Iterator[Record]:
    """Yield a record of one patch per sample, whose numbers are drawn."""
    rng = np.random.default_rng([*shard.name.encode()])
    label_map = np.kron(rng.integers(1, 60, (4, 4)), np.ones((8, 8))).astype(np.uint16)
    targets, label_png = make_targets(label_map, decided.label_space.void), encode_png(label_map)
    first = shard.samples[0]
    image_sha256, label_sha256 = (
        sha256_hex(Path(str(path)).read_bytes()) for path in (first.image_path, first.label_path)
    )
    for image_id in shard.image_ids():
        yield Record(
            image_id=image_id,
            split=shard.split,
            grid=(1, 1),
            embeddings=rng.normal(size=(1, 256)).astype(np.float16),
            slot_labels=targets.slot_labels,
            slot_pixels=targets.slot_pixels,
            label_count=targets.label_count,
            slot_planes=targets.slot_planes,
            label_png=label_png,
            image_sha256=image_sha256,
            label_sha256=label_sha256,
        )


def open_version(folder: Path) -> None:
    """Open the version, as a training does."""
    dataset = ShardDataset.open(folder / "out")
    if sum(shard.records for shard in dataset.index.shards) == 0:
        raise SystemExit("the version holds no record")


def build_again(folder: Path) -> None:
    """Build what is missing."""
    build_plan(make_plan(folder), folder / "out", OPTIONS)


def verify_files(folder: Path) -> None:
    """Compare every file with its digest, and the lists with the index."""
    if not verify(folder / "out", VerifyOptions(level="files")).ok:
        raise SystemExit("the version is not as its index says")


def diff_equal(folder: Path) -> None:
    """Compare the version with a copy of itself."""
    if not diff(folder / "out", folder / "copy").same:
        raise SystemExit("the version differs from its copy")


JOBS: dict[str, Callable[[Path], object]] = {
    "stage": stage_records,
    "publish": build_again,
    "open": open_version,
    "plan": make_plan,
    "no-op": build_again,
    "verify": verify_files,
    "diff": diff_equal,
}


def peak_bytes() -> int:
    """Return the largest resident size of this process so far."""
    # What getrusage says begins with the peak of the process that started this one.
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def main() -> None:
    """Run one job, and print seconds, and the peak before and after it."""
    job, folder = sys.argv[1], Path(sys.argv[2])
    if job == "sources":
        write_sources(folder, int(sys.argv[3]))
        return
    before, started = peak_bytes(), time.perf_counter()
    JOBS[job](folder)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "before": before, "peak": peak_bytes()}))


if __name__ == "__main__":
    main()
