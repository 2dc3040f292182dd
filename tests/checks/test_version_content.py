"""Verification of content finds records that are not as their digests, label maps or index say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.progress import RecordedProgress
from builders.records import make_record
from builders.versions import Built, write_records

from vocprep.checks.version_content import verify_version_content
from vocprep.checks.version_files import verify_version_files
from vocprep.errors import ShardError
from vocprep.labels.png import encode_png
from vocprep.shards.containers import CONTAINERS
from vocprep.shards.index import read_index, write_index
from vocprep.shards.record import Record

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["quarantined", "quarantined_tar"])
def test_whole_version_is_clean(name: str, request: pytest.FixtureRequest) -> None:
    built: Built = request.getfixturevalue(name)
    progress, index = RecordedProgress(), read_index(built.path)
    report = verify_version_content(built.path, 2, progress)
    assert progress.begun == [("shards", len(index.shards), 0)]
    assert progress.threads == {threading.get_ident()}
    assert report.ok
    assert report.matching == sum(shard.records for shard in index.shards) == 6


def shift_planes(record: Record) -> Record:
    return replace(record, slot_planes=np.roll(record.slot_planes, 1, axis=-1))


def add_pixel(record: Record) -> Record:
    slot_pixels = record.slot_pixels.copy()
    slot_pixels[0, 0] += 1
    return replace(record, slot_pixels=slot_pixels)


def other_labels(record: Record) -> Record:
    label_map = record.label_map.copy()
    label_map[:8, :8] = np.where(label_map[:8, :8] == 2, 1, 2)
    return replace(record, label_png=encode_png(label_map))


@pytest.mark.parametrize("change", [shift_planes, add_pixel, other_labels])
def test_targets_that_are_not_those_of_the_label_map_are_found(
    change: Callable[[Record], Record], tmp_path: Path
) -> None:
    records = [make_record("a"), make_record("b")]
    assert verify_version_content(write_records(tmp_path / "right", records), 1).ok
    path = write_records(tmp_path / "wrong", [records[0], change(records[1])])
    assert verify_version_files(path, 1).ok
    report = verify_version_content(path, 1)
    assert report.matching == 1
    assert all("record b" in difference.detail for difference in report.differences)
    assert any("label map" in difference.detail for difference in report.differences)


def test_shard_with_other_records_than_its_samples_is_found(tmp_path: Path) -> None:
    records = [make_record("a"), make_record("b")]
    path = write_records(tmp_path / "out", records)
    shard = read_index(path).shards[0].name
    for wrong in ([records[0]], [records[0], make_record("b", seed=9)], [*records, records[0]]):
        (path / shard).write_bytes(CONTAINERS["hdf5"].encode(wrong))
        assert not verify_version_content(path, 1).ok


def test_statistics_that_are_not_those_of_the_records_are_found(tmp_path: Path) -> None:
    path = write_records(tmp_path / "out", [make_record("a")])
    index = read_index(path)
    statistics = json.loads(json.dumps(index.statistics))
    statistics["splits"]["train"]["void_pixels"] += 1
    write_index(path, index.model_copy(update={"statistics": statistics}).sealed())
    report = verify_version_content(path, 1)
    assert [item.path for item in report.differences] == ["dataset.json"]


def test_content_of_a_folder_that_is_no_version_is_a_shard_error(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="build-shards"):
        verify_version_content(tmp_path, 1)
