"""What a build would make, without making any of it: ``build-shards --dry-run``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocprep.building.memory_needs import MemoryNeeds
from vocprep.building.pipeline import FailureBudget, is_compiled
from vocprep.building.plan import BuildPlan, plan
from vocprep.building.stages import Outcome, SampleStages, begin
from vocprep.data_dir.layout import SampleRef
from vocprep.features.libraries.maps import SENSIBLE_SIZE
from vocprep.geometry import PATCH, SIDE, Grid
from vocprep.manifests import DatasetManifest
from vocprep.options import BuildChoices, BuildOptions, Layout, MaxFailures
from vocprep.parallel import map_ordered
from vocprep.recipe import Recipe
from vocprep.storage.places import Place


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """One shard that a build makes."""

    name: str
    samples: int


@dataclass(frozen=True, kw_only=True)
class PlanDescription:
    """What a build would make."""

    recipe: str
    """The recipe's short name."""
    recipe_id: str | None
    """None where the recipe is complete with the build, which fits the matrix of ``pca`` first."""
    weights: str
    """Where the backbone's weights come from, for people."""
    compiled: bool
    """Whether the backbone would be compiled."""
    samples: int
    unreadable: int
    """Samples that would be quarantined, as far as can be seen without decoding anything."""
    patches: int
    """Patches of all readable samples, over all views."""
    embedding_size: int
    """D, the numbers per patch."""
    backbone_size: int
    """Those that the backbone gives, before any reduction."""
    bytes_per_image: int
    """Of the embeddings of an image, on average, over all views."""
    estimated_bytes: int
    """About how large the shards would be."""
    warning: str | None
    """What is unusual about the embeddings, if anything."""
    shards: tuple[PlannedShard, ...]
    processes: int
    """Processes that would make them."""
    memory_per_process: int
    """About how many bytes each of them would take, without what they share."""
    memory: int
    """About how many bytes the whole build would take."""
    part: str | None = None
    """Which part of a build this is, as ``I/N``; all numbers are its own."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "shards": [asdict(shard) for shard in self.shards]}


def describe_build(
    dataset: str | Path | DatasetManifest,
    *,
    data_dir: str | Place | None = None,
    weights: str | Path | None = None,
    choices: BuildChoices | None = None,
    layout: Layout | None = None,
    options: BuildOptions | None = None,
) -> PlanDescription:
    """Return what ``build`` would make of the same arguments, without writing anything.

    Errors are those of ``plan`` and ``describe_plan``.
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
    return describe_plan(decided, options)


def describe_plan(plan: BuildPlan, options: BuildOptions | None = None) -> PlanDescription:
    """Return what a build by this plan would make.

    Native geometry reads every image's header. Raises FailureBudgetError when more samples cannot
    be read than ``options.max_failures`` allows, as the build itself would.
    """
    options = options or BuildOptions()
    images = len(plan.samples) // max(1, min(options.processes, len(plan.shards)))
    compiled = is_compiled(plan.recipe, images, options)
    stages = SampleStages(recipe=plan.recipe, label_space=plan.label_space, data_dir=plan.data_dir)
    budget = FailureBudget(plan, options.max_failures)
    plan = plan.restricted(options.part)

    def measure(sample: SampleRef) -> Outcome[Grid]:
        return begin(sample).then(stages.measure_grid)

    patches = unreadable = 0
    for outcome in map_ordered(measure, plan.samples, options.workers):
        if outcome.quarantined is not None:
            unreadable += 1
            budget.spend(outcome.quarantined, problem=outcome.problem)
        elif outcome.made is not None:
            patches += outcome.made[0] * outcome.made[1]
    patches *= len(plan.recipe.record_views)
    readable = len(plan.samples) - unreadable
    estimated = estimate_bytes(patches, plan.recipe)
    processes = max(1, min(options.processes, len(plan.shards)))
    needs = MemoryNeeds.of(plan, estimated // max(1, readable), processes, options.workers)
    return PlanDescription(
        recipe=plan.recipe.short_name,
        recipe_id=plan.recipe.recipe_id if plan.recipe.is_complete else None,
        weights=plan.weights_label,
        compiled=compiled,
        samples=len(plan.samples),
        unreadable=unreadable,
        patches=patches,
        embedding_size=plan.recipe.embedding_size,
        backbone_size=plan.recipe.backbone_size,
        bytes_per_image=patches * _embedding_bytes(plan.recipe) // max(1, readable),
        estimated_bytes=estimated,
        warning=size_warning(plan.recipe),
        shards=tuple(
            PlannedShard(name=shard.name, samples=len(shard.samples)) for shard in plan.shards
        ),
        processes=processes,
        memory_per_process=needs.per_process,
        memory=needs.total,
        part=None if options.part is None else str(options.part),
    )


def estimate_bytes(patches: int, recipe: Recipe) -> int:
    """Return about how large the shards will be: exact but for the compressed label maps."""
    targets = 4 * 2 + 4 * 2 + 1 + 3 * 128
    label_map = PATCH * PATCH // 16  # pixels that real label maps take a byte for, as PNG
    return patches * (_embedding_bytes(recipe) + targets + label_map)


def size_warning(recipe: Recipe) -> str | None:
    """Return a warning of embeddings so long that shards and training become slow, if they are."""
    if recipe.embedding_size <= SENSIBLE_SIZE:
        return None
    patches = (SIDE // PATCH) ** 2
    return (
        f"{recipe.embedding_size:,} numbers per patch, more than {SENSIBLE_SIZE:,}: "
        f"{patches * _embedding_bytes(recipe):,} bytes per picture of {patches} patches; fewer "
        "--layers or --cells, --project D:SEED or --pca D make them fewer"
    )


def _embedding_bytes(recipe: Recipe) -> int:
    """Return the bytes of the embedding of one patch."""
    return recipe.embedding_size * np.dtype(recipe.embedding_dtype).itemsize
