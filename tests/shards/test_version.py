"""A version as a whole: its records by their lines of the index."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builders.records import assert_same_record
from builders.versions import Built

from vocprep.errors import ShardError
from vocprep.shards.containers import ProvedShards, ShardReader
from vocprep.shards.samples import SampleEntry
from vocprep.shards.version import Version


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that are opened, in order."""
    names: list[str] = []
    open_shard = ProvedShards.open

    def note(shards: ProvedShards, name: str) -> ShardReader:
        names.append(name)
        return open_shard(shards, name)

    monkeypatch.setattr(ProvedShards, "open", note)
    return names


def in_shards(samples: list[SampleEntry]) -> list[SampleEntry]:
    return sorted(samples, key=lambda sample: (sample.shard, sample.row))


@pytest.mark.parametrize("step", [1, 2, 3])
def test_records_of_chosen_samples_come_in_order_with_each_shard_opened_once(
    step: int, built: Built, opened: list[str]
) -> None:
    version = Version.read(built.path)
    chosen = in_shards(list(version.samples))[::step]
    pairs = list(version.records(built.path, chosen))
    assert [sample for sample, _ in pairs] == chosen
    assert sorted(opened) == sorted({sample.shard for sample in chosen})
    for sample, record in pairs:
        assert_same_record(record, built.records[sample.id])


def test_records_come_in_whatever_order_they_are_named(built: Built) -> None:
    version = Version.read(built.path)
    chosen = [*reversed(in_shards(list(version.samples))), version.samples[0], version.samples[0]]
    for (sample, record), expected in zip(version.records(built.path, chosen), chosen, strict=True):
        assert sample == expected
        assert_same_record(record, built.records[sample.id])


def test_no_sample_gives_no_record(built: Built, opened: list[str]) -> None:
    assert list(Version.read(built.path).records(built.path, [])) == []
    assert opened == []


@pytest.mark.parametrize("row", [-1, 1, 99])
def test_line_that_names_another_records_row_is_a_shard_error(row: int, built: Built) -> None:
    version = Version.read(built.path)
    sample = in_shards(list(version.samples))[0].model_copy(update={"row": row})
    with pytest.raises(ShardError, match=f"{sample.shard}: row {row} is not .*{sample.id}"):
        list(version.records(built.path, [sample]))


def test_missing_shard_is_a_shard_error_that_names_it(built: Built, tmp_path: Path) -> None:
    copied = tmp_path / "out"
    shutil.copytree(built.path, copied)
    version = Version.read(copied)
    (copied / version.samples[0].shard).unlink()
    with pytest.raises(ShardError, match=version.samples[0].shard):
        list(version.records(copied, version.samples[:1]))
