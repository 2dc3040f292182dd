"""Datasets whose splits are folders, lists in any place, or not there at all."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from vocprep.data_dir.layout import list_samples, list_splits, read_split
from vocprep.data_dir.limits import Limit
from vocprep.data_dir.splits import find_image
from vocprep.errors import DataDirError, UsageError
from vocprep.manifests import DatasetManifest

OWN: dict[str, Any] = {
    "name": "own",
    "title": "Own",
    "images": "images",
    "labels": "masks",
    "label_kind": "png",
    "schemas": ("voc21",),
}


def manifest(**fields: object) -> DatasetManifest:
    return DatasetManifest.model_validate({**OWN, **fields})


def write(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def found(folder: Path, dataset: DatasetManifest, *splits: str) -> dict[str, tuple[str, str]]:
    """The files of each id, below the data dir."""
    samples = list_samples(folder, dataset, splits or dataset.splits)
    return {
        each.image_id: (
            os.path.relpath(each.image_path, folder),
            os.path.relpath(each.label_path, folder),
        )
        for each in samples
    }


def test_pictures_of_any_suffix_and_folder_that_have_a_label_map_are_taken(tmp_path: Path) -> None:
    write(tmp_path, "images/a b/c.d.JPG", "images/é.webp", "images/z.TIFF", "images/alone.png")
    write(tmp_path, "masks/a b/c.d.png", "masks/é.png", "masks/z.png", "masks/other.png")
    write(tmp_path, "images/.git/x.png", "images/._a.jpg", "images/notes.txt")
    assert found(tmp_path, manifest()) == {
        "a b/c.d": ("images/a b/c.d.JPG", "masks/a b/c.d.png"),
        "z": ("images/z.TIFF", "masks/z.png"),
        "é": ("images/é.webp", "masks/é.png"),
    }
    assert list_splits(tmp_path, manifest(), ["all"])["all"].unlabelled == 1
    assert list_samples(tmp_path, manifest(image_suffixes=[".webp"]), ["all"])[0].image_id == "é"


@pytest.mark.parametrize("labels", ["images", "images/masks", "."])
def test_label_maps_in_the_folder_of_the_images_are_no_images(tmp_path: Path, labels: str) -> None:
    end = "_L.png" if labels == "images" else ".png"
    write(tmp_path, "images/a.png", f"{labels}/a{end}")
    assert list(found(tmp_path, manifest(labels=labels, label_suffix=end))) == ["a"]


def test_a_folder_for_each_split_gives_ids_that_differ(tmp_path: Path) -> None:
    dataset = manifest(images="{split}", labels="{split}annot", splits=["train", "val"])
    write(tmp_path, *(f"{s}/a.png" for s in ("train", "val", "trainannot", "valannot")))
    assert found(tmp_path, dataset) == {
        "train/a": ("train/a.png", "trainannot/a.png"),
        "val/a": ("val/a.png", "valannot/a.png"),
    }
    write(tmp_path, "val/b.png")
    missing = r"valannot/b\.png: the label map of an image is missing .*; .*move the images away"
    with pytest.raises(DataDirError, match=missing):
        found(tmp_path, dataset)
    with pytest.raises(DataDirError, match=r"test: expected the folder of the images of split tes"):
        found(tmp_path, dataset, "test")
    assert find_image(tmp_path, dataset, "val/a") == tmp_path / "val/a.png"


@pytest.mark.parametrize("listed", ["a\nval/b.png\n", "b\na.png\n"])
def test_lists_of_folders_per_split_may_leave_the_folder_out(tmp_path: Path, listed: str) -> None:
    dataset = manifest(images="{split}", labels="{split}L", split_files=".", splits=["val"])
    write(tmp_path, "val/a.png", "val/b.png", "val/c.png", "valL/a.png", "valL/b.png")
    (tmp_path / "val.txt").write_text(listed)
    assert list(found(tmp_path, dataset)) == ["val/a", "val/b"]


LISTS = {
    "ids.txt": "x/a b.c\nphoto 1\nd.e.jpg\n",
    "names.csv": "Image;mask\nx/a b.c.jpg;m\nphoto 1;m\n\nd.e.JPG;m\n",
    "column.csv": "x/a b.c\nphoto 1\n d.e \n",
    "split.csv": 'mask,split,file_name\nm,s,"x/a b.c"\nm,other,q\nm,s,photo 1\nm,s,d.e\n',
    "list.json": '["x/a b.c", "photo 1.jpg", "d.e"]',
    "object.json": '{"s": ["x/a b.c", "photo 1", "d.e.jpg"], "other": ["q"]}',
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_name_ids_or_files(tmp_path: Path, name: str) -> None:
    write(tmp_path, "images/x/a b.c.jpg", "images/photo 1.jpg", "images/d.e.jpg", "images/q.jpg")
    write(tmp_path, *(f"masks/{each}.png" for each in ("x/a b.c", "photo 1", "d.e")))
    (tmp_path / name).write_text(LISTS[name])
    dataset = manifest(split_lists={"s": str(tmp_path / name)})
    assert list(found(tmp_path, dataset)) == ["d.e", "photo 1", "x/a b.c"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "id,split\na,train\n", "expected rows of split s, found rows of train; name"),
        ("a.json", '{"train": ["a"]}', "expected lists of split s, found lists of train; name"),
        ("a.csv", "mask,id\nm,a\nm\n", "row 3: expected at least 2 cells, found 1"),
        ("a.csv", "a\nb\na\n", "row 3: image id a is listed twice, in row 1 too; remove one row"),
        ("a.csv", 'id\n"a\n', "cannot be read as a list of images: unexpected end of data"),
        ("a.json", '["a", 5]', "item 2: expected the id or the file name of an image as text, fou"),
        ("a.json", '["a", "b", "../x"]', "item 3: expected an image id, found '../x': it looks li"),
        ("a.json", '"a"', "expected a list of image ids, or an object with one for each split"),
        ("a.json", '["a"', "cannot be read as a list of images: not JSON"),
        ("a.csv", "id\na\n", "masks/a.png: the label map of a listed image id is missing (1 of 1"),
    ],
)
def test_lists_that_cannot_be_used_say_why(tmp_path: Path, name: str, text: str, said: str) -> None:
    write(tmp_path, "images/a.jpg", "images/b.jpg", "masks/b.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(DataDirError) as caught:
        found(tmp_path, manifest(split_lists={"s": str(tmp_path / name)}))
    assert said in str(caught.value)


def test_a_split_without_a_list_or_a_folder_is_named(tmp_path: Path) -> None:
    listed = manifest(split_lists={"s": str(tmp_path / "none.txt")})
    with pytest.raises(DataDirError, match=r"none\.txt: no such list of the images of split s"):
        read_split(tmp_path, listed, "s")
    for dataset in (listed, manifest(splits=["s"])):
        with pytest.raises(UsageError, match=r"split 'val': expected one of dataset own: s;"):
            read_split(tmp_path, dataset, "val")


@pytest.mark.parametrize("names", [("a.jpg", "a.png"), ("a.jpg", "a.JPG"), ("b/a.bmp", "b/a.tif")])
@pytest.mark.parametrize("is_listed", [False, True])
def test_two_pictures_of_one_id_are_refused(
    tmp_path: Path, names: tuple[str, str], is_listed: bool
) -> None:
    image_id = names[0].rpartition(".")[0]
    write(tmp_path, *(f"images/{name}" for name in names), f"masks/{image_id}.png")
    (tmp_path / "s.json").write_text(json.dumps([image_id]))
    fields = {"split_lists": {"s": str(tmp_path / "s.json")}} if is_listed else {}
    with pytest.raises(DataDirError, match=rf"image id {image_id} has the files .*image_suffixes"):
        found(tmp_path, manifest(**fields))


@pytest.mark.parametrize(
    "name", ["a\nb.jpg", "a\\b.jpg", " a.jpg", "x" * 80 + ".jpg", "a#flip.jpg"]
)
def test_a_picture_whose_name_is_no_id_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, f"images/{name}")
    with pytest.raises(DataDirError, match=r"cannot be the image id .*; rename the file"):
        found(tmp_path, manifest())


def test_a_link_that_leads_back_is_followed_once(tmp_path: Path) -> None:
    write(tmp_path, "images/a.jpg", "masks/a.png")
    (tmp_path / "images/again").symlink_to(tmp_path / "images")
    (tmp_path / "images/itself").symlink_to("itself")
    assert list(found(tmp_path, manifest())) == ["a"]


def test_a_name_that_is_composed_otherwise_is_named(tmp_path: Path) -> None:
    listed, there = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    write(tmp_path, f"images/{there}.jpg", f"masks/{there}.png")
    (tmp_path / "s.txt").write_text(f"{listed}\n")
    with pytest.raises(DataDirError, match=r"the same letters, composed otherwise .*NFD"):
        found(tmp_path, manifest(split_lists={"s": str(tmp_path / "s.txt")}))


def test_each_folder_is_listed_once_and_no_file_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        tmp_path,
        *(f"{folder}/{n % 3}/{n}.png" for n in range(30) for folder in ("images", "masks")),
    )
    lists = {}
    for part, split in enumerate(("s", "t")):
        lists[split] = str(tmp_path / f"{split}.json")
        Path(lists[split]).write_text(json.dumps([f"{n % 3}/{n}" for n in range(part, 30, 2)]))
    listed: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
    assert len(found(tmp_path, manifest(split_lists=lists))) == 30
    # Once for the lists of each split, whose entries hold slashes, and once for its files.
    assert len(listed) <= (2 * 3 + 3) + 3
    assert list_samples(tmp_path, manifest(split_lists=lists), ["s", "t"], Limit(total=4))
