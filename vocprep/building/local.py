"""The local engine: builds a dataset version in this process, or what is missing of it.

Finished shards wait in a staging folder, where the next run finds them after an interruption, and
get their final names together when all of them are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain
from pathlib import Path

from vocprep.building.failure_budget import FailureBudget
from vocprep.building.finish import FinishedShard, finish_shard
from vocprep.building.pipeline import MadeSample, make_records
from vocprep.building.plan import BuildPlan, ShardPlan
from vocprep.building.prepare import Embeddings, FindEmbeddings, Preparation
from vocprep.building.publish import Output, assemble, open_output, publish
from vocprep.building.resume import find_done
from vocprep.building.reuse import EarlierEmbeddings
from vocprep.building.stage_times import StageTimes
from vocprep.building.staging import BuildKey, Staging
from vocprep.features.embed import choose_devices, numerics_class
from vocprep.features.nvjpeg import check_nvjpeg
from vocprep.options import BuildOptions, Layout
from vocprep.parallel import map_ordered
from vocprep.shards.index import DatasetIndex
from vocprep.shards.record import Record
from vocprep.shards.samples import QuarantinedSample
from vocprep.shards.version import Version

Accept = Callable[[Version, Path], None]
"""Gets a version and the folder of its shards before anything of it has a final name; what it
raises keeps the version from being published."""


def build_dataset(
    plan: BuildPlan,
    out: Path,
    options: BuildOptions,
    on_image: Callable[[], None] = lambda: None,
    stage_times: StageTimes | None = None,
    accept: Accept = lambda _version, _folder: None,
) -> DatasetIndex:
    """Build a dataset version into ``out``, or what is missing of it, and return its index.

    ``on_image`` is called after each picture, ``stage_times`` learn where the time went. Nothing
    gets a final name before every shard is made; dataset.json comes last. On any error ``out``
    goes on holding what it held, and finished shards are kept for the next run. Raises
    FailureBudgetError when more samples are bad than ``options.max_failures`` allows.
    """
    devices = choose_devices(options.device)
    if options.decoder == "nvjpeg":
        check_nvjpeg(devices[0])
    key = BuildKey(plan=plan, numerics_class=numerics_class(devices, options.decoder))
    stage_times = stage_times or StageTimes()
    failure_budget = FailureBudget(plan, options.max_failures)
    with open_output(out, key, options.if_exists) as output, ExitStack() as stack:
        done = find_done(key, out, output.staging, output.earlier, options.workers)
        failure_budget.count(done.quarantined)
        if done.current is not None:
            _count(len(plan.samples), on_image)
            accept(done.current, out)
            output.staging.remove()
            return done.current.index

        missing = [shard for shard in plan.shards if shard.name not in done.shards]
        samples = [sample for shard in missing for sample in shard.samples]
        _count(len(plan.samples) - len(samples), on_image)
        preparation = Preparation(
            plan=plan, stage_times=stage_times, find_embeddings=_finder(stack, key, output, options)
        )
        made = stack.enter_context(closing(make_records(samples, preparation, devices, options)))
        write = partial(
            _write_shard, layout=plan.layout, staging=output.staging, stage_times=stage_times
        )
        finished = map_ordered(
            write, _by_shard(missing, made, failure_budget, on_image), 1, ahead=1
        )
        shards = done.shards | {
            shard.name: item for shard, item in zip(missing, finished, strict=True)
        }
        version = assemble(key, [shards[shard.name] for shard in plan.shards], stage_times)
        accept(version, output.staging.path)
        publish(output, version)
        return version.index


def _count(images: int, on_image: Callable[[], None]) -> None:
    for _ in range(images):
        on_image()


def _finder(
    stack: ExitStack, key: BuildKey, output: Output, options: BuildOptions
) -> FindEmbeddings:
    """Return the search for embeddings in ``--reuse`` and in the version that is succeeded."""
    earlier: list[EarlierEmbeddings] = []
    if options.reuse is not None:
        recipe = key.plan.recipe
        opened = EarlierEmbeddings.open(options.reuse, recipe, key.numerics_class)
        earlier.append(stack.enter_context(opened))
    if output.earlier is not None and output.earlier.index.numerics_class == key.numerics_class:
        opened = EarlierEmbeddings(output.path, output.earlier.index)
        earlier.append(stack.enter_context(opened))

    def find(record_id: str, image_sha256: str) -> Embeddings | None:
        found = (version.find(record_id, image_sha256) for version in earlier)
        return next((embeddings for embeddings in found if embeddings is not None), None)

    return find


ShardContent = tuple[ShardPlan, list[Record], list[QuarantinedSample]]


def _by_shard(
    shards: Sequence[ShardPlan],
    made: Iterator[MadeSample],
    failure_budget: FailureBudget,
    on_image: Callable[[], None],
) -> Iterator[ShardContent]:
    """Hand the stream of samples out to the shards that they belong to."""
    for shard in shards:
        records: list[list[Record]] = []
        quarantined: list[QuarantinedSample] = []
        for _ in shard.samples:
            sample = next(made)
            on_image()
            if isinstance(sample, QuarantinedSample):
                quarantined.append(sample)
                failure_budget.count([sample])
            else:
                records.append(sample)
        yield shard, list(chain.from_iterable(records)), quarantined
    next(made, None)  # it closes its stage_times after the last sample


def _write_shard(
    content: ShardContent, layout: Layout, staging: Staging, stage_times: StageTimes
) -> FinishedShard:
    """Encode, digest and write one shard into the staging folder."""
    shard, records, quarantined = content
    with stage_times.stage("write"):
        data, finished = finish_shard(shard, records, quarantined, layout)
        staging.add(shard.name, data, finished)
    return finished
