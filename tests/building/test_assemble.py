"""Assembling versions: lists in the order of ids, from shards in any order, in little memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from builders.records import make_record
from builders.versions import make_plan
from hypothesis import given
from hypothesis import strategies as st

from vocprep.building.assemble import assemble
from vocprep.building.finish import FinishedShard, ShardSamples
from vocprep.building.output.publish import write_dataset
from vocprep.building.plan import BuildKey
from vocprep.errors import UsageError
from vocprep.labels.label_space import load_label_space
from vocprep.options import Layout
from vocprep.recipe import LabelSpaceId, Recipe, SplitIds
from vocprep.shards.identity import Identities
from vocprep.shards.record import Record
from vocprep.shards.samples import QuarantinedSample, SampleEntry
from vocprep.shards.version import Version

RECORD = make_record("any", (1, 1))
SPLITS = st.lists(
    st.tuples(st.sampled_from(["train", "val", "test"]), st.integers(0, 99)),
    min_size=1,
    max_size=12,
    unique_by=lambda item: item[1],
)


def write(out: Path, splits: dict[str, list[str]], samples_per_shard: int = 2) -> None:
    """Write records of these ids as a version."""
    schema = load_label_space("context460")
    recipe = Recipe(
        dataset="made",
        schema=LabelSpaceId(name="context460", sha256=schema.sha256),
        splits={split: SplitIds.of(ids) for split, ids in splits.items()},
        backbone="resnet32-cifar100",
        weights_sha256="00" * 32,
    )
    records: dict[str, Sequence[Record]] = {
        split: [make_record(each, (1, 1), split=split) for each in ids]
        for split, ids in splits.items()
    }
    write_dataset(out, recipe, records, Layout(samples_per_shard=samples_per_shard))


@pytest.mark.slow
@given(SPLITS)
def test_samples_of_all_shards_are_listed_in_the_order_of_ids(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, int]]
) -> None:
    out = tmp_path_factory.mktemp("made")
    splits: dict[str, list[str]] = {}
    for split, number in members:
        splits.setdefault(split, []).append(f"{number:02d}")
    write(out, splits)
    lines = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == sorted(f"{number:02d}" for _, number in members)
    version = Version.read(out)
    found = Identities.of(version.samples, [])
    assert found.content_id == version.index.content_id
    assert found.source_id == version.index.source_id
    assert found.targets_id == version.index.targets_id


@pytest.mark.parametrize("splits", [{"train": ["a", "b"], "val": ["b"]}, {"train": ["a", "a"]}])
def test_records_of_one_id_are_refused(splits: dict[str, list[str]], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"record (a|b): is given twice; expected records of"):
        write(tmp_path / "out", splits, samples_per_shard=1)
    assert not (tmp_path / "out" / "dataset.json").exists()


def finished(split: str, first: int, count: int) -> tuple[FinishedShard, ShardSamples]:
    """A shard of many records, every tenth of which is quarantined."""
    ids = [f"{number:07d}" for number in range(first, first + count)]
    records = [
        SampleEntry.of(RECORD, f"{split}-{first}", row).model_copy(update={"id": each})
        for row, each in enumerate(ids)
        if row % 10
    ]
    bad = [
        QuarantinedSample(id=each, split=split, stage="read", file=f"{each}.jpg", reason="gone")
        for each in ids[::10]
    ]
    return FinishedShard.of(split, None, [*records, *bad]), ShardSamples.of(records, bad)


@pytest.mark.slow
def test_memory_of_assembling_does_not_grow_with_the_samples(
    sample_tree: Path, tmp_path: Path
) -> None:
    """Of 20 shards with 250 samples each, and of 80: samples.jsonl has 2.6 and 10 MB."""
    key = BuildKey(plan=make_plan(sample_tree), numerics_class={})
    peaks, sizes = [], []
    for count in (20, 80):
        shards = {
            f"{split}-{number}": finished(split, 1_000_000 * (split == "val") + number * 250, 250)
            for split in ("train", "val")
            for number in range(count // 2)
        }
        stored = {name: samples for name, (_, samples) in shards.items()}
        folder = tmp_path / str(count)
        folder.mkdir()
        tracemalloc.start()
        try:
            version = assemble(
                key,
                {name: shard for name, (shard, _) in shards.items()},
                lambda name, _shard, stored=stored: stored[name],
                folder,
                {},
            )
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        sizes.append((folder / "samples.jsonl").stat().st_size)
        assert version.index.quarantined == 25 * count
    assert sizes[1] > 9_000_000
    assert peaks[1] < 2_000_000
