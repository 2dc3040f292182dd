"""What feed.py measures: builds without a backbone, and plain programs beside them.

Run as a script it reads a job per line as JSON, and prints for each what it took. It imports
nothing but what earlier revisions of vocprep have too, so that they can be measured by it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import wraps
from hashlib import sha256
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import simplejpeg
import torch
from _plain_builds import masks, top_four
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat
from torch.utils.data import DataLoader, Dataset

import vocprep
from vocprep.building import pipeline, stages
from vocprep.building.output import staging
from vocprep.geometry import Geometry, GeometryKind
from vocprep.options import BuildChoices, BuildOptions, Layout

Bytes = NDArray[np.uint8]
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
SHARDS = 8
"""Of a build for each of its processes, so that none waits long for the others at the end."""
WARM = 16
"""Pictures of a run that loads all modules, and of another whose cost is that of starting."""
STAGES: dict[str, tuple[Any, str]] = {
    "read": (stages.SampleStages, "read"),
    "decode image": (stages.SampleStages, "decode_image"),
    "decode labels": (stages.SampleStages, "decode_labels"),
    "geometry": (stages.SampleStages, "place"),
    "targets and label PNG": (stages.SampleStages, "make_targets"),
    "record": (stages.RecordDraft, "record"),
    "encode and describe": (pipeline, "finish_shard"),
    "write": (staging.Staging, "add"),
}
"""By name: what holds a function, and its name."""


@dataclass(frozen=True)
class Job:
    """One row: who feeds, from what, on how many cores."""

    way: str
    """``build``, ``loop`` or ``loader``."""
    manifest: str
    data_dir: str
    geometry: GeometryKind
    cores: int
    processes: int = 1
    """Of a build: in each of them as many threads as it has cores."""
    profile: bool = False
    """Whether the processor time of each stage is measured, which costs some itself."""


@dataclass(frozen=True)
class Cost:
    """What a job took per picture."""

    images: int
    seconds: float
    processor_ms: float
    """Of all threads and processes, in user and system mode."""
    stages: dict[str, float] = field(default_factory=dict)
    """Milliseconds of processor time per picture by stage."""
    sha256: str = ""
    """Of the identities of a version, which follow from its records."""


class NullEmbedder:
    """In the place of ``vocprep.features.embed.Embedder``: embeddings are zeros, at once."""

    def __init__(self, *_: object, device: torch.device, **__: object) -> None:
        self.device = device

    def embed_images(self, images: list[Bytes]) -> list[NDArray[np.float32]]:
        """Return zeros float32 [P, 256] for each image [32·ny, 32·nx, 3]."""
        return [np.zeros((image.size // 3 // 1024, 256), np.float32) for image in images]


def replace_backbone() -> None:
    """Let builds in this process, and in those that they start, have a null backbone."""
    pipeline.Embedder = NullEmbedder  # type: ignore[attr-defined,assignment]
    try:
        from vocprep.building.processes import pool  # noqa: PLC0415  # earlier revisions have none
    except ImportError:
        return
    if replace_backbone.__name__ not in pool.SOURCE:
        hook = f"import _feed_jobs; _feed_jobs.{replace_backbone.__name__}(); "
        begun, _, rest = pool.SOURCE.partition("from ")
        pool.SOURCE = f"{begun}{hook}from {rest}"


class ThreadTimes:
    """Processor time of functions, in whatever threads they run."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, which then adds its time under a name."""

        @wraps(function)
        def run(*words: Any, **named: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*words, **named)
            finally:
                with self._lock:
                    self.seconds[name] += time.thread_time() - started

        return run


@contextmanager
def profiled(*, wanted: bool) -> Iterator[defaultdict[str, float]]:
    """Yield the seconds of each of ``STAGES`` while a build runs; of none unless ``wanted``."""
    times = ThreadTimes()
    before = {name: getattr(place, attribute) for name, (place, attribute) in STAGES.items()}
    for name, (place, attribute) in STAGES.items() if wanted else ():
        setattr(place, attribute, times.timed(name, before[name]))
    try:
        yield times.seconds
    finally:
        for name, (place, attribute) in STAGES.items():
            setattr(place, attribute, before[name])


def build(job: Job, out: Path, limit: int | None = None) -> str:
    """Build a version; return a digest of its identities."""
    layout, in_processes = Layout(), dict[str, Any]()
    if job.processes > 1:  # earlier revisions do not have it
        images = limit or len(list((Path(job.data_dir) / "pictures").iterdir()))
        layout = Layout(samples_per_shard=max(1, images // (SHARDS * job.processes)))
        in_processes["processes"] = job.processes
    vocprep.build(
        job.manifest,
        out=out,
        data_dir=job.data_dir,
        weights="random:0",
        choices=BuildChoices(geometry=Geometry(geometry=job.geometry), limit_per_split=limit),
        layout=layout,
        options=BuildOptions(device="cpu", workers=job.cores, **in_processes),
    )
    index = json.loads((out / "dataset.json").read_text())
    identities = [index[f"{name}_id"] for name in ("recipe", "source", "content", "targets")]
    return sha256(json.dumps(identities).encode()).hexdigest()


class Decoded(Dataset[tuple[Any, ...]]):
    """Pictures with targets, by the same libraries and plain code around them."""

    def __init__(self, job: Job) -> None:
        folder = Path(job.data_dir)
        self._geometry = job.geometry
        self._labels = sorted((folder / "masks").iterdir())
        self._images = sorted((folder / "pictures").iterdir())

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        data, label_data = self._images[index].read_bytes(), self._labels[index].read_bytes()
        digests = sha256(data).hexdigest(), sha256(label_data).hexdigest()
        pixels = simplejpeg.decode_jpeg(data)
        image, labels = self._place(pixels, self._read_labels(self._labels[index]))
        label_map = np.asarray(labels)
        ny, nx = label_map.shape[0] // 32, label_map.shape[1] // 32
        tiles = label_map.reshape(ny, 32, nx, 32).swapaxes(1, 2).reshape(-1, 1024)
        slots = top_four(tiles)
        table = np.full((len(slots), 4), -1, dtype=np.int16)
        for patch, ranked in enumerate(slots):
            table[patch, : len(ranked)] = [label for label, _ in ranked]
        return np.array(image), label_map.copy(), table, masks(tiles, slots), digests

    @staticmethod
    def _read_labels(path: Path) -> NDArray[Any]:
        if path.suffix == ".mat":
            found: NDArray[Any] = loadmat(path, variable_names=["LabelMap"])["LabelMap"]
            return found.astype(np.uint16)
        with Image.open(path) as labels:
            return np.asarray(labels)

    def _place(self, pixels: Bytes, labels: NDArray[Any]) -> tuple[Any, Any]:
        height, width = labels.shape
        if self._geometry == "native":
            part = slice(height // 32 * 32), slice(width // 32 * 32)
            return pixels[part], labels[part]
        scale = 256 / min(height, width)
        sides = max(256, int(width * scale)), max(256, int(height * scale))
        left, top = (round((side - 224) / 2) for side in sides)
        box = (left, top, left + 224, top + 224)
        image = Image.fromarray(pixels).resize(sides, Image.Resampling.BILINEAR).crop(box)
        return image, Image.fromarray(labels).resize(sides, Image.Resampling.NEAREST).crop(box)


def plain(job: Job, out: Path, limit: int | None = None) -> str:
    """(a) and (b): a loop in one process, or a DataLoader; both store with h5py."""
    dataset = Decoded(job)
    workers = job.cores if job.way == "loader" else 0
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    with h5py.File(out, "w") as file:
        for number, sample in enumerate(loader):
            _, label_map, table, mask, digests = sample
            group = file.create_group(f"{number:06d}")
            group["embeddings"] = np.zeros((len(table), 256), np.float16)
            group["slots"], group["masks"] = table, mask
            group["label_map"] = np.asarray(label_map).astype(np.uint16)
            group.attrs["sha256"] = digests
            if number + 1 == limit:
                break
    return ""


def measure(job: Job) -> Cost:
    """Return what a job takes per picture: over all of them, less what it takes over a few."""
    torch.set_num_threads(job.cores)
    if CORES:
        os.sched_setaffinity(0, CORES[: job.cores])
    replace_backbone()
    run = build if job.way == "build" else plain
    images = len(list((Path(job.data_dir) / "pictures").iterdir()))
    few = min(WARM, images // 2)
    with tempfile.TemporaryDirectory() as name:
        run(job, Path(name) / "first", few)
        start_up, _ = timed(lambda: run(job, Path(name) / "few", few))
        with profiled(wanted=job.profile) as seconds:
            whole, digest = timed(lambda: run(job, Path(name) / "all"))
    taken, used = (after - before for after, before in zip(whole, start_up, strict=True))
    shares = {stage: 1e3 * seconds[stage] / images for stage in STAGES if seconds}
    return Cost(images - few, taken, 1e3 * used / (images - few), shares, digest)


def timed(work: Callable[[], str]) -> tuple[tuple[float, float], str]:
    """Return seconds and processor seconds of some work, and what it returns."""
    started, before = time.perf_counter(), processor_seconds()
    result = work()
    return (time.perf_counter() - started, processor_seconds() - before), result


def processor_seconds() -> float:
    """Return the processor time of this process and of those that it has waited for."""
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(asdict(measure(Job(**json.loads(line))))), flush=True)
