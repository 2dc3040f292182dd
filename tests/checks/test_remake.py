"""Builds from a lock file: the same bytes, or an error and nothing published."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from builders.own_data import write_own_data
from builders.version_bytes import version_bytes
from builders.versions import ENGINE, Built, build, first_jpeg

from vocprep.building.plan import plan
from vocprep.checks.lock import lock, read_lock
from vocprep.checks.remake import RemakeSources, build_locked, describe_locked, plan_remake
from vocprep.errors import DataError, SourceUnavailableError, UsageError
from vocprep.manifests import SplitFlags, find_manifest
from vocprep.options import BuildChoices, MaxFailures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A version of two images; not to be written to."""
    return build(
        sample_tree, tmp_path_factory.mktemp("two") / "out", BuildChoices(limit_per_split=1)
    )


@pytest.fixture
def file(two: Built, tmp_path: Path) -> Path:
    path = tmp_path / "voc.lock.json"
    lock(two.path, path)
    return path


@pytest.mark.slow
def test_pinned_version_is_built_to_the_same_bytes(
    two: Built, file: Path, sample_tree: Path, tmp_path: Path
) -> None:
    described = describe_locked(str(file), data_dir=sample_tree, options=ENGINE)
    result = build_locked(
        str(file), out=str(tmp_path / "out"), data_dir=str(sample_tree), options=ENGINE
    )
    assert described.recipe_id == result.index.recipe_id
    assert version_bytes(tmp_path / "out") == version_bytes(two.path)
    assert result.notes == ()
    assert (result.images, result.made) == (2, 2)


def test_other_numerics_class_is_a_note_of_the_result(
    file: Path, sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"torch": "0", "device": "cpu", "instruction_set": "other", "jpeg_decoder": "other"}
    monkeypatch.setattr("vocprep.building.local.numerics_class", lambda *_: other)
    result = build_locked(file, out=tmp_path / "out", data_dir=sample_tree, options=ENGINE)
    assert any("same records" in note for note in result.notes)
    assert (tmp_path / "out/dataset.json").is_file()


def test_other_image_is_refused_and_nothing_is_published(
    file: Path, tree: Path, tmp_path: Path
) -> None:
    jpegs = sorted(first_jpeg(tree).parent.iterdir())
    same_size = next(path for path in jpegs[1:] if path.stat().st_size != jpegs[0].stat().st_size)
    shutil.copy(same_size, jpegs[0])
    options = replace(ENGINE, max_failures=MaxFailures(count=1))
    with pytest.raises(DataError, match="another version") as caught:
        build_locked(file, out=tmp_path / "out", data_dir=tree, options=options)
    assert str(file) in str(caught.value)
    assert not (tmp_path / "out/dataset.json").exists()


def test_lock_file_of_an_own_dataset_needs_its_manifest(
    file: Path, sample_tree: Path, tmp_path: Path
) -> None:
    value = json.loads(file.read_text())
    assert value["recipe"]["dataset"] == "pascal-context"
    manifest = find_manifest("datasets", "pascal-context")
    described = describe_locked(file, dataset=manifest, data_dir=sample_tree, options=ENGINE)
    assert described.samples == 2
    with pytest.raises(UsageError, match="dataset 'no-such'"):
        describe_locked(file, dataset="no-such", data_dir=sample_tree)


@pytest.mark.parametrize(
    ("label", "advice"),
    [
        ("official ResNet-32", "run: vocprep download resnet32-cifar100 --data-dir .*, or give"),
        ("own (0123456789ab…)", "are not there; give their file with --weights PATH$"),
    ],
)
def test_weights_that_are_not_there_are_named_and_no_others_advised(
    file: Path, sample_tree: Path, label: str, advice: str
) -> None:
    locked = read_lock(file)
    sources = RemakeSources(data_dir=sample_tree, weights_label=label)
    with pytest.raises(SourceUnavailableError, match=advice) as caught:
        plan_remake(locked.recipe, locked.layout, sources)
    assert "random" not in str(caught.value)


@pytest.mark.parametrize(("flags", "count"), [("positive", 1), ("present", 2), ("all", 3)])
def test_the_flags_that_chose_the_ids_are_found_by_their_digest(
    flags: SplitFlags, count: int, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    manifest = write_own_data(data)
    (data / "splits/train.txt").write_text("im000 1\nim001 0\nim002 -1\n")
    choices = BuildChoices(splits=("train",), split_flags=flags)
    planned = plan(manifest, data_dir=data, weights="random:0", choices=choices)
    sources = RemakeSources(
        data_dir=data, dataset=str(manifest), weights_label=planned.weights_label
    )
    again = plan_remake(planned.recipe, planned.layout, sources)
    assert again.recipe == planned.recipe
    ids = [sample.image_id for sample in again.samples]
    assert ids == ["im000", "im001", "im002"][:count]
    (data / "splits/train.txt").write_text("im003 1\nim001 0\nim002 -1\n")
    with pytest.raises(DataError, match="flags follow the image ids"):
        plan_remake(planned.recipe, planned.layout, sources)
