"""A shard as a unit of work: its order, and making it in whatever process of whatever machine.

A driver plans a build, begins its staging folder, and hands out an order per shard; ``build_shard``
follows one. The bytes of a shard are a function of its samples and of what its order says, so that
it does not matter which machine makes it, how often, or when.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from vocprep.building.finish import FinishedShard
from vocprep.building.output.components import staged_components
from vocprep.building.output.store_output import joined_staging
from vocprep.building.pipeline import ShardWriter, make_embedders, make_shards
from vocprep.building.plan import BuildKey, ShardPlan, versions
from vocprep.building.results import MadeShards
from vocprep.building.reuse import Reuse, StoredEmbeddings
from vocprep.building.stages import STAGES, Outcome, SampleStages
from vocprep.data_dir.layout import SampleRef
from vocprep.errors import ShardError, UsageError, WeightsError
from vocprep.features.devices import choose_devices, numerics_class
from vocprep.features.embed import Embedder, EmbeddingSpec
from vocprep.features.libraries.kinds import installed_library
from vocprep.features.libraries.own_file import allow
from vocprep.features.on_device.nvjpeg import check_nvjpeg
from vocprep.features.weights import load_fitting_weights, tensor_digest
from vocprep.labels.decode import LabelRule
from vocprep.labels.label_space import LabelSpace
from vocprep.options import BuildOptions, Decoder, Layout
from vocprep.parallel import StageTimes
from vocprep.recipe import Recipe, differing_fields, joined_differences
from vocprep.shards.record import Record
from vocprep.shards.samples import QuarantinedSample
from vocprep.storage.places import AnyPlace, Place, local_path, path_below
from vocprep.validation import Positive, checked

ORDER_VERSION = 1
"""Of what an order says, and of what following it does."""


@dataclass(frozen=True, kw_only=True)
class ShardOrder:
    """Everything that decides the bytes of one shard but its source files: small, and pickles."""

    order_version: int = ORDER_VERSION
    recipe: Recipe
    recipe_id: str
    """The recipe's digest where the order was made."""
    layout: Layout
    label_space: LabelSpace
    label_rule: LabelRule
    """For the shard's label files alone."""
    shard: ShardPlan
    """Its name, split and samples; their paths are below the data dir, wherever that is."""
    build: str
    """Digest of the build's key: the staging folder must be of the same build."""
    numerics_class: Mapping[str, str]
    versions: Mapping[str, str]
    decoder: Decoder = "simplejpeg"
    compiled: bool = False
    """Whether to compile the backbone where that can be done: the same bits, sooner."""

    def __repr__(self) -> str:
        return (
            f"ShardOrder({self.shard.name!r}: {len(self.shard.samples):,} samples, recipe_id "
            f"{self.recipe_id[:12]}…, build {self.build[:12]}…)"
        )

    @classmethod
    def of(cls, key: BuildKey, shard: ShardPlan, decoder: Decoder, *, compiled: bool) -> ShardOrder:
        """Return the order of a shard of a build."""
        plan = key.plan
        samples = tuple(_below(plan.data_dir, sample) for sample in shard.samples)
        return cls(
            recipe=plan.recipe,
            recipe_id=plan.recipe.recipe_id,
            layout=plan.layout,
            label_space=plan.label_space,
            label_rule=plan.label_rule.only(sample.label_path for sample in samples),
            shard=replace(shard, samples=samples),
            build=key.digest,
            numerics_class=dict(key.numerics_class),
            versions=versions(),
            decoder=decoder,
            compiled=compiled,
        )


@checked
class WorkerSetup:
    """Where a worker finds on its machine what an order is followed with."""

    data_dir: AnyPlace
    """Folder of images and label maps."""
    out: AnyPlace
    """The output of the build, which the driver and all workers share: a folder or a URL."""
    weights: str | None = None
    """The backbone's weights as for ``plan``: the downloaded ones below the data dir when None."""
    backbone: str | None = None
    """``FILE.py:FUNCTION`` where a file of one's own makes the backbone; its code is run."""
    device: str = "auto"
    """As for a build."""
    threads: Positive | None = None
    """Threads that read, and on a CPU as many that embed: torch's own number when None, which
    ``OMP_NUM_THREADS`` sets."""
    readers: Positive | None = None
    """Threads that read, where they are not as many as embed."""
    reuse: tuple[AnyPlace, ...] = ()
    """Dataset versions whose embeddings are taken over where image and recipe agree."""


@dataclass(frozen=True, kw_only=True)
class BuiltShard:
    """What a worker answers to an order; the bytes of the shard are in the staging folder."""

    name: str
    finished: FinishedShard
    """The shard's part of the index; its samples are in the staging folder."""
    quarantined: tuple[QuarantinedSample, ...]
    problems: tuple[str, ...]
    """Why each of them is quarantined, for people."""
    turned: frozenset[str]
    """Ids of images whose metadata state an orientation other than upright."""
    reused: int
    """Records whose embeddings were taken from an earlier version."""
    stage_seconds: Mapping[str, float]
    """By stage (``vocprep.building.stages.STAGES``), summed over all threads."""
    notes: tuple[str, ...]
    """Of versions for reuse that are damaged."""


def build_shard(order: ShardOrder, setup: WorkerSetup) -> BuiltShard:
    """Make the shard of an order, stage it in the build's output folder, and describe it.

    A process keeps the backbone from one order to the next, and follows one order at a time. Raises
    UsageError where this machine would make other bytes than the driver's, or where the staging
    folder is of another build; then nothing is written.
    """
    bad = list[tuple[QuarantinedSample, str]]()

    def count(outcome: Outcome[list[Record]]) -> None:
        if outcome.quarantined is not None:
            bad.append((outcome.quarantined, outcome.problem))

    made = build_shards(order, [_placed(order.shard, setup.data_dir)], setup, count)
    return BuiltShard(
        name=order.shard.name,
        finished=made.shards[order.shard.name],
        quarantined=tuple(sample for sample, _ in bad),
        problems=tuple(problem for _, problem in bad),
        turned=frozenset(made.turned),
        reused=made.reused,
        stage_seconds=made.times.seconds(),
        notes=made.notes,
    )


def build_shards(
    order: ShardOrder,
    shards: Iterable[ShardPlan],
    setup: WorkerSetup,
    count: Callable[[Outcome[list[Record]]], None],
) -> MadeShards:
    """Make shards as an order says of its own, and stage them; ``count`` is called per sample.

    They are of one build, and their paths those of this machine. Each is taken when the samples of
    the one before it are being read. Errors are those of ``build_shard``.
    """
    with _one_at_a_time, _torch_threads(setup.threads) as threads:
        devices = choose_devices(setup.device)
        refuse_unfit(order, devices)
        if order.decoder == "nvjpeg":
            check_nvjpeg(devices[0])
        with joined_staging(setup.out, order.build) as staging:
            readers = setup.readers or threads
            options = BuildOptions(device=setup.device, workers=readers, decoder=order.decoder)
            times = StageTimes(STAGES)
            reuse = Reuse(_kept.versions(order, setup))
            stages = SampleStages(
                recipe=order.recipe,
                label_space=order.label_space,
                label_rule=order.label_rule,
                data_dir=setup.data_dir,
                times=times,
                find_embeddings=reuse.find,
            )
            embedders = _kept.embedders(order, setup, devices)
            with ShardWriter(staging, order.layout, times) as writer:
                make_shards(shards, stages, embedders, options, writer, count)
    return MadeShards(
        shards=writer.finished,
        samples=sum(shard.images for shard in writer.finished.values()),
        reused=reuse.found,
        times=times,
        turned=stages.turned,
        notes=tuple(reuse.notes()),
    )


def refuse_unfit(order: ShardOrder, devices: Sequence[torch.device]) -> None:
    """Raise UsageError, naming there and here, where this process would make other bytes."""
    if order.order_version != ORDER_VERSION:
        raise UsageError(
            f"shard order of order_version {order.order_version}: expected {ORDER_VERSION}; use "
            "one release of vocprep on all machines"
        )
    there: dict[str, Any] = {
        "versions": dict(order.versions),
        "numerics_class": dict(order.numerics_class),
        "recipe_id": order.recipe_id,
    }
    here: dict[str, Any] = {
        "versions": versions(),
        "numerics_class": numerics_class(devices, order.decoder, order.recipe.precision),
        "recipe_id": order.recipe.recipe_id,
    }
    network = order.recipe.network
    if network is not None and (library := installed_library(order.recipe.backbone)) is not None:
        there["library"], here["library"] = network.library, library
    differing = differing_fields(there, here)
    if differing:
        raise UsageError(
            f"{order.shard.name}: this machine would make other bytes than the order's, there and "
            f"here: {joined_differences(differing)}; {_advice(differing)}"
        )


def _advice(differing: Sequence[str]) -> str:
    if all(line.startswith("numerics_class.") for line in differing):
        return "use machines of one kind, or build with --precision exact"
    return "install the same versions of all packages on all machines"


def _below(data_dir: Place, sample: SampleRef) -> SampleRef:
    """Return a sample with paths below the data dir; those outside of it stay as they are."""
    image, label = (
        path_below(path, data_dir) or path.absolute()
        for path in (sample.image_path, sample.label_path)
    )
    return replace(sample, image_path=image, label_path=label)


def _placed(shard: ShardPlan, data_dir: Place) -> ShardPlan:
    """Return an order's shard with the paths that its samples have on this machine."""
    samples = tuple(
        replace(
            sample,
            image_path=data_dir / local_path(sample.image_path),
            label_path=data_dir / local_path(sample.label_path),
        )
        for sample in shard.samples
    )
    return replace(shard, samples=samples)


_one_at_a_time = threading.Lock()


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[int]:
    """Let torch use so many threads for a block, and yield how many that are."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield threads or before
    finally:
        torch.set_num_threads(before)


class _Kept:
    """What a process keeps of the last order that it followed: the next is mostly alike."""

    def __init__(self) -> None:
        self._embedders: tuple[object, list[Embedder]] = (None, [])
        self._versions: tuple[object, list[StoredEmbeddings]] = (None, [])

    def embedders(
        self, order: ShardOrder, setup: WorkerSetup, devices: Sequence[torch.device]
    ) -> list[Embedder]:
        """Return the order's backbone on each device."""
        recipe = order.recipe
        key = (recipe.weights_sha256, EmbeddingSpec.of(recipe), list(devices), order.compiled)
        if self._embedders[0] != key:
            self._embedders = (None, [])  # the memory of one goes before that of the next comes
            weights = _load_weights(order, setup)
            components = staged_components(setup.out, recipe)
            made = make_embedders(
                recipe, weights, devices, compiled=order.compiled, components=components
            )
            self._embedders = (key, made)
        return self._embedders[1]

    def versions(self, order: ShardOrder, setup: WorkerSetup) -> list[StoredEmbeddings]:
        """Return the versions whose embeddings may be reused."""
        recipe = order.recipe
        key = (setup.reuse, recipe.embedding_choices, recipe.crops, dict(order.numerics_class))
        if self._versions[0] != key:
            opened = []
            for path in setup.reuse:
                # The lists of the version that is succeeded may be damaged, which its build notes.
                with suppress(ShardError) if path == setup.out else nullcontext():
                    opened.append(StoredEmbeddings.open_fitting(path, recipe, order.numerics_class))
            self._versions = (key, opened)
        return self._versions[1]


_kept = _Kept()


def _load_weights(order: ShardOrder, setup: WorkerSetup) -> dict[str, torch.Tensor]:
    """Return the order's weights; WeightsError where this machine has others."""
    recipe = order.recipe
    allow(setup.backbone, recipe.backbone, recipe.network)
    weights = load_fitting_weights(
        setup.weights,
        setup.data_dir,
        recipe.backbone,
        recipe.normalisation if recipe.precision == "exact" else None,
        recipe.network,
    )
    digest = tensor_digest(weights)
    if digest != recipe.weights_sha256:
        raise WeightsError(
            f"{setup.weights or setup.data_dir}: holds other weights than the order's, digests of "
            f"their tensors there and here: {recipe.weights_sha256[:12]}… and {digest[:12]}…; give "
            "every worker the file that the build was planned with"
        )
    return weights
