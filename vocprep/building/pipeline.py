"""From samples to records, on all devices of this machine at once.

A chain of stages, each a few items ahead of the next and no more, so that memory does not grow with
the number of pictures: threads read, decode and make targets; threads run the backbone.

On a CPU each core embeds a group of its own in one thread. Torch's way, all cores on one chunk,
makes every core wait for the slowest after every layer, and the slowest is the one that also
decodes. A GPU is fed by two threads, each with a stream: one copies while the other computes.
Several GPUs share the groups.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, cycle, islice

import numpy as np
import torch
from numpy.typing import NDArray

from vocprep.building.plan import BuildPlan
from vocprep.building.prepare import Preparation, Prepared, SourceFiles, embed_group
from vocprep.data_dir.layout import SampleRef
from vocprep.errors import ImageDecodeError, UsageError
from vocprep.features.compiling import can_compile
from vocprep.features.embed import GPU_CHUNK, Embedder, EmbeddingSpec
from vocprep.features.nvjpeg import Decoded, decode_jpegs
from vocprep.options import BuildOptions
from vocprep.parallel import map_ordered
from vocprep.shards.record import Record
from vocprep.shards.samples import QuarantinedSample

GROUP_PATCHES = 784
"""Patches of several pictures that a CPU core embeds together: 16 pictures of 7×7."""
GPU_THREADS = 2
"""Threads that feed one GPU."""
NVJPEG_BATCH = 64
"""Pictures that a GPU decodes together."""
COMPILE_FROM = 5000
"""Views from which on compiling takes less time than it saves in bf16 (docs/performance.md)."""

PreparedSample = list[Prepared] | QuarantinedSample
MadeSample = list[Record] | QuarantinedSample


def make_records(
    samples: Sequence[SampleRef],
    preparation: Preparation,
    devices: Sequence[torch.device],
    options: BuildOptions,
) -> Generator[MadeSample, None, None]:
    """Yield each sample's records, a view each, in order; or why there are none."""
    if not samples:
        return
    plan, stage_times = preparation.plan, preparation.stage_times
    embedders = [_make_embedder(plan, device, options, len(samples)) for device in devices]
    group_patches = GROUP_PATCHES if devices[0].type == "cpu" else GPU_CHUNK
    groups = _groups(_prepared(samples, preparation, devices[0], options), group_patches)
    with _embedding_threads(devices) as threads:
        embed = _Embedding(plan, embedders, preparation)
        started = time.perf_counter()
        yield from chain.from_iterable(map_ordered(embed, groups, threads, ahead=2))
        seconds = time.perf_counter() - started
    stage_times.add("waiting", max(0.0, threads * seconds - stage_times.seconds()["embed"]))


class _Embedding:
    """Embeds groups; each thread that calls it keeps to one of the embedders."""

    def __init__(
        self, plan: BuildPlan, embedders: Sequence[Embedder], preparation: Preparation
    ) -> None:
        self._dtype = plan.recipe.embedding_dtype
        self._accounts = preparation.stage_times
        self._in_turn = cycle(embedders)
        self._lock = threading.Lock()
        self._own = threading.local()

    def __call__(self, group: Sequence[PreparedSample]) -> list[MadeSample]:
        if not hasattr(self._own, "embedder"):
            with self._lock:
                self._own.embedder = next(self._in_turn)
        return embed_group(group, self._own.embedder, self._dtype, self._accounts)


def worth_compiling(plan: BuildPlan, samples: int) -> bool:
    """Say whether compiling the backbone pays for so many pictures, and can be done here.

    With a core to itself, fp32 gains nothing by it.
    """
    views = samples * len(plan.recipe.views)
    return plan.recipe.precision == "bf16" and views >= COMPILE_FROM and can_compile()


def _make_embedder(
    plan: BuildPlan, device: torch.device, options: BuildOptions, samples: int
) -> Embedder:
    embedder = Embedder(plan.weights, EmbeddingSpec.of(plan.recipe), device=device)
    if options.compiled:
        embedder.compile()
    elif options.compiled is None and worth_compiling(plan, samples):
        with suppress(UsageError):  # nobody asked for it, and the bits are the same without
            embedder.compile()
    return embedder


@contextmanager
def _embedding_threads(devices: Sequence[torch.device]) -> Iterator[int]:
    """Yield how many threads embed, each with one core to itself on a CPU."""
    if devices[0].type != "cpu":
        yield GPU_THREADS * len(devices)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def _prepared(
    samples: Sequence[SampleRef],
    preparation: Preparation,
    device: torch.device,
    options: BuildOptions,
) -> Iterator[PreparedSample]:
    """Read, decode and make targets, ahead of the consumer."""
    if options.decoder == "simplejpeg":
        return map_ordered(partial(_prepare, preparation), samples, options.workers)
    files = map_ordered(preparation.read, samples, options.workers)
    decode = partial(_decode_on_gpu, device=device, preparation=preparation)
    decoded = chain.from_iterable(map_ordered(decode, _batches(files), 1, ahead=2))
    return map_ordered(partial(_finish, preparation), decoded, options.workers)


def _prepare(preparation: Preparation, sample: SampleRef) -> PreparedSample:
    files = preparation.read(sample)
    return files if isinstance(files, QuarantinedSample) else preparation.prepare(files)


Loaded = tuple[SourceFiles, Decoded] | QuarantinedSample


def _decode_on_gpu(
    batch: Sequence[SourceFiles | QuarantinedSample],
    device: torch.device,
    preparation: Preparation,
) -> list[Loaded]:
    """Decode the pictures of a batch together."""
    whole = [files for files in batch if isinstance(files, SourceFiles)]
    with preparation.stage_times.stage("decode"):
        decoded = iter(
            decode_jpegs(
                [files.image_bytes for files in whole],
                [str(files.sample.image_path) for files in whole],
                device,
            )
        )
    return [(files, next(decoded)) if isinstance(files, SourceFiles) else files for files in batch]


def _finish(preparation: Preparation, loaded: Loaded) -> PreparedSample:
    if isinstance(loaded, QuarantinedSample):
        return loaded
    files, decoded = loaded

    def decode() -> NDArray[np.uint8]:
        if isinstance(decoded, ImageDecodeError):
            raise decoded
        return decoded

    return preparation.prepare(files, decode)


def _batches(
    files: Iterator[SourceFiles | QuarantinedSample],
) -> Iterator[list[SourceFiles | QuarantinedSample]]:
    while batch := list(islice(files, NVJPEG_BATCH)):
        yield batch


def _groups(prepared: Iterable[PreparedSample], size: int) -> Iterator[list[PreparedSample]]:
    """Gather samples until their patches fill the embedder's chunks."""
    group: list[PreparedSample] = []
    patches = 0
    for sample in prepared:
        group.append(sample)
        # A sample without patches counts too, so that a group always ends.
        patches += 1
        if not isinstance(sample, QuarantinedSample):
            patches += sum(view.grid[0] * view.grid[1] for view in sample) - 1
        if patches >= size:
            yield group
            group, patches = [], 0
    if group:
        yield group
