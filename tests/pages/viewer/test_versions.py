"""What is kept of a version is bounded, and what does not fit into memory is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.heads import make_dataset, random_records

from vocprep.pages.viewer.options import ViewOptions
from vocprep.pages.viewer.shown import versions
from vocprep.pages.viewer.shown.background import FailedError
from vocprep.pages.viewer.shown.versions import Kept, ShownVersion
from vocprep.shards.reader import ShardDataset


def test_the_values_used_last_are_kept() -> None:
    kept: Kept[str, int] = Kept(10)
    for number, name in enumerate("abc"):
        assert kept.put(name, number, 4) == number
    assert [kept.get(name) for name in "abc"] == [None, 1, 2]
    assert kept.get("b") == 1
    kept.put("d", 3, 4)
    assert [kept.get(name) for name in "bcd"] == [1, None, 3]
    kept.put("e", 4, 100)  # larger than all that is kept: the one that is looked at
    assert [kept.get(name) for name in "bde"] == [None, None, 4]
    kept.put("e", 5, 4)
    kept.put("f", 6, 4)
    assert [kept.get(name) for name in "ef"] == [5, 6]


@pytest.fixture
def dataset(tmp_path: Path) -> ShardDataset:
    grids = [(1, 2), (2, 1)]
    return make_dataset(tmp_path / "out", {"train": random_records("train", grids)})


def test_an_index_that_is_too_large_is_refused(
    dataset: ShardDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 4 * 256 * 2
    for free, is_enough in ((2 * size, True), (2 * size - 1, False), (None, True)):
        monkeypatch.setattr(versions, "_available_bytes", lambda free=free: free)
        task = ShownVersion("a", dataset, ViewOptions()).similar["train"]
        if is_enough:
            assert len(task.result()) == 4
        else:
            with pytest.raises(FailedError, match=r"4 patches take 0\.0 GB of memory"):
                task.result()


def test_records_in_any_order_are_those_of_the_version(dataset: ShardDataset) -> None:
    version = ShownVersion("a", dataset, ViewOptions())
    assert version.embedding_dim is None
    for name in ("train_01", "train_00", "train_01"):
        assert version.record(version.place(name)).image_id == name
    assert version.embedding_dim == 256
