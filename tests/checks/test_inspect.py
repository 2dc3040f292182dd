"""What a version is and holds, summed up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.versions import Built

import vocprep
from vocprep.checks.inspect import inspect
from vocprep.errors import ShardError


def test_sums_are_those_of_the_records(two_views: Built) -> None:
    found = inspect(str(two_views.path))
    assert found.index == two_views.index
    assert found.short_id == two_views.index.short_id
    assert found.bytes == sum(path.stat().st_size for path in two_views.path.glob("*.h5"))
    records = list(two_views.records.values())
    for split in found.splits:
        chosen = [record for record in records if record.split == split.split]
        pixels = sum(record.label_map.size for record in chosen)
        void = sum(int((record.label_map == 0).sum()) for record in chosen)
        assert (split.records, split.patches) == (len(chosen), 49 * len(chosen))
        assert split.void_percent == pytest.approx(100 * void / pixels)
        assert 0 <= split.other_percent < 100
    assert [split.split for split in found.splits] == ["train", "val"]


def test_json_is_the_index_with_the_sums(two_views: Built) -> None:
    value = inspect(two_views.path).to_json()
    assert json.loads(json.dumps(value)) == value
    assert value["content_id"] == two_views.index.content_id
    assert value["short_id"] == two_views.index.short_id
    assert [split["records"] for split in value["splits"]] == [4, 4]


def test_missing_shard_is_a_shard_error(copied: Path) -> None:
    next(copied.glob("*.h5")).unlink()
    with pytest.raises(ShardError, match="is missing"):
        inspect(copied)


def test_results_are_shown_in_one_short_line(two_views: Built, sample_tree: Path) -> None:
    plan = vocprep.plan("pascal-context", data_dir=sample_tree, weights="random:0")
    short_id = two_views.index.short_id
    shown = {
        repr(vocprep.inspect(two_views.path)): f"VersionSummary({short_id}, records: ",
        repr(vocprep.lock(two_views.path)): f"LockFile({short_id}, ",
        repr(plan): f"BuildPlan({plan.recipe.short_name}, ",
        repr(plan.label_space): "LabelSpace('context460', 459 classes, void 0)",
    }
    for text, beginning in shown.items():
        assert text.startswith(beginning)
        assert len(text) < 200
