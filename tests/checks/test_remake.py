"""Builds from a lock file: the same bytes, or an error and nothing published."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from builders.version_bytes import version_bytes
from builders.versions import ENGINE, Built, build, first_jpeg

from vocprep.checks.lock import lock
from vocprep.checks.remake import build_locked, describe_locked
from vocprep.errors import DataError, UsageError
from vocprep.manifests import find_manifest
from vocprep.options import BuildChoices, MaxFailures


@pytest.fixture(scope="module")
def two(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A version of two images; not to be written to."""
    return build(sample_tree, tmp_path_factory.mktemp("two") / "out", BuildChoices(limit=1))


@pytest.fixture
def file(two: Built, tmp_path: Path) -> Path:
    path = tmp_path / "voc.lock.json"
    lock(two.path, path)
    return path


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
