"""Dataset versions made of given records, for tests that need no pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from vocprep.labels.schema import load_schema
from vocprep.recipe import Layout, Recipe
from vocprep.shards.accounts import Accounts
from vocprep.shards.finish import finish_shard
from vocprep.shards.index import DatasetIndex, container_of, write_index
from vocprep.shards.plan import BuildPlan, ShardPlan
from vocprep.shards.publish import assemble
from vocprep.shards.record import Record
from vocprep.shards.staging import BuildKey


def write_dataset(
    out: Path,
    recipe: Recipe,
    splits: Mapping[str, Sequence[Record]],
    layout: Layout | None = None,
) -> DatasetIndex:
    """Write the records, cut into shards as they come, with all the files that belong to them."""
    layout = layout or Layout()
    out.mkdir(parents=True, exist_ok=True)
    shards = []
    for split, records in splits.items():
        count = -(-len(records) // layout.samples_per_shard)
        for number in range(count):
            first = number * layout.samples_per_shard
            part = records[first : first + layout.samples_per_shard]
            name = f"{split}-{number:05d}-of-{count:05d}{container_of(layout.format).SUFFIX}"
            plan = ShardPlan(name=name, split=split, samples=())
            data, shard = finish_shard(plan, part, [], layout)
            (out / name).write_bytes(data)
            shards.append(shard)
    version = assemble(
        BuildKey(
            plan=BuildPlan(
                data_dir=Path("data"),
                recipe=recipe,
                schema=load_schema(recipe.schema.name),
                layout=layout,
                weights={},
                weights_label="made",
                shards=(),
            ),
            numerics_class={"torch": "2"},
        ),
        shards,
        Accounts(),
    )
    for name, data in version.files.items():
        (out / name).write_bytes(data)
    write_index(out, version.index)
    return version.index


def version_bytes(folder: Path) -> dict[str, bytes]:
    """All files of a folder by name, but for the lock and for how long the build took."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    try:
        index = json.loads(found["dataset.json"])
        del index["statistics"]["seconds"], index["index_sha256"]
        found["dataset.json"] = json.dumps(index).encode()
    except (KeyError, ValueError):  # there is none, or a test has damaged it
        pass
    return found
