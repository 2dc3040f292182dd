"""Lock files: written, read, and compared with versions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.old_versions import label_maps_by_pillow
from builders.versions import (
    TWO_PER_SHARD,
    TWO_VIEWS,
    Built,
    build,
    change_embeddings,
    first_jpeg,
)

from vocprep.checks.deviation import EMBEDDING_TOLERANCES, measure_deviation
from vocprep.checks.lock import LockFile, compare_with_lock, lock, measure_probes, read_lock
from vocprep.errors import DataError
from vocprep.shards.index import read_index, write_index
from vocprep.shards.version import Version


def details(locked: LockFile, path: Path) -> str:
    check = compare_with_lock(locked, Version.read(path), path)
    return "\n".join(difference.detail for difference in check.differences)


def test_lock_comes_back_from_its_file(two_views: Built, tmp_path: Path) -> None:
    locked = lock(str(two_views.path), str(tmp_path / "lock.json"))
    assert read_lock(str(tmp_path / "lock.json")) == locked
    assert (tmp_path / "lock.json").stat().st_size < 20_000
    assert locked.version == two_views.index.short_id
    assert locked.content_id == two_views.index.content_id
    assert [shard.sha256 for shard in locked.shards] == [s.sha256 for s in two_views.index.shards]


def test_version_and_its_copy_agree_with_the_lock(two_views: Built, copied: Path) -> None:
    locked = lock(two_views.path)
    for path in (two_views.path, copied):
        check = compare_with_lock(locked, Version.read(path), path)
        assert (check.differences, check.notes) == ([], [])


def test_probes_are_the_first_patches_of_records_spread_over_the_ids(two_views: Built) -> None:
    locked = lock(two_views.path)
    records = two_views.records
    assert [probe.id for probe in locked.probes] == sorted(records)
    found = measure_probes(locked, Version.read(two_views.path), two_views.path)
    assert (found.patches, found.largest_deviation, found.smallest_cosine) == (len(records), 0, 1)


def nudge(embeddings: np.ndarray[Any, Any]) -> None:
    embeddings *= np.float16(1.001)


def spoil(embeddings: np.ndarray[Any, Any]) -> None:
    embeddings *= np.float16(-1)


def test_other_bits_in_the_same_numerics_class_are_a_difference(
    two_views: Built, copied: Path
) -> None:
    change_embeddings(copied, nudge)
    assert "content_id" in details(lock(two_views.path), copied)


OTHER_CLASS = {"torch": "2", "device": "cpu", "instruction_set": "other"}


def test_other_bits_of_another_numerics_class_are_judged_by_the_tolerance(
    two_views: Built, copied: Path, tmp_path: Path
) -> None:
    locked = lock(two_views.path)
    change_embeddings(copied, nudge, numerics_class=OTHER_CLASS)
    check = compare_with_lock(locked, Version.read(copied), copied)
    assert check.differences == []
    assert any("another numerics class" in note for note in check.notes)
    change_embeddings(copied, spoil, numerics_class=OTHER_CLASS)
    assert "beyond the tolerance" in details(locked, copied)


def test_same_records_in_other_bytes_by_other_makers_are_a_note(
    two_views: Built, copied: Path
) -> None:
    locked = lock(two_views.path)
    index = read_index(copied)
    shards = tuple(shard.model_copy(update={"sha256": "00" * 32}) for shard in index.shards)
    changed = index.model_copy(update={"shards": shards})
    for makers, said in (
        ({"versions": {"h5py": "0"}}, "h5py: "),
        ({"numerics_class": OTHER_CLASS}, "instruction_set: "),
    ):
        write_index(copied, changed.model_copy(update=makers).sealed())
        check = compare_with_lock(locked, Version.read(copied), copied)
        assert check.differences == []
        start = f"the same records in other bytes (files: {shards[0].name}, "
        assert any(note.startswith(start) and said in note for note in check.notes)
    write_index(copied, changed.sealed())
    assert "00" * 32 in details(locked, copied)


def test_versions_whose_label_maps_pillow_wrote_and_new_ones_agree_with_each_others_locks(
    two_views: Built, sample_tree: Path, tmp_path: Path
) -> None:
    with label_maps_by_pillow():
        out = tmp_path / "old"
        old = build(sample_tree, out, TWO_VIEWS, TWO_PER_SHARD, reuse=two_views.path)
    for locked, found in ((old, two_views), (two_views, old)):
        check = compare_with_lock(lock(locked.path), Version.read(found.path), found.path)
        assert check.differences == []
        (note,) = check.notes
        assert note.startswith("the same records in other bytes (files: ")
        assert "since others made them: zlib: " in note


def test_another_recipe_is_named(two_views: Built, sample_tree: Path, tmp_path: Path) -> None:
    choices = replace(TWO_VIEWS, schema="context59")
    other = build(sample_tree, tmp_path / "out", choices, TWO_PER_SHARD, reuse=two_views.path)
    line = "schema.name: 'context460' and 'context59'"
    assert line in details(lock(two_views.path), other.path)


def test_other_sources_are_named(two_views: Built, tree: Path, tmp_path: Path) -> None:
    mat = sorted((tree / "trainval").iterdir())[0]
    mat.write_bytes(b"m" + mat.read_bytes()[1:])
    changed = build(tree, tmp_path / "out", TWO_VIEWS, TWO_PER_SHARD, reuse=two_views.path)
    found = details(lock(two_views.path), changed.path)
    assert "source_id" in found
    assert "targets_id" not in found


def test_quarantined_image_is_named(two_views: Built, quarantined: Built, bad_tree: Path) -> None:
    image_id = first_jpeg(bad_tree).stem
    found = details(lock(two_views.path), quarantined.path)
    assert f"{image_id} is quarantined" in found
    found = details(lock(quarantined.path), two_views.path)
    assert f"{image_id} is not quarantined" in found


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"format": "vocprep-lock"}', b"\xff"],
    ids=["empty", "broken", "list", "fields missing", "no UTF-8"],
)
def test_file_that_is_no_lock_is_a_data_error(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "lock.json"
    file.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_lock(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_lock_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_lock(tmp_path / "none.json")


def test_edited_recipe_of_a_lock_is_found(two_views: Built, tmp_path: Path) -> None:
    file = tmp_path / "lock.json"
    lock(two_views.path, file)
    value = json.loads(file.read_text())
    value["recipe"]["precision"] = "bf16"
    file.write_text(json.dumps(value))
    with pytest.raises(DataError, match="altered"):
        read_lock(file)


def test_recipe_of_fewer_fields_in_a_lock_is_named_as_such(
    two_views: Built, tmp_path: Path
) -> None:
    file = tmp_path / "lock.json"
    lock(two_views.path, file)
    value = json.loads(file.read_text())
    del value["recipe"]["windows"]
    file.write_text(json.dumps(value))
    with pytest.raises(DataError, match="not a recipe that this version can read: windows"):
        read_lock(file)


def test_deviation_is_the_worst_number_and_the_worst_direction() -> None:
    one = np.array([[1.0, 0.0], [0.0, 10.0], [0.0, 0.0]])
    other = np.array([[0.9, 0.0], [3.0, 10.0], [0.0, 0.0]])
    found = measure_deviation(one, other)
    assert found.patches == 3
    assert found.largest_deviation == pytest.approx(3 / 3)
    assert found.smallest_cosine == pytest.approx(10 / np.hypot(3, 10))
    assert measure_deviation(one, one).within(EMBEDDING_TOLERANCES["fp32"])
    assert not found.within(EMBEDDING_TOLERANCES["fp32"])


def test_what_is_not_a_number_is_never_within_a_tolerance() -> None:
    one = np.ones((1, 2))
    for bad in (np.nan, np.inf):
        assert not measure_deviation(np.array([[1.0, bad]]), one).within(
            EMBEDDING_TOLERANCES["bf16"]
        )
    assert not measure_deviation(np.zeros((1, 2)), one).within(EMBEDDING_TOLERANCES["bf16"])
