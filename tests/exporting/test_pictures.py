"""Formats of pictures: which views, and which photographs."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.versions import JPEGS, Built
from PIL import Image

import vocprep
from vocprep.errors import DataError, UsageError

pytestmark = pytest.mark.slow


def names(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "images").rglob("*.png")}


def test_other_views_are_left_out_unless_they_are_chosen(
    native_hdf5: Built, sample_tree: Path, tmp_path: Path
) -> None:
    ids = native_hdf5.records.keys()
    for views, expected in ((None, {each for each in ids if "#" not in each}), ("all", ids)):
        options = vocprep.ExportOptions(data_dir=sample_tree, views=views)
        vocprep.export(native_hdf5.path, "coco-panoptic", tmp_path, options)
        assert names(tmp_path) == expected


def test_without_a_data_dir_the_two_ways_out_are_named(crop_hdf5: Built, tmp_path: Path) -> None:
    options = vocprep.ExportOptions(data_dir=tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="give the data dir of the build, or --photographs none"):
        vocprep.export(crop_hdf5.path, "fiftyone", tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_another_photograph_under_the_same_name_is_refused(
    crop_hdf5: Built, tree: Path, tmp_path: Path
) -> None:
    last = [*crop_hdf5.records][-1]
    Image.new("RGB", (300, 300)).save(tree / JPEGS / f"{last}.jpg")
    options = vocprep.ExportOptions(data_dir=tree)
    with pytest.raises(DataError, match=f"{last}.jpg: expected the image that the record was made"):
        vocprep.export(crop_hdf5.path, "coco-panoptic", tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
