"""Building a dataset version in this process, or what is missing of it.

Finished shards wait in a staging folder, where the next run finds them after an interruption, and
get their final names together once all of them are there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from vocprep.building.assemble import assemble
from vocprep.building.finish import FinishedShard, version_notes
from vocprep.building.pipeline import (
    COMPILE_FROM,
    FailureBudget,
    ShardWriter,
    is_compiled,
    make_embedders,
    make_shards,
)
from vocprep.building.plan import BuildKey, BuildPlan, ShardPlan, plan
from vocprep.building.publish import Output, open_output, publish, write_weights_hint
from vocprep.building.resume import find_existing
from vocprep.building.reuse import Reuse
from vocprep.building.stages import STAGES, Outcome, SampleStages
from vocprep.features.devices import choose_devices, numerics_class
from vocprep.features.embed import Embedder
from vocprep.features.nvjpeg import check_nvjpeg
from vocprep.manifests import DatasetManifest
from vocprep.options import BuildChoices, BuildOptions, Layout, MaxFailures
from vocprep.parallel import StageTimes
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.index import DatasetIndex
from vocprep.shards.record import Record
from vocprep.shards.version import Version
from vocprep.storage.places import local_path

CheckVersion = Callable[[Version, Path], None]
"""Called with a version and the folder of its shards before any file of it has its final name; an
exception keeps the version from being published."""


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """A finished dataset version, and what making it took."""

    path: Path
    index: DatasetIndex
    """dataset.json of the version."""
    images: int
    """Images of the version, quarantined ones included."""
    made: int
    """Those of them that this build had to process; 0 when the folder was up to date."""
    reused: int
    """Records whose embeddings were taken from an earlier version."""
    seconds: float
    """Of the whole build."""
    stage_seconds: Mapping[str, float]
    """By stage (``vocprep.building.stages.STAGES``), summed over all threads."""
    notes: tuple[str, ...] = ()
    """What is odd about the version as a whole, what was damaged of an earlier one, and allowed
    deviations from a lock file."""

    def __repr__(self) -> str:
        return (
            f"BuildResult('{self.path}': {self.index.short_id}, {self.images:,} images, "
            f"{self.made:,} made, {self.seconds:.1f} s)"
        )

    @property
    def up_to_date(self) -> bool:
        """Whether nothing had to be made."""
        return self.made == 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: those of dataset.json, and the notes."""
        return {**self.index.model_dump(mode="json"), "notes": list(self.notes)}


def build(  # noqa: PLR0913  # where from, where to, three groups of options, progress
    dataset: str | Path | DatasetManifest,
    *,
    out: str | Path,
    data_dir: str | Path | None = None,
    weights: str | Path | None = None,
    choices: BuildChoices | None = None,
    layout: Layout | None = None,
    options: BuildOptions | None = None,
    progress: Progress = NO_PROGRESS,
) -> BuildResult:
    """Build a dataset version into the folder ``out``, or what is missing or has changed of it.

    ``dataset``, ``data_dir``, ``weights``, ``choices`` and ``layout`` are those of ``plan``; errors
    are those of ``plan`` and ``build_plan``.
    """
    options = options or BuildOptions()
    decided = plan(
        dataset,
        data_dir=data_dir,
        weights=weights,
        choices=choices,
        layout=layout,
        allow_missing=options.max_failures != MaxFailures(),
    )
    return build_plan(decided, out, options, progress=progress)


def build_plan(
    plan: BuildPlan,
    out: str | Path,
    options: BuildOptions | None = None,
    *,
    progress: Progress = NO_PROGRESS,
    check: CheckVersion = lambda _version, _folder: None,
) -> BuildResult:
    """Build what is missing of a planned dataset version in the folder ``out``.

    No file gets its final name before every shard is made; dataset.json comes last. On any error
    ``out`` still holds what it held, and finished shards are kept for the next run. Raises
    FailureBudgetError when more samples are quarantined than ``options.max_failures`` allows.
    """
    started = time.perf_counter()
    out, options = local_path(out), options or BuildOptions()
    devices = choose_devices(options.device)
    if options.decoder == "nvjpeg":
        check_nvjpeg(devices[0])
    made_in = numerics_class(devices, options.decoder, plan.recipe.precision)
    key = BuildKey(plan=plan, numerics_class=made_in)
    progress.begin("images", len(plan.samples), 0)
    try:
        with open_output(out, key, options.if_exists, progress.note) as output:
            run = _Run(key=key, output=output, devices=devices, options=options)
            version, made = run.make_version(check, progress)
    finally:
        progress.end()
    return BuildResult(
        path=out,
        index=version.index,
        images=len(plan.samples),
        made=made.samples,
        reused=made.reused,
        seconds=time.perf_counter() - started,
        stage_seconds=made.times.seconds(),
        notes=(*version_notes(version.index, plan.label_space, made.turned), *made.notes),
    )


@dataclass(kw_only=True)
class MadeShards:
    """Shards that a run made, and what it took."""

    shards: dict[str, FinishedShard] = field(default_factory=dict)
    """By name; their bytes are in the staging folder."""
    samples: int = 0
    reused: int = 0
    """Records whose embeddings were taken from an earlier version."""
    times: StageTimes = field(default_factory=lambda: StageTimes(STAGES))
    turned: set[str] = field(default_factory=set)
    """Ids of images whose metadata state an orientation other than upright."""
    notes: tuple[str, ...] = ()
    """Why something that was there already was made again."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run of a build: what it makes, where, and on which devices."""

    key: BuildKey
    output: Output
    devices: Sequence[torch.device]
    options: BuildOptions

    def make_version(self, check: CheckVersion, progress: Progress) -> tuple[Version, MadeShards]:
        """Return the version that the output folder then holds, and what was made of it now."""
        plan, output = self.key.plan, self.output
        budget = FailureBudget(plan, self.options.max_failures)
        turned: set[str] = set()
        existing = find_existing(self.key, output, self.options.workers, turned)
        budget.spend(*existing.quarantined)
        if existing.version is not None:
            progress.advance(len(plan.samples))
            check(existing.version, output.path)
            write_weights_hint(output.path, plan)
            output.staging.remove()
            return existing.version, MadeShards(turned=turned)
        missing = [shard for shard in plan.shards if shard.name not in existing.shards]
        made = self.make_shards(missing, budget, turned, progress)
        shards = {**existing.shards, **made.shards}
        in_order = {shard.name: shards[shard.name] for shard in plan.shards}
        staging = output.staging
        version = assemble(self.key, in_order, staging.samples, staging.path, made.times.seconds())
        check(version, staging.path)
        publish(output, version, plan)
        return version, made

    def make_shards(
        self,
        missing: Sequence[ShardPlan],
        budget: FailureBudget,
        turned: set[str],
        progress: Progress,
    ) -> MadeShards:
        """Make shards one after the other, and put each into the staging folder.

        Threads read and draft samples, threads embed them (``make_records``), one thread encodes
        and writes a shard while the next is made (``ShardWriter``).
        """
        plan, times = self.key.plan, StageTimes(STAGES)
        samples = sum(len(shard.samples) for shard in missing)
        progress.advance(len(plan.samples) - samples)
        reuse = Reuse.open(self.key, self.output, self.options.reuse)
        stages = SampleStages(
            recipe=plan.recipe,
            label_space=plan.label_space,
            data_dir=plan.data_dir,
            times=times,
            find_embeddings=reuse.find,
            turned=turned,
        )

        def count(outcome: Outcome[list[Record]]) -> None:
            progress.advance(1)
            if outcome.quarantined is not None:
                budget.spend(outcome.quarantined, problem=outcome.problem)

        embedders = self.make_embedders(samples, progress.note) if samples else []
        with ShardWriter(self.output.staging, plan.layout, times) as writer:
            make_shards(missing, stages, embedders, self.options, writer, count)
        return MadeShards(
            shards=writer.finished,
            samples=samples,
            reused=reuse.found,
            times=times,
            turned=turned,
            notes=(*self.output.notes, *reuse.notes()),
        )

    def make_embedders(self, samples: int, note: Callable[[str], None]) -> list[Embedder]:
        """Return the backbone on each device, for so many images."""
        plan, options = self.key.plan, self.options
        compiled = is_compiled(plan.recipe, samples, options)
        if compiled and options.compiled is None:
            note(
                "compiling the backbone first, which pays from "
                f"{COMPILE_FROM[plan.recipe.precision]:,} views on in {plan.recipe.precision}"
            )
        return make_embedders(
            plan.recipe,
            plan.weights,
            self.devices,
            compiled=compiled,
            required=bool(options.compiled),
        )
