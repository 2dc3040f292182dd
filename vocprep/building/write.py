"""Records made elsewhere as a dataset version: for one's own features, and for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vocprep.building.finish import finish_shard
from vocprep.building.plan import BuildPlan, ShardPlan
from vocprep.building.publish import assemble
from vocprep.building.stage_times import StageTimes
from vocprep.building.staging import BuildKey
from vocprep.errors import UsageError
from vocprep.files import write_atomic
from vocprep.labels.label_space import load_label_space
from vocprep.options import Layout
from vocprep.recipe import Recipe
from vocprep.shards.containers import CONTAINERS
from vocprep.shards.index import DatasetIndex, has_index, write_index
from vocprep.shards.record import Record


def write_dataset(
    out: Path,
    recipe: Recipe,
    splits: Mapping[str, Sequence[Record]],
    layout: Layout | None = None,
    numerics_class: Mapping[str, str] | None = None,
) -> DatasetIndex:
    """Write records, in the order given, as a dataset version, and return its index.

    ``recipe`` says what the records are; ``numerics_class`` what computed their embeddings.
    UsageError when ``out`` holds a version already.
    """
    if has_index(out):
        raise UsageError(f"{out}: holds a finished dataset; choose another folder")
    layout = layout or Layout()
    out.mkdir(parents=True, exist_ok=True)
    plan = BuildPlan(
        data_dir=out,
        recipe=recipe,
        schema=load_label_space(recipe.schema.name),
        layout=layout,
        weights={},
        weights_label="made elsewhere",
        shards=(),
    )
    suffix = CONTAINERS[layout.format].suffix
    shards = []
    for split, records in splits.items():
        count = -(-len(records) // layout.samples_per_shard)
        for number in range(count):
            first = number * layout.samples_per_shard
            name = f"{split}-{number:05d}-of-{count:05d}{suffix}"
            data, shard = finish_shard(
                ShardPlan(name=name, split=split, samples=()),
                records[first : first + layout.samples_per_shard],
                [],
                layout,
            )
            write_atomic(out / name, data)
            shards.append(shard)
    key = BuildKey(plan=plan, numerics_class=dict(numerics_class or {}))
    version = assemble(key, shards, StageTimes())
    for name, data in version.files.items():
        write_atomic(out / name, data)
    write_index(out, version.index)
    return version.index
