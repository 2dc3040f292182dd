"""The local engine: builds a dataset version in this process.

A chain of stages, each a few items ahead of the next and no more, so that memory does not grow with
the number of pictures: threads read, decode and make targets; threads run the backbone; one thread
encodes, digests and writes. The shards get their final names together when all of them are done.

On a CPU each core embeds a group of its own in one thread. Torch's way, all cores on one chunk,
makes every core wait for the slowest after every layer, and the slowest is the one that also
decodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path

import torch

from vocprep.errors import UsageError
from vocprep.features.embed import Embedder, can_compile, choose_device, numerics_class
from vocprep.files import write_atomic
from vocprep.parallel import map_ordered
from vocprep.recipe import EngineOptions
from vocprep.shards.accounts import Accounts
from vocprep.shards.build import (
    BuildPlan,
    BuiltShard,
    Prepared,
    ShardPlan,
    embed_group,
    finish_shard,
    prepare_sample,
)
from vocprep.shards.index import DatasetIndex
from vocprep.shards.publish import open_output, publish
from vocprep.shards.record import Record

GROUP_PATCHES = 784
"""Patches of several pictures that go to the embedder together: 16 pictures of 7×7."""
COMPILE_FROM = 5000
"""Views from which on compiling takes less time than it saves in bf16 (docs/performance.md)."""


def build_dataset(
    plan: BuildPlan,
    out: Path,
    options: EngineOptions,
    on_image: Callable[[], None] = lambda: None,
    accounts: Accounts | None = None,
) -> DatasetIndex:
    """Build a dataset version into ``out`` and return its index.

    ``on_image`` is called after each picture; ``accounts`` learn where the time went. Nothing
    gets a final name before every shard is made; dataset.json comes last. On any error
    ``out`` is left as it was.
    """
    accounts = accounts or Accounts()
    device = choose_device(options.device)
    with (
        open_output(out, plan.recipe, options.if_exists) as staging,
        _embedding_threads(device) as threads,
    ):
        embedder = _make_embedder(plan, device, options)
        prepare = partial(prepare_sample, recipe=plan.recipe, schema=plan.schema, accounts=accounts)
        prepared = chain.from_iterable(map_ordered(prepare, plan.samples, options.workers))
        embed = partial(
            embed_group, embedder=embedder, dtype=plan.recipe.embedding_dtype, accounts=accounts
        )
        embedded = map_ordered(embed, _groups(prepared), threads, ahead=2)
        records = chain.from_iterable(embedded)
        write = partial(_write_shard, plan=plan, staging=staging, accounts=accounts)
        built = list(map_ordered(write, _by_shard(plan, records, on_image), 1, ahead=1))
        return publish(plan, built, out, numerics_class(device))


def worth_compiling(plan: BuildPlan) -> bool:
    """Say whether compiling the backbone pays in a build, and can be done here.

    With a core to itself, fp32 gains nothing by it.
    """
    views = len(plan.samples) * len(plan.recipe.views)
    return plan.recipe.precision == "bf16" and views >= COMPILE_FROM and can_compile()


def _make_embedder(plan: BuildPlan, device: torch.device, options: EngineOptions) -> Embedder:
    recipe = plan.recipe
    embedder = Embedder(
        plan.weights, recipe.normalisation, device=device, precision=recipe.precision
    )
    if options.compiled:
        embedder.compile()
    elif options.compiled is None and worth_compiling(plan):
        with suppress(UsageError):  # nobody asked for it, and the bits are the same without
            embedder.compile()
    return embedder


@contextmanager
def _embedding_threads(device: torch.device) -> Iterator[int]:
    """Yield how many threads embed, each with one core to itself on a CPU."""
    if device.type != "cpu":
        yield 1
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def _groups(prepared: Iterable[Prepared]) -> Iterator[list[Prepared]]:
    """Gather pictures until their patches fill the embedder's chunks."""
    group: list[Prepared] = []
    patches = 0
    for item in prepared:
        group.append(item)
        patches += len(item.patches)
        if patches >= GROUP_PATCHES:
            yield group
            group, patches = [], 0
    if group:
        yield group


def _by_shard(
    plan: BuildPlan, records: Iterator[Record], on_image: Callable[[], None]
) -> Iterator[tuple[ShardPlan, list[Record]]]:
    """Hand the stream of records out to the shards that they belong to."""
    views = len(plan.recipe.views)
    for shard in plan.shards:
        mine: list[Record] = []
        for _ in shard.samples:
            mine += islice(records, views)
            on_image()
        yield shard, mine


def _write_shard(
    item: tuple[ShardPlan, list[Record]], plan: BuildPlan, staging: Path, accounts: Accounts
) -> BuiltShard:
    """Encode, digest and write one shard into the staging folder."""
    shard, records = item
    with accounts.stage("write"):
        data, built = finish_shard(shard, records, plan.layout)
        write_atomic(staging / shard.name, data)
    return built
