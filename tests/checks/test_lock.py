from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.versions import Built, build

from vocprep.building.write import write_dataset
from vocprep.checks.deviation import EMBEDDING_TOLERANCES, measure_deviation
from vocprep.checks.lock import (
    LockFile,
    compare_with_lock,
    lock,
    measure_probes,
    read_lock,
)
from vocprep.errors import DataError
from vocprep.options import BuildChoices, Layout
from vocprep.shards.index import read_index, write_index
from vocprep.shards.reader import ShardDataset
from vocprep.shards.version import Version

LIMIT = BuildChoices(limit=3)


@pytest.fixture(scope="module")
def built(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp("locked") / "out"
    return build(sample_tree, out, LIMIT, Layout(samples_per_shard=2))


@pytest.fixture
def copied(built: Built, tmp_path: Path) -> Path:
    shutil.copytree(built.path, tmp_path / "copied")
    return tmp_path / "copied"


def details(locked: LockFile, path: Path) -> str:
    check = compare_with_lock(locked, Version.read(path), path)
    return "\n".join(difference.detail for difference in check.differences)


def test_lock_comes_back_from_its_file(built: Built, tmp_path: Path) -> None:
    locked = lock(str(built.path), str(tmp_path / "lock.json"))
    assert read_lock(str(tmp_path / "lock.json")) == locked
    assert (tmp_path / "lock.json").stat().st_size < 20_000
    assert locked.version == built.index.short_id
    assert locked.content_id == built.index.content_id
    assert [shard.sha256 for shard in locked.shards] == [s.sha256 for s in built.index.shards]


def test_version_and_its_copy_agree_with_the_lock(built: Built, copied: Path) -> None:
    locked = lock(built.path)
    for path in (built.path, copied):
        check = compare_with_lock(locked, Version.read(path), path)
        assert (check.differences, check.notes) == ([], [])


def test_probes_are_the_first_patches_of_records_spread_over_the_ids(built: Built) -> None:
    locked = lock(built.path)
    records = built.records
    assert [probe.id for probe in locked.probes] == sorted(records)
    found = measure_probes(locked, Version.read(built.path), built.path)
    assert (found.patches, found.largest_deviation, found.smallest_cosine) == (len(records), 0, 1)


def rewrite(path: Path, change: Callable[[np.ndarray[Any, Any]], None], **index: Any) -> None:
    """Write a version again with other embeddings."""
    dataset = ShardDataset.open(path)
    splits: dict[str, list[Any]] = {}
    for shard in dataset.index.shards:
        for record in dataset.read_shard(shard.name):
            change(record.embeddings)
            splits.setdefault(shard.split, []).append(record)
    layout = Layout(samples_per_shard=dataset.index.samples_per_shard)
    old = dataset.index
    shutil.rmtree(path)
    write_dataset(path, old.recipe, splits, layout)
    made = {"numerics_class": old.numerics_class, "versions": old.versions}
    write_index(path, read_index(path).model_copy(update={**made, **index}).sealed())


def nudge(embeddings: np.ndarray[Any, Any]) -> None:
    embeddings *= np.float16(1.001)


def spoil(embeddings: np.ndarray[Any, Any]) -> None:
    embeddings *= np.float16(-1)


def test_other_bits_in_the_same_numerics_class_are_a_difference(built: Built, copied: Path) -> None:
    rewrite(copied, nudge)
    assert "content_id" in details(lock(built.path), copied)


OTHER_CLASS = {"torch": "2", "device": "cpu", "instruction_set": "other"}


def test_other_bits_of_another_numerics_class_are_judged_by_the_tolerance(
    built: Built, copied: Path, tmp_path: Path
) -> None:
    locked = lock(built.path)
    rewrite(copied, nudge, numerics_class=OTHER_CLASS)
    check = compare_with_lock(locked, Version.read(copied), copied)
    assert check.differences == []
    assert any("another numerics class" in note for note in check.notes)
    rewrite(copied, spoil, numerics_class=OTHER_CLASS)
    assert "beyond the tolerance" in details(locked, copied)


def test_same_records_in_other_bytes_by_other_versions_are_a_note(
    built: Built, copied: Path
) -> None:
    locked = lock(built.path)
    index = read_index(copied)
    shards = tuple(shard.model_copy(update={"sha256": "00" * 32}) for shard in index.shards)
    changed = index.model_copy(update={"shards": shards, "versions": {"h5py": "0"}}).sealed()
    write_index(copied, changed)
    check = compare_with_lock(locked, Version.read(copied), copied)
    assert check.differences == []
    assert any("h5py" in note for note in check.notes)
    write_index(copied, changed.model_copy(update={"versions": index.versions}).sealed())
    assert "00" * 32 in details(locked, copied)


def test_another_recipe_or_other_sources_are_named(
    built: Built, sample_tree: Path, tmp_path: Path
) -> None:
    locked = lock(built.path)
    schema = build(sample_tree, tmp_path / "schema", BuildChoices(limit=3, schema="context59"))
    assert "schema.name: 'context460' and 'context59'" in details(locked, schema.path)
    tree = tmp_path / "tree"
    shutil.copytree(sample_tree, tree)
    mat = sorted((tree / "trainval").iterdir())[0]
    mat.write_bytes(b"m" + mat.read_bytes()[1:])
    changed = build(tree, tmp_path / "sources", LIMIT, Layout(samples_per_shard=2))
    said = details(locked, changed.path)
    assert "source_id" in said
    assert "targets_id" not in said


def test_quarantined_picture_is_named(built: Built, sample_tree: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(sample_tree, tree)
    jpeg = sorted((tree / "VOCdevkit/VOC2010/JPEGImages").iterdir())[0]
    jpeg.write_bytes(jpeg.read_bytes()[:900])
    layout = Layout(samples_per_shard=2)
    bad = build(tree, tmp_path / "bad", LIMIT, layout, max_failures=1)
    assert f"{jpeg.stem} is quarantined" in details(lock(built.path), bad.path)
    assert f"{jpeg.stem} is not quarantined" in details(lock(bad.path), built.path)


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


def test_edited_recipe_of_a_lock_is_found(built: Built, tmp_path: Path) -> None:
    file = tmp_path / "lock.json"
    lock(built.path, file)
    value = json.loads(file.read_text())
    value["recipe"]["precision"] = "bf16"
    file.write_text(json.dumps(value))
    with pytest.raises(DataError, match="altered"):
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
