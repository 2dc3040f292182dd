"""The part of a build that a Ray cluster does: from the shards that are missing to staged ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from vocprep.building.handing_out import worker_setup
from vocprep.building.orders import BuiltShard, ShardOrder
from vocprep.building.output.sources import digest_sources
from vocprep.building.output.store_output import AnyOutput
from vocprep.building.pipeline import FailureBudget, is_compiled
from vocprep.building.plan import BuildKey, ShardPlan
from vocprep.building.ray.cluster import RayCluster, task_of
from vocprep.building.ray.messages import counted
from vocprep.building.results import MadeShards
from vocprep.errors import DataError
from vocprep.options import BuildOptions
from vocprep.progress import Progress
from vocprep.shards.samples import pair_digests

ARRIVAL_SECONDS = 40.0
"""How long a shard that a node has written may take to be seen here: network file systems keep
what they know of a folder for 30 seconds."""


@dataclass(frozen=True, kw_only=True)
class ClusterBuild:
    """A build whose shards a Ray cluster makes."""

    key: BuildKey
    output: AnyOutput
    devices: Sequence[torch.device]
    """What this machine would compute on."""
    options: BuildOptions
    budget: FailureBudget

    def make_shards(self, missing: Sequence[ShardPlan], progress: Progress) -> MadeShards:
        """Make shards on the nodes, which put them into the staging folder."""
        made = MadeShards(samples=sum(len(shard.samples) for shard in missing))
        if not missing:
            return made
        plan, options = self.key.plan, self.options
        planned = {shard.name: shard for shard in missing}
        task = task_of(options, on_gpu=self.devices[0].type == "cuda")
        setup = replace(
            worker_setup(self.key, self.output, options.reuse),
            device="cuda" if task.gpus else "cpu",
            threads=max(1, int(task.cpus)),
        )
        bar = _NodeBar(progress, len(plan.samples), len(plan.samples) - made.samples)
        with RayCluster(task, progress.note) as cluster:
            bar.advance(0, cluster.nodes)
            compiled = is_compiled(plan.recipe, made.samples // cluster.room, options)
            orders = (
                ShardOrder.of(self.key, shard, options.decoder, compiled=compiled)
                for shard in missing
            )
            for node, built in cluster.build(orders, setup):
                self._check(node, built, planned[built.name])
                _add(made, built)
                bar.advance(len(planned[built.name].samples), cluster.nodes)
        return made

    def _check(self, node: str, built: BuiltShard, shard: ShardPlan) -> None:
        """Count a shard's quarantined samples; DataError where its node sees other files."""
        if not self._has_arrived(built):
            raise DataError(
                f"{self.output.made_at / built.name}: Ray node {node} has written it, and "
                "this machine does not see it; give an --out that all nodes and this machine share"
            )
        if not built.finished.quarantined:
            return
        quarantined = self.output.staging.samples(built.name, built.finished).read_quarantined()
        there = pair_digests(quarantined)
        bad = tuple(sample for sample in shard.samples if sample.image_id in there)
        again = digest_sources([replace(shard, samples=bad)], self.options.workers, set())
        for _, image_id, here in again:
            if here != there[image_id]:
                raise DataError(
                    f"{image_id}: Ray node {node} could not use its files, which are others than "
                    f"those of this machine; share {self.key.plan.data_dir} with all nodes"
                )
        for sample, problem in zip(quarantined, built.problems, strict=True):
            self.budget.spend(sample, problem=problem)

    def _has_arrived(self, built: BuiltShard) -> bool:
        """Return whether a shard is in the staging folder, waiting for it if need be."""
        ends = time.monotonic() + ARRIVAL_SECONDS
        while not self.output.staging.holds(built.name, built.finished):
            if time.monotonic() > ends:
                return False
            time.sleep(0.5)
        return True


def _add(made: MadeShards, built: BuiltShard) -> None:
    """Count a shard, and what it took, among those that were made."""
    made.shards[built.name] = built.finished
    made.reused += built.reused
    made.turned |= built.turned
    for stage, seconds in built.stage_seconds.items():
        made.times.add(stage, seconds)
    made.notes += tuple(note for note in built.notes if note not in made.notes)


class _NodeBar:
    """A progress bar named after the number of nodes."""

    def __init__(self, progress: Progress, total: int, done: int) -> None:
        self._progress, self._total, self._done = progress, total, done
        self._nodes = 0

    def advance(self, images: int, nodes: int) -> None:
        """Add images that are done, and show how many nodes there are."""
        self._done += images
        if nodes == self._nodes:
            self._progress.advance(images)
            return
        self._nodes = nodes
        self._progress.end()
        self._progress.begin(f"images on {counted(nodes, 'node')}", self._total, self._done)
