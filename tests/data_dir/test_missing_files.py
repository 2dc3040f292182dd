"""Listed files that are not there: what lies in their place decides what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vocprep.data_dir.missing_files import list_folder
from vocprep.errors import DataDirError


def words(folder: Path, kind: str, wanted: str, *there: str) -> str:
    for name in there:
        (folder / name).touch()
    return list_folder(kind, [folder / wanted]).in_words()


@pytest.mark.parametrize(
    ("there", "advice"),
    [
        (["a.png"], "found a.png there: convert it to JPEG, as a.jpg"),
        (["a.webp", "b.jpg"], "found a.webp there: convert it to JPEG, as a.jpg"),
        (["a.jpeg"], "found a.jpeg there: rename it to a.jpg"),
        (["a.JPG", "a.txt"], "found a.JPG there: rename it to a.jpg (upper and lower case count)"),
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
        ("a_mask.png", "found a_mask.png there: rename it to a.png"),
        ("a-labels.png", "found a-labels.png there: rename it to a.png"),
        ("a.jpg", "found a.jpg there: export the label map as a.png from its source, since JPEG"),
        ("a.tif", "found a.tif there: convert it to a.png, which holds the ids"),
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
    assert said.endswith(" (upper and lower case count)" if says_why else "rename it to a.png")


def test_a_header_in_the_place_of_an_id_is_named(tmp_path: Path) -> None:
    said = words(tmp_path, "image", "image_id.jpg")
    assert said.endswith("image_id looks like a header of the split file; delete its line")


def test_nothing_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert list_folder("image", [tmp_path / "a.jpg"]).missing == ()


def test_no_folder_and_no_reading_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataDirError, match=r"none: expected the folder of the images, found none"):
        list_folder("image", [tmp_path / "none" / "a.jpg"])
    (tmp_path / "file").touch()
    with pytest.raises(DataDirError, match=r"file: expected the folder .*\(Not a directory\)"):
        list_folder("image", [tmp_path / "file" / "a.jpg"])
    with pytest.raises(DataDirError, match=r"cannot be read: File name too long"):
        list_folder("image", [tmp_path / ("x" * 300) / "a.jpg"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_folder_without_permission_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(DataDirError, match=r"closed: the folder .* cannot be read: Permission"):
        list_folder("image", [tmp_path / "closed" / "a.jpg"])
