"""Building a dataset version in this process, or what is missing of it.

Finished shards wait in a staging folder, where the next run finds them after an interruption, and
get their final names together once all of them are there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from vocprep.building.assemble import assemble
from vocprep.building.describe import size_warning
from vocprep.building.finish import version_notes
from vocprep.building.fitting import fit_key
from vocprep.building.orders import ShardOrder
from vocprep.building.output.components import forget_components
from vocprep.building.output.publish import write_weights_hint
from vocprep.building.output.resume import Existing, find_existing
from vocprep.building.output.store_output import (
    AnyOutput,
    open_place,
    refuse_own_reuse,
    share_place,
)
from vocprep.building.pipeline import (
    COMPILE_FROM,
    FailureBudget,
    ShardWriter,
    is_compiled,
    make_embedders,
    make_shards,
)
from vocprep.building.plan import BuildKey, BuildPlan, ShardPlan, plan
from vocprep.building.processes.build import ProcessesBuild
from vocprep.building.processes.starter import LOWER_MEMORY
from vocprep.building.ray.build import ClusterBuild
from vocprep.building.ray.cluster import check_ray
from vocprep.building.ray.messages import counted
from vocprep.building.results import BuildResult, MadeShards, PartResult, ShardCounts
from vocprep.building.reuse import Reuse
from vocprep.building.stages import STAGES, Outcome, SampleStages
from vocprep.features.devices import choose_devices, numerics_class
from vocprep.features.embed import Embedder
from vocprep.features.on_device.nvjpeg import check_nvjpeg
from vocprep.manifests import DatasetManifest
from vocprep.memory import require_address_space
from vocprep.options import BuildChoices, BuildOptions, Layout, MaxFailures, Part
from vocprep.parallel import StageTimes
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.record import Record
from vocprep.shards.version import Version
from vocprep.storage.places import Place, parse_place

CheckVersion = Callable[[Version, Place], None]
"""Called with a version and the folder of its shards before it is published; an
exception keeps the version from being published."""


def build(  # noqa: PLR0913  # where from, where to, three groups of options, progress
    dataset: str | Path | DatasetManifest,
    *,
    out: str | Place,
    data_dir: str | Place | None = None,
    weights: str | Path | None = None,
    choices: BuildChoices | None = None,
    layout: Layout | None = None,
    options: BuildOptions | None = None,
    progress: Progress = NO_PROGRESS,
) -> BuildResult | PartResult:
    """Build a dataset version in the folder or URL ``out``, or what is missing of it.

    With ``options.part`` only the shards of that part are made, and nothing is published.
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
    out: str | Place,
    options: BuildOptions | None = None,
    *,
    progress: Progress = NO_PROGRESS,
    check: CheckVersion = lambda _version, _folder: None,
) -> BuildResult | PartResult:
    """Build what is missing of a planned dataset version, or of a part, in a folder or URL.

    No file gets its final name before every shard is made; dataset.json comes last. On any error
    ``out`` still holds what it held, and finished shards are kept for the next run. In an object
    store shards have their final names at once, and a version is never changed in place. Raises
    FailureBudgetError when more samples are quarantined than ``options.max_failures`` allows.
    """
    out, options = parse_place(out), options or BuildOptions()
    require_address_space(LOWER_MEMORY)
    refuse_own_reuse(out, options)
    if options.part is not None:
        return _build_part(plan, options.part, out, options, progress)
    started = time.perf_counter()
    key, devices = _key(plan, options)
    key = fit_key(key, out, options, devices, progress)
    plan = key.plan
    progress.begin("images", len(plan.samples), 0)
    try:
        with open_place(out, key, options.if_exists, progress.note) as output:
            run = _Run(
                key=key,
                output=output,
                devices=devices,
                options=options,
                budget=FailureBudget(plan, options.max_failures),
            )
            version, made = run.make_version(check, progress)
    finally:
        progress.end()
    return BuildResult(
        path=out,
        index=version.index,
        images=len(plan.samples),
        made=made.samples,
        reused=made.reused,
        shards=made.counts,
        seconds=time.perf_counter() - started,
        stage_seconds=made.times.seconds(),
        published=made.published,
        notes=(
            *plan.notes,
            *version_notes(version.index, plan.label_space, made.turned),
            *made.notes,
        ),
    )


def _build_part(
    plan: BuildPlan, part: Part, out: Place, options: BuildOptions, progress: Progress
) -> PartResult:
    """Make the shards of one part beside processes that make the others."""
    started = time.perf_counter()
    whole, devices = _key(plan, options)
    own = fit_key(whole, out, options, devices, progress).plan.restricted(part)
    key = replace(whole, plan=own)
    progress.begin("images", len(own.samples), 0)
    try:
        with share_place(out, key, progress.note) as output:
            run = _Run(
                key=key,
                output=output,
                devices=devices,
                options=options,
                budget=FailureBudget(plan, options.max_failures),
                size=len(plan.samples),  # so that all parts make the same choice
            )
            existing, made = run.make_missing(progress)
            staged = {name for name, _ in output.staging.shards()}
            missing = {
                number: shard.name
                for number, shard in enumerate(plan.shards)
                if existing.version is None and shard.name not in staged
            }
    finally:
        progress.end()
    return PartResult(
        path=out,
        part=part,
        shards=tuple(shard.name for shard in own.shards),
        missing=tuple(missing.values()),
        unfinished=tuple(part.beside(missing)),
        images=len(own.samples),
        made=made.samples,
        reused=made.reused,
        quarantined=run.budget.spent,
        seconds=time.perf_counter() - started,
        stage_seconds=made.times.seconds(),
        notes=made.notes,
    )


def shard_orders(
    plan: BuildPlan, out: str | Place, options: BuildOptions | None = None
) -> list[ShardOrder]:
    """Begin a build in a folder or URL for workers of one's own: an order per missing shard.

    ``build_shard`` follows them, in any processes that share ``out``, and ``build`` publishes
    the version. Of the options, those count that decide bytes and devices. Errors are those of
    ``build_plan``.
    """
    out, options = parse_place(out), options or BuildOptions()
    key, devices = _key(plan, options)
    key = fit_key(key, out, options, devices, NO_PROGRESS)
    plan = key.plan
    compiled = is_compiled(plan.recipe, len(plan.samples), options)
    with share_place(out, key) as output:
        existing = find_existing(key, output, options.workers, set())
    missing = [shard for shard in plan.shards if shard.name not in existing.shards]
    chosen = missing if existing.version is None else []
    return [ShardOrder.of(key, shard, options.decoder, compiled=compiled) for shard in chosen]


def _key(plan: BuildPlan, options: BuildOptions) -> tuple[BuildKey, list[torch.device]]:
    """Return what decides the bytes that a build makes here, and the devices that compute them."""
    if options.engine == "ray":
        check_ray(options)
    devices = choose_devices(options.device)
    if options.decoder == "nvjpeg":
        check_nvjpeg(devices[0])
    made_in = numerics_class(devices, options.decoder, plan.recipe.precision)
    return BuildKey(plan=plan, numerics_class=made_in), devices


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run of a build: what it makes, where, and on which devices."""

    key: BuildKey
    output: AnyOutput
    devices: Sequence[torch.device]
    options: BuildOptions
    budget: FailureBudget
    size: int | None = None
    """Images by whose number it is decided whether compiling pays; those to be made when None."""

    def make_version(self, check: CheckVersion, progress: Progress) -> tuple[Version, MadeShards]:
        """Return the version that the output folder then holds, and what was made of it now."""
        plan, output = self.key.plan, self.output
        existing, made = self.make_missing(progress)
        if existing.version is not None:
            check(existing.version, output.path)
            write_weights_hint(output.path, plan)
            output.staging.remove()
            forget_components(output.path)
            return existing.version, made
        shards = {**existing.shards, **made.shards}
        in_order = {shard.name: shards[shard.name] for shard in plan.shards}
        staging = output.staging
        version = assemble(self.key, in_order, staging.samples, staging.path, made.times.seconds())
        check(version, output.made_at)
        output.publish(version, plan)
        forget_components(output.path)
        return version, made

    def make_missing(self, progress: Progress) -> tuple[Existing, MadeShards]:
        """Make the shards that are not there yet; return what was there, and what was made."""
        plan, turned = self.key.plan, set[str]()
        existing = find_existing(self.key, self.output, self.options.workers, turned)
        self.budget.spend(*existing.quarantined)
        if existing.version is not None:
            progress.advance(len(plan.samples))
            counts = ShardCounts(kept=len(plan.shards))
            return existing, MadeShards(published=False, turned=turned, counts=counts)
        missing = [shard for shard in plan.shards if shard.name not in existing.shards]
        if missing and (warning := size_warning(plan.recipe)) is not None:
            progress.note(f"warning: {warning}")
        made = self._make(missing, turned, progress)
        made.notes = (*existing.notes, *made.notes)
        made.counts = ShardCounts(
            made=len(missing),
            resumed=len(existing.shards) - existing.kept,
            kept=existing.kept,
        )
        return existing, made

    def _make(
        self, missing: Sequence[ShardPlan], turned: set[str], progress: Progress
    ) -> MadeShards:
        """Make shards in this process, in several of this machine, or on a cluster."""
        elsewhere: type[ClusterBuild | ProcessesBuild]
        if self.options.engine == "ray":
            elsewhere = ClusterBuild
        elif self._processes_for(missing, progress.note) > 1:
            elsewhere = ProcessesBuild
        else:
            return self.make_shards(missing, turned, progress)
        there = elsewhere(
            key=self.key,
            output=self.output,
            devices=self.devices,
            options=self.options,
            budget=self.budget,
        )
        made = there.make_shards(missing, progress)
        made.turned |= turned
        made.notes = (*self.output.notes, *made.notes)
        return made

    def _processes_for(self, missing: Sequence[ShardPlan], note: Callable[[str], None]) -> int:
        """Return how many of the processes have a shard to make."""
        wanted = self.options.processes
        used = min(wanted, len(missing))
        if 0 < used < wanted:
            note(f"{counted(used, 'shard')} to make, by {used} of {wanted} processes")
        return used

    def make_shards(
        self, missing: Sequence[ShardPlan], turned: set[str], progress: Progress
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
            label_rule=plan.label_rule,
            data_dir=plan.data_dir,
            times=times,
            find_embeddings=reuse.find,
            turned=turned,
        )

        def count(outcome: Outcome[list[Record]]) -> None:
            progress.advance(1)
            if outcome.quarantined is not None:
                self.budget.spend(outcome.quarantined, problem=outcome.problem)

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
        compiled = is_compiled(plan.recipe, self.size or samples, options)
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
            components=plan.components,
        )
