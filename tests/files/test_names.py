"""What folders hold, in words, and which files in them count for nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vocprep.files.names import found_at, is_clutter, names_in


@pytest.mark.parametrize(
    "name",
    [
        *("._im001.jpg", "._train.txt", ".DS_Store", "Thumbs.db", "desktop.ini", "train.txt~"),
        *("#train.txt#", ".#train.txt", ".train.txt.swp", "mine.toml.bak", ".nfs000000002a"),
    ],
)
def test_clutter(name: str, tmp_path: Path) -> None:
    assert is_clutter(name)
    (tmp_path / name).touch()
    assert names_in(tmp_path) == frozenset()
    assert found_at(tmp_path) == "an empty folder"


@pytest.mark.parametrize(
    "name", ["im001.jpg", "_.jpg", "train.txt", ".hidden", "a~b.jpg", "thumbs.db.jpg", ".tmp-x"]
)
def test_no_clutter(name: str) -> None:
    assert not is_clutter(name)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["dataset.json", "train-00000-of-00001.h5", "labels.json"], "a dataset version"),
        ([".tmp-build", ".lock"], "an unfinished build"),
        (["train-00000-of-00001.tar"], "shards without their dataset.json"),
        (["run.json", "model.safetensors"], "a run"),
        (["VOCdevkit", "trainval"], "a data dir"),
        ([".vocprep", "weights"], "a data dir"),
        (["VOC2012"], "a part of a data dir, which is the folder above VOCdevkit"),
        (["JPEGImages", "ImageSets"], "a part of a data dir, which is the folder above VOCdevkit"),
        (["a.png", "labels.json"], "decoded label maps"),
        (["thesis.doc"], "a folder of other files"),
        ([".lock"], "an empty folder"),
        ([".lock", "run.json"], "a run"),
        (["samples.jsonl", ".lock"], "shards without their dataset.json"),
    ],
)
def test_kinds_of_folders(names: list[str], kind: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert found_at(tmp_path) == kind


def test_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / ".tmp-build").mkdir()
    assert found_at(tmp_path / "none") == "nothing"
    assert found_at(tmp_path / "file") == "a file"
    assert found_at(tmp_path / "file" / "below") == "nothing"
    assert found_at(tmp_path / ".tmp-build") == "unfinished work"
    assert found_at(tmp_path / "loop").startswith("what cannot be read (Too many levels")
    assert found_at(tmp_path / ("x" * 300)) == "what cannot be read (File name too long)"


def test_what_lies_one_level_below_is_named(tmp_path: Path) -> None:
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "dataset.json").touch()
    assert found_at(tmp_path) == f"a folder that holds the dataset version {tmp_path / 'voc'}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    assert found_at(tmp_path / "closed") == "what cannot be read (Permission denied)"
