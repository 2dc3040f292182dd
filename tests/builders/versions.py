"""Building small dataset versions for the tests of shards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vocprep.building.local import build_dataset
from vocprep.building.plan import BuildPlan, plan_build
from vocprep.manifests import load_dataset
from vocprep.options import BuildChoices, BuildOptions, Layout, MaxFailures
from vocprep.shards.index import DatasetIndex
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record

WEIGHTS = "random:0"
ENGINE = BuildOptions(device="cpu", workers=1)


@dataclass(frozen=True)
class Built:
    """A finished dataset version with the plan that it came from."""

    plan: BuildPlan
    path: Path
    index: DatasetIndex

    @property
    def dataset(self) -> ShardDataset:
        return ShardDataset.open(self.path)

    @property
    def records(self) -> dict[str, Record]:
        """All records by id, in the order of the shards."""
        dataset = self.dataset
        return {
            record.image_id: record
            for shard in self.index.shards
            for record in dataset.read_shard(shard.name, all_views=True)
        }


def make_plan(
    tree: Path, choices: BuildChoices | None = None, layout: Layout | None = None
) -> BuildPlan:
    dataset = load_dataset("pascal-context")
    return plan_build(dataset, tree, WEIGHTS, choices or BuildChoices(), layout or Layout())


def build(
    tree: Path,
    out: Path,
    choices: BuildChoices | None = None,
    layout: Layout | None = None,
    *,
    max_failures: int = 0,
) -> Built:
    plan = make_plan(tree, choices, layout)
    options = replace(ENGINE, max_failures=MaxFailures(count=max_failures))
    return Built(plan, out, build_dataset(plan, out, options))
