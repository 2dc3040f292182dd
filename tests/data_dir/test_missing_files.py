"""Listed files that are not there: what lies in their place decides what to do."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from vocprep.data_dir.folders import FileNames
from vocprep.data_dir.missing_files import SearchedFolder
from vocprep.errors import DataDirError


def files(kind: str, end: str) -> FileNames:
    return FileNames(kind=kind, accepted=(end,), ignores_case=kind == "image")


def words(folder: Path, kind: str, wanted: str, *there: str) -> str:
    stem, dot, suffix = wanted.rpartition(".")
    for name in there:
        (folder / name).touch()
    return SearchedFolder.of(files(kind, dot + suffix), folder).in_words(stem, 1, 1)


@pytest.mark.parametrize(
    ("there", "advice"),
    [
        (
            ["a.png"],
            'found a.png there: add ".png" to image_suffixes in the manifest, or convert it to '
            "a.jpg",
        ),
        (["a.gif", "b.jpg"], "found a.gif there: convert it to one of .jpg"),
        (["a_1.jpg"], "found a_1.jpg there: rename it to a.jpg"),
        (["A.JPG", "a.txt"], "found A.JPG there: rename it to a.JPG (upper and lower case count)"),
        (["A.jpg"], "found A.jpg there: rename it to a.jpg (upper and lower case count)"),
        (["b.jpg", "ab.jpg"], "add the files or remove the ids from the split file"),
        ([], "add the files or remove the ids from the split file"),
    ],
)
def test_images(tmp_path: Path, there: list[str], advice: str) -> None:
    said = words(tmp_path, "image", "a.jpg", *there)
    assert said == (
        f"{tmp_path / 'a.jpg'}: the image of a listed image id is missing (1 of 1 images); {advice}"
    )


@pytest.mark.parametrize(
    ("there", "advice"),
    [
        ("a.mat", 'found a.mat there: set label_kind = "mat" in the manifest, or convert it to'),
        ("a.PNG", "found a.PNG there: rename it to a.png"),
        (
            "a_mask.png",
            'a_mask.png there: rename it to a.png, or set label_suffix = "_mask.png" in the mani',
        ),
        ("a-labels.png", 'rename it to a.png, or set label_suffix = "-labels.png"'),
        ("a.jpg", "found a.jpg there: export the label map as a.png from its source, since JPEG"),
        ("a.tif", 'found a.tif there: set label_kind = "tiff" in the manifest, or convert it to'),
        ("a.gif", "found a.gif there: convert it to a.png, which holds the ids"),
        ("ab.png", "add the files or remove the ids"),
    ],
)
def test_label_maps(tmp_path: Path, there: str, advice: str) -> None:
    assert advice in words(tmp_path, "label map", "a.png", there)


@pytest.mark.parametrize(("there", "says_why"), [("a.PNG", True), ("a_mask.png", False)])
def test_case_is_named_where_the_names_differ_in_case_alone(
    tmp_path: Path, there: str, says_why: bool
) -> None:
    said = words(tmp_path, "label map", "a.png", there)
    assert said.endswith(" (upper and lower case count)") == says_why


def test_a_header_in_the_place_of_an_id_is_named(tmp_path: Path) -> None:
    said = words(tmp_path, "image", "image_id.jpg")
    assert said.endswith("image_id looks like a header of the split file; delete its line")


def test_no_folder_and_no_reading_are_told_apart(tmp_path: Path) -> None:
    images = files("image", ".jpg")
    with pytest.raises(DataDirError, match=r"none: expected the folder of the images, found none"):
        SearchedFolder.of(images, tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(DataDirError, match=r"file: expected the folder .*\(Not a directory\)"):
        SearchedFolder.of(images, tmp_path / "file")
    with pytest.raises(DataDirError, match=r"cannot be read: File name too long"):
        SearchedFolder.of(images, tmp_path / ("x" * 300))


@pytest.mark.parametrize(("form", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_letters_that_are_composed_otherwise_are_named(
    tmp_path: Path, form: Literal["NFC", "NFD"], other: Literal["NFC", "NFD"]
) -> None:
    listed, there = unicodedata.normalize(form, "é"), unicodedata.normalize(other, "é")
    said = words(tmp_path, "image", f"{listed}.jpg", f"{there}.jpg")
    assert f"found {there}.jpg there: the same letters, composed otherwise" in said
    assert f"Unicode's {other}" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_folder_without_permission_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(DataDirError, match=r"closed: the folder .* cannot be read: Permission"):
        SearchedFolder.of(files("image", ".jpg"), tmp_path / "closed")
