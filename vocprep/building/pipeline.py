"""From samples to records to staged shards, on all devices of this machine at once.

A chain of pools, each a few items ahead of the next and no more, so that memory does not grow with
the number of images: threads read, decode and make targets; threads run the backbone.

On a CPU each core embeds a group of its own in one thread. With torch's own threading, all cores on
one chunk, every core waits for the slowest after every layer, and the slowest is the one that also
decodes. A GPU is fed by two threads, each with a stream: one copies while the other computes.
Several GPUs share the groups.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Self, TypeVar

import torch
from torch import Tensor

from vocprep.building.finish import FinishedShard, finish_shard
from vocprep.building.output.staging import FinishedShards
from vocprep.building.plan import BuildPlan, ShardPlan
from vocprep.building.stages import (
    DecodedImage,
    Outcome,
    RecordDraft,
    SampleFiles,
    SampleStages,
    begin,
)
from vocprep.data_dir.layout import SampleRef
from vocprep.errors import FailureBudgetError, ImageDecodeError, UsageError
from vocprep.features.compiling import can_compile
from vocprep.features.components import Components
from vocprep.features.devices import GPU_CHUNK, choose_device
from vocprep.features.embed import Embedder, EmbeddingSpec
from vocprep.features.on_device.nvjpeg import decode_jpegs
from vocprep.features.on_device.placing import Pixels
from vocprep.features.reduction import as_stored
from vocprep.features.weights import StateDict
from vocprep.options import BuildOptions, Layout, MaxFailures
from vocprep.parallel import StageTimes, map_ordered
from vocprep.recipe import EmbeddingDtype, Precision, Recipe
from vocprep.shards.record import Record
from vocprep.shards.samples import QuarantinedSample

Item = TypeVar("Item")

GROUP_PATCHES = 196
"""Patches that a CPU core embeds together: 4 images of 7×7, whole chunks of every precision.

With more, one core works long on the last ones while the others have nothing left to do."""
NATIVE_PATCHES = 784
"""The same of images of any sizes, so that compiled code has few chunks to fill up."""
GPU_GROUP_PATCHES = 4 * GPU_CHUNK
"""Patches of the images that are copied to a GPU together, and their embeddings back."""
GPU_THREADS = 2
"""Threads that feed one GPU."""
TOGETHER = 4
"""Samples of a folder that a thread drafts at a time, so that threads change places less often."""
NVJPEG_BATCH = 64
"""Images that a GPU decodes together."""
MOST_NAMED = 3
"""Quarantined samples that FailureBudgetError names, the latest ones."""
COMPILE_FROM: dict[Precision, int] = {"bf16": 5000, "exact": 8000}
"""Views from which on compiling saves more time than it takes the first time (docs/performance.md).

With one core per group, fp32 gains nothing by it."""


def make_shards(  # what, how, with which networks and threads, where to, who is told
    shards: Iterable[ShardPlan],
    stages: SampleStages,
    embedders: Sequence[Embedder],
    options: BuildOptions,
    writer: ShardWriter,
    count: Callable[[Outcome[list[Record]]], None],
) -> None:
    """Make shards one after the other, and stage each; ``count`` is called once per sample.

    Threads read and draft samples, threads embed them (``make_records``), one thread encodes and
    writes a shard while the next is made (``writer``). A shard is taken when the samples of those
    before it are being read.
    """
    begun: deque[ShardPlan] = deque()

    def samples() -> Iterator[SampleRef]:
        for shard in shards:
            begun.append(shard)
            yield from shard.samples

    with make_records(samples(), stages, embedders, options) as outcomes:
        for first in outcomes:
            shard = begun.popleft()
            records: list[Record] = []
            quarantined: list[QuarantinedSample] = []
            for outcome in chain([first], islice(outcomes, len(shard.samples) - 1)):
                count(outcome)
                records += outcome.made or ()
                if outcome.quarantined is not None:
                    quarantined.append(outcome.quarantined)
            writer.write(shard, records, quarantined)


class ShardWriter:
    """Encodes, digests and stages shards in a thread; at most one waits for the one before it.

    A context manager: without an error, every shard is in ``finished`` when it ends.
    """

    def __init__(self, staging: FinishedShards, layout: Layout, times: StageTimes) -> None:
        self.finished: dict[str, FinishedShard] = {}
        self._staging = staging
        self._layout = layout
        self._times = times
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="vocprep")
        self._pending: deque[Future[None]] = deque()

    def write(
        self,
        shard: ShardPlan,
        records: Sequence[Record],
        quarantined: Sequence[QuarantinedSample],
    ) -> None:
        """Begin to write a shard; waits for, and raises the error of, the last but one."""
        self._pending.append(self._pool.submit(self._write, shard, records, quarantined))
        if len(self._pending) > 1:
            self._pending.popleft().result()

    def _write(
        self,
        shard: ShardPlan,
        records: Sequence[Record],
        quarantined: Sequence[QuarantinedSample],
    ) -> None:
        with self._times.stage("write"):
            encoded = finish_shard(shard, records, quarantined, self._layout)
            self._staging.add(shard.name, encoded)
        self.finished[shard.name] = encoded.finished

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            while self._pending and kind is None:
                self._pending.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)


@contextmanager
def make_records(
    samples: Iterable[SampleRef],
    stages: SampleStages,
    embedders: Sequence[Embedder],
    options: BuildOptions,
) -> Iterator[Iterator[Outcome[list[Record]]]]:
    """Yield an iterator over each sample's records, one per view, in the order of the samples.

    ``embedders`` are the recipe's backbone on each device; ``make_embedders`` makes them; without
    a sample there need be none.
    On exit all threads have ended, and the time that the backbone waited is accounted for.
    """
    if not embedders:
        yield iter(())
        return
    times, devices = stages.times, [embedder.device for embedder in embedders]
    embed = _EmbedInThreads(embedders, stages)
    together = _patches_together(stages.recipe, devices[0])
    with (
        _embedding_threads(devices) as threads,
        closing(draft_records(samples, stages, devices[0], options)) as drafts,
        closing(map_ordered(embed, _groups(drafts, together), threads, ahead=2)) as embedded,
    ):
        started = time.perf_counter()
        yield chain.from_iterable(embedded)
        seconds = time.perf_counter() - started
        times.add("waiting", max(0.0, threads * seconds - times.seconds()["embed"]))


def draft_records(
    samples: Iterable[SampleRef],
    stages: SampleStages,
    device: torch.device,
    options: BuildOptions,
) -> Generator[Outcome[list[RecordDraft]], None, None]:
    """Yield each sample's drafts, made by ``options.workers`` threads ahead of the consumer.

    Images are decoded by the same threads, or in batches on a GPU (``options.decoder``).
    """

    stages = replace(stages, place_on_device=device.type == "cuda")

    def read(sample: SampleRef) -> Outcome[SampleFiles]:
        return begin(sample).then(stages.read)

    def draft(image: Outcome[DecodedImage]) -> Outcome[list[RecordDraft]]:
        return image.then(stages.decode_labels).then(stages.place).then(stages.make_targets)

    if options.decoder == "simplejpeg":

        def draft_all(some: Sequence[SampleRef]) -> list[Outcome[list[RecordDraft]]]:
            return [draft(read(sample).then(stages.decode_image)) for sample in some]

        # A store is slow to answer: there each sample is a thread's own.
        together = TOGETHER if isinstance(stages.data_dir, Path) else 1
        some = _taken_together(samples, together)
        ahead = TOGETHER // together
        with closing(map_ordered(draft_all, some, options.workers, ahead=ahead)) as drafts:
            yield from chain.from_iterable(drafts)
        return
    decode = partial(_decode_on_gpu, stages, device)
    with (
        closing(map_ordered(read, samples, options.workers)) as files,
        closing(map_ordered(decode, _taken_together(files, NVJPEG_BATCH), 1, ahead=2)) as images,
    ):
        yield from map_ordered(draft, chain.from_iterable(images), options.workers)


def _decode_on_gpu(
    stages: SampleStages, device: torch.device, batch: Sequence[Outcome[SampleFiles]]
) -> list[Outcome[DecodedImage]]:
    """Decode the images of a batch together."""
    needed = [files for each in batch if (files := each.made) is not None and files.needs_pixels]
    names = [str(files.sample.image_path) for files in needed]
    decoded: dict[str, Pixels | Tensor] = {}
    # Where one of them is damaged, each is decoded alone, so that only that one is quarantined.
    with suppress(ImageDecodeError), stages.times.stage("decode"):
        pixels = decode_jpegs([files.image_bytes for files in needed], names, device)
        decoded = dict(zip(names, pixels, strict=True))

    def decode(data: bytes, where: str) -> Pixels | Tensor:
        return decoded[where] if where in decoded else decode_jpegs([data], [where], device)[0]

    return [each.then(lambda files: stages.decode_image(files, decode)) for each in batch]


def _taken_together(items: Iterable[Item], count: int) -> Iterator[list[Item]]:
    """Yield lists of so many items, the last one of the rest."""
    rest = iter(items)
    while taken := list(islice(rest, count)):
        yield taken


def _patches_together(recipe: Recipe, device: torch.device) -> int:
    """Return how many patches a thread embeds together."""
    if device.type != "cpu":
        return GPU_GROUP_PATCHES
    return NATIVE_PATCHES if recipe.geometry.geometry == "native" else GROUP_PATCHES


def _groups(
    drafts: Iterable[Outcome[list[RecordDraft]]], size: int
) -> Iterator[list[Outcome[list[RecordDraft]]]]:
    """Gather samples until their patches fill the embedder's chunks."""
    group: list[Outcome[list[RecordDraft]]] = []
    patches = 0
    for outcome in drafts:
        group.append(outcome)
        # A quarantined sample counts as one patch, so that a group of such samples ends too.
        patches += max(1, sum(draft.patches for draft in outcome.made or ()))
        if patches >= size:
            yield group
            group, patches = [], 0
    if group:
        yield group


def embed_group(
    group: Sequence[Outcome[list[RecordDraft]]],
    embedder: Embedder,
    dtype: EmbeddingDtype,
    times: StageTimes,
) -> list[Outcome[list[Record]]]:
    """Turn drafts into records, computing the missing embeddings of all of them together."""
    drafts = [draft for outcome in group for draft in outcome.made or ()]
    missing = {draft.record_id: draft.pixels for draft in drafts if draft.pixels is not None}
    with times.stage("embed"):
        embedded = embedder.embed_images(list(missing.values()))
    computed = dict(zip(missing, embedded, strict=True))

    def record(draft: RecordDraft) -> Record:
        stored, name = draft.embeddings, draft.record_id
        if stored is None:
            stored = as_stored(computed[name], dtype, name)
        return draft.record(stored, dtype)

    return [outcome.then(lambda drafts: [record(draft) for draft in drafts]) for outcome in group]


class _EmbedInThreads:
    """Embeds groups; each thread that calls it keeps to one of the embedders."""

    def __init__(self, embedders: Sequence[Embedder], stages: SampleStages) -> None:
        self._dtype = stages.recipe.embedding_dtype
        self._times = stages.times
        self._in_turn = cycle(embedders)
        self._lock = threading.Lock()
        self._own = threading.local()

    def __call__(self, group: Sequence[Outcome[list[RecordDraft]]]) -> list[Outcome[list[Record]]]:
        if not hasattr(self._own, "embedder"):
            with self._lock:
                self._own.embedder = next(self._in_turn)
        return embed_group(group, self._own.embedder, self._dtype, self._times)


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


def worth_compiling(recipe: Recipe, samples: int) -> bool:
    """Return whether compiling the backbone pays for so many images on a CPU, and can be done."""
    least = COMPILE_FROM.get(recipe.precision) if recipe.network is None else None
    return least is not None and samples * len(recipe.record_views) >= least and can_compile()


def is_compiled(recipe: Recipe, samples: int, options: BuildOptions) -> bool:
    """Return whether to compile the backbone for so many images: as chosen, or where it pays.

    On a GPU it does not: 6,000 images in bf16 took 82 s compiled, and 20 s as they are.
    """
    if options.compiled is not None:
        return options.compiled
    on_gpu = options.device.startswith("cuda") or choose_device(options.device).type == "cuda"
    return not on_gpu and worth_compiling(recipe, samples)


def make_embedders(
    recipe: Recipe,
    weights: StateDict,
    devices: Sequence[torch.device],
    *,
    compiled: bool,
    required: bool = False,
    components: Components | None = None,
) -> list[Embedder]:
    """Return the recipe's backbone on each device.

    ``compiled`` compiles it; where that fails it stays as it is, with the same bits, unless
    ``required``. ``components`` are those that the recipe names.
    """
    spec = EmbeddingSpec.of(recipe)
    embedders = [Embedder(weights, spec, device=each, components=components) for each in devices]
    for embedder in embedders if compiled else ():
        with nullcontext() if required else suppress(UsageError):
            embedder.compile()
    return embedders


class FailureBudget:
    """Counts quarantined samples, up to the most that a build allows."""

    def __init__(self, plan: BuildPlan, limit: MaxFailures) -> None:
        self._plan = plan
        self._limit = limit
        self._allowed = limit.allowed(len(plan.samples))
        self._count = 0
        self._latest: deque[str] = deque(maxlen=MOST_NAMED)
        """What the error says of them."""

    @property
    def spent(self) -> int:
        """How many samples are quarantined so far."""
        return self._count

    def spend(self, *quarantined: QuarantinedSample, problem: str = "") -> None:
        """Count quarantined samples; FailureBudgetError as soon as there are more than allowed.

        ``problem`` is what the error says of one, its recorded reason where it is empty.
        """
        folder = self._plan.data_dir
        self._latest.extend(problem or f"{folder / bad.file}: {bad.reason}" for bad in quarantined)
        self._count += len(quarantined)
        if self._count > self._allowed:
            raise FailureBudgetError(self._message())

    def _message(self) -> str:
        named = "; ".join(self._latest)
        return (
            f"at least {self._count} of {len(self._plan.samples):,} samples cannot be "
            f"used, expected at most {self._allowed} (--max-failures {self._limit}): {named}; or "
            "take their ids out of the split files, or allow more; verify --level content names "
            "all of them"
        )
