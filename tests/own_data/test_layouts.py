"""Layouts: what is recognised of folders, lists and class lists, and what is told of none."""

from __future__ import annotations

import errno
import os
import shutil
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.own_trees import camvid, coco, grey, ids, picture, plain, rgb, text
from PIL import Image
from scipy.io import savemat

from vocprep.data_dir.layout import list_samples
from vocprep.errors import DataDirError
from vocprep.manifests import load_dataset
from vocprep.own_data.init import init
from vocprep.own_data.options import InitOptions


def dataset(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "dataset.toml").read_text(encoding="utf-8"))


def classes(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "classes.toml").read_text(encoding="utf-8"))


def members(folder: Path) -> dict[str, list[str]]:
    return {
        path.stem: path.read_text(encoding="utf-8").splitlines()
        for path in (folder / "dataset-splits").glob("*.txt")
    }


def listed(root: Path, out: Path | None = None) -> list[str]:
    """Return the image ids that builds take, by the manifest that was written."""
    manifest = load_dataset((out or root) / "dataset.toml")
    return [sample.image_id for sample in list_samples(root, manifest, manifest.splits)]


def voc(root: Path, values: list[int]) -> Path:
    for number in range(4):
        name = f"2007_{number:06d}"
        picture(root / "JPEGImages" / f"{name}.jpg", seed=number)
        if number < 3:
            grey(root / "SegmentationClass" / f"{name}.png", values)
    sets = root / "ImageSets" / "Segmentation"
    for split, numbers in (("train", [0, 1]), ("val", [2]), ("trainval", [0, 1, 2]), ("test", [3])):
        text(sets / f"{split}.txt", *(f"2007_{number:06d}" for number in numbers))
    return root


def test_an_official_voc_tree_has_the_shipped_names(tmp_path: Path) -> None:
    voc(tmp_path / "VOCdevkit" / "VOC2007", [0, 15, 255])
    init(tmp_path)
    assert dataset(tmp_path)["split_files"] == "VOCdevkit/VOC2007/ImageSets/Segmentation"
    assert dataset(tmp_path)["splits"] == ["train", "val"]
    assert len(classes(tmp_path)["names"]) == 21
    assert classes(tmp_path)["names"]["15"] == "person"
    own = voc(tmp_path / "VOCdevkit" / "VOC2012", [0, 30, 255])
    assert init(own).layout == "PASCAL VOC tree"
    assert classes(own)["names"]["15"] == "class 15"


def test_a_tree_in_vocs_layout_takes_its_own_class_list(tmp_path: Path) -> None:
    root = voc(tmp_path / "mine", [0, 1])
    text(root / "classes.txt", "background", "rust", "paint")
    notes = init(root).notes
    assert classes(root)["names"] == {"0": "background", "1": "rust", "2": "paint"}
    assert classes(root)["void"] == 255
    assert any("trainval.txt is left out: it joins the others" in note for note in notes)
    assert any("test.txt is left out: none of its pictures has a mask" in note for note in notes)


def test_panoptic_annotations_are_taken_before_stuff(tmp_path: Path) -> None:
    root = coco(tmp_path / "coco")
    notes = init(root).notes
    found = dataset(root)
    assert (found["images"], found["labels"]) == ("{split}2017", "panoptic_{split}2017")
    assert found["label_annotations"] == "annotations/panoptic_{split}2017.json"
    assert (found["label_kind"], found["splits"]) == ("panoptic", ["train", "val"])
    assert classes(root)["names"] == {"1": "person", "187": "sky-other-merged"}
    assert classes(root)["colours"] == {"1": "#dc143c", "187": "#4682b4"}
    assert classes(root)["void"] == 0
    assert not any("--train-split" in note for note in notes)


def test_splits_of_two_years_keep_them(tmp_path: Path) -> None:
    root = coco(tmp_path / "coco")
    for name in ("{}", "panoptic_{}", "annotations/panoptic_{}.json"):
        (root / name.format("val2017")).rename(root / name.format("val2014"))
    notes = init(root).notes
    assert dataset(root)["splits"] == ["train2017", "val2014"]
    assert any("--train-split train2017 --val-split val2014" in note for note in notes)


def test_the_label_maps_of_stuff_are_read_without_the_json(tmp_path: Path) -> None:
    root = coco(tmp_path / "coco")
    shutil.rmtree(root / "annotations")
    text(root / "labels.txt", "0: unlabeled", "1: person", "157: sky-other")
    assert init(root).layout == "COCO-Stuff tree"
    assert dataset(root)["labels"] == "stuffthingmaps/{split}2017"
    assert classes(root)["names"] == {"0": "person", "156": "sky-other"}
    assert classes(root)["void"] == 255


def test_folders_per_split_are_not_listed_again(tmp_path: Path) -> None:
    root = camvid(tmp_path / "CamVid")
    assert len(init(root).questions) == 1
    found = dataset(root)
    assert (found["images"], found["labels"]) == ("{split}", "{split}annot")
    assert found["splits"] == ["train", "val", "test"]
    assert not members(root)
    text(root / "label_colors.txt", *(f"{9 * n} 0 0\tclass{n}" for n in range(11)), "1 1 1\tVoid")
    init(root)
    assert classes(root)["void"] == 11
    assert classes(root)["names"]["3"] == "class3"


def test_a_picture_without_a_mask_in_a_split_folder_makes_lists(tmp_path: Path) -> None:
    root = camvid(tmp_path / "CamVid")
    picture(root / "train" / "lone.png")
    init(root, options=InitOptions(void=11))
    assert {split: len(ids) for split, ids in members(root).items()} == {
        **{"train": 4, "val": 2, "test": 1}
    }
    assert "0001TP_000000" in members(root)["train"]
    ids_of = [f"{split}/0001TP_{n:06d}" for split, n in (("test", 0), ("train", 3), ("val", 1))]
    assert set(ids_of) <= set(listed(root))
    assert len(listed(root)) == 7


def test_camvid_as_published_has_colours_and_marked_names(tmp_path: Path) -> None:
    root = tmp_path / "camvid"
    colours = {"Animal": (64, 128, 64), "Sky": (128, 128, 128), "Void": (0, 0, 0)}
    lines = [f"{red} {green} {blue}\t\t{name}" for name, (red, green, blue) in colours.items()]
    text(root / "label_colors.txt", *lines)
    for number in range(3):
        picture(root / "701_StillsRaw_full" / f"0001TP_{number}.png", seed=number)
        path = root / "LabeledApproved_full" / f"0001TP_{number}_L.png"
        rgb(path, [colours["Sky"], colours["Void"]])
    init(root)
    found = dataset(root)
    assert (found["label_kind"], found["label_suffix"]) == ("colours", "_L.png")
    assert found["label_colours"] == {"#408040": 0, "#808080": 1, "#000000": 2}
    assert classes(root)["void"] == 2
    assert classes(root)["colours"] == {"0": "#408040", "1": "#808080"}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("images", "masks"), ("images", "masks")),
        (("img", "Ground_Truth"), ("img", "Ground_Truth")),
        (("JPEGs", "annotations"), ("JPEGs", "annotations")),
        (("images/train", "masks/train"), ("images/{split}", "masks/{split}")),
        (("train/images", "train/labels"), ("{split}/images", "{split}/labels")),
        (("train", "train_labels"), ("{split}", "{split}_labels")),
        (("deep/er/images", "deep/er/masks"), ("deep/er/images", "deep/er/masks")),
        ((".", "."), (".", ".")),
    ],
)
def test_names_of_folders_that_people_use(
    tmp_path: Path, folders: tuple[str, str], expected: tuple[str, str]
) -> None:
    root = plain(tmp_path / "data", ["a", "b"], folders=folders)
    init(root)
    assert (dataset(root)["images"], dataset(root)["labels"]) == expected
    assert dataset(root)["splits"] == ["train"]
    assert [key.rpartition("/")[2] for key in listed(root)] == ["a", "b"]


def test_nested_and_unicode_names_are_paired(tmp_path: Path) -> None:
    stems = ["käse/brot 1", "käse/brot.2", "猫"]
    root = plain(tmp_path / "data", stems)
    result = init(root, options=InitOptions(split="67/33"))
    assert result.paired == 3
    assert sorted(chain.from_iterable(members(root).values())) == listed(root) == sorted(stems)


def test_names_that_are_no_ids_are_left_out_of_what_is_built(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b", "x#flip", "y" * 90])
    notes = init(root).notes
    assert any(note.startswith("2 pictures have names that no image id can") for note in notes)
    assert listed(root) == ["a", "b"]


def test_pictures_that_are_there_twice_are_told(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b"])
    picture(root / "images" / "b.png")
    notes = init(root).notes
    assert any("1 picture is there twice" in note and "images/b.png" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("train.txt", ["images/a.jpg masks/a.png", "images/c.jpg masks/c.png"]),
        ("train.txt", ["/data/other/a.jpg", "c.jpg"]),
        ("splits/train.csv", ["image,mask", "a.jpg,a.png", "c.jpg,c.png"]),
        ("splits/train.json", ['["a", "images/c.jpg"]']),
        ("lists/training.txt", ["a", "c"]),
    ],
)
def test_lists_of_any_form_are_written_as_split_lists(
    tmp_path: Path, name: str, lines: list[str]
) -> None:
    root = plain(tmp_path / "data", ["a", "b", "c"])
    text(root / name, *lines)
    init(root)
    assert members(root) == {"train": ["a", "c"]}
    assert dataset(root)["split_lists"] == {"train": "dataset-splits/train.txt"}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("splits.csv", ["split;file_name", "valid;b.jpg", "train;a.jpg", "train;images/c.jpg"]),
        ("splits/split.json", ['{"validation": ["b"], "train": ["c.jpg", "a"]}']),
    ],
)
def test_one_file_may_list_all_splits(tmp_path: Path, name: str, lines: list[str]) -> None:
    root = plain(tmp_path / "data", ["a", "b", "c"])
    text(root / name, *lines)
    assert init(root).notes == ()
    assert members(root) == {"train": ["a", "c"], "val": ["b"]}


def test_a_file_of_all_splits_that_names_none_is_refused(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b"])
    text(root / "splits.csv", "image,mask", "a.jpg,a.png")
    with pytest.raises(
        DataDirError, match=r"splits\.csv: expected the splits of pictures: a table"
    ):
        init(root)
    assert init(root, options=InitOptions(split="50/50")).splits == {"train": 1, "val": 1}


def test_what_a_list_of_val_does_not_name_is_train(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b", "c"])
    text(root / "valid.txt", "b.jpg", "gone.jpg")
    notes = init(root).notes
    assert members(root) == {"train": ["a", "c"], "val": ["b"]}
    assert any(
        "2 pictures with masks are in no split list: they are split train" in n for n in notes
    )
    assert any("1 entries name no picture, the first 'gone.jpg'" in note for note in notes)


def test_a_picture_in_two_lists_stays_in_the_first(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b", "c"])
    text(root / "train.txt", "a", "b")
    text(root / "val.txt", "b", "c")
    notes = init(root).notes
    assert members(root) == {"train": ["a", "b"], "val": ["c"]}
    assert listed(root) == ["a", "b", "c"]
    assert any("1 of its pictures are in an earlier split too" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "lines", "names"),
    [
        ("classes.txt", ["background", "cat", "dog"], ["background", "cat", "dog"]),
        ("classes.txt", ["cat", "dog"], ["class 0", "cat", "dog"]),
        ("labels.txt", ["0: sky", "1: cat", "2: dog"], ["sky", "cat", "dog"]),
        ("labels.txt", ["cat", "cat", "dog"], ["cat (0)", "cat (1)", "dog"]),
        ("codes.txt", ["a\tb", "cat", "dog"], ["a b", "cat", "dog"]),
    ],
)
def test_class_lists_name_the_values_of_masks(
    tmp_path: Path, name: str, lines: list[str], names: list[str]
) -> None:
    root = plain(tmp_path / "data", ["a", "b"])
    text(root / name, *lines)
    init(root)
    assert list(classes(root)["names"].values()) == names
    assert classes(root)["void"] == 255


def test_a_list_that_names_no_void_leaves_none(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a"], lambda _: [0, 1])
    text(root / "classes.txt", "background", "cat")
    assert not init(root).questions
    assert classes(root)["void"] == 255
    text(root / "classes.txt", "unlabeled", "cat")
    init(root)
    assert (classes(root)["void"], classes(root)["names"]) == (0, {"1": "cat"})


def test_a_value_without_a_name_is_asked_for(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a"], lambda _: [0, 1, 2])
    text(root / "classes.txt", "background", "cat")
    (question,) = init(root).questions
    assert "Masks hold 0, 1, 2; 2 of them without a name" in question


def test_colours_that_a_list_does_not_name_are_asked_for_one_by_one(tmp_path: Path) -> None:
    root = tmp_path / "data"
    text(root / "labelmap.txt", "background:0,0,0::", "cat:250,50,83::")
    picture(root / "images" / "a.jpg")
    rgb(root / "masks" / "a.png", [(0, 0, 0), (250, 50, 83), (1, 2, 3), (9, 9, 10)])
    questions = init(root).questions
    assert [question.split(": ")[1][:7] for question in questions] == ["#010203", "#09090a"]
    assert dataset(root)["label_colours"] == {
        **{"#000000": 0, "#fa3253": 1, "#09090a": "?", "#010203": "?"}
    }


def test_colours_without_a_list_are_numbered_by_their_share(tmp_path: Path) -> None:
    root = tmp_path / "data"
    picture(root / "images" / "a.jpg")
    rgb(root / "masks" / "a.png", [(0, 0, 9), (5, 0, 0), (5, 0, 0)])
    (question,) = init(root).questions
    assert "which id marks pixels of no class (void)?" in question
    assert dataset(root)["label_colours"] == {"#050000": 0, "#000009": 1}
    assert classes(root)["colours"] == {"0": "#050000", "1": "#000009"}


def test_values_that_were_saved_as_rgb_stay_ids(tmp_path: Path) -> None:
    root = tmp_path / "data"
    picture(root / "images" / "a.jpg")
    rgb(root / "masks" / "a.png", [(1, 1, 1), (3, 3, 3), (255, 255, 255)])
    init(root)
    table = dataset(root)["label_colours"]
    assert table == {"#000000": 0, "#010101": 1, "#020202": 2, "#030303": 3, "#ffffff": 255}
    assert classes(root)["void"] == 255


def test_smoothed_masks_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "data"
    picture(root / "images" / "a.jpg", (64, 64))
    picture(root / "masks" / "a.png", (64, 64))
    with pytest.raises(DataDirError, match=r"colours in 1 masks, .* one colour per class"):
        init(root)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "found no file"),
        (["Thumbs.db", ".DS_Store", ".cache/x.jpg"], "found no file"),
        (["README.md"], "found no picture"),
        (["images/a.jpg"], "pictures, but no masks, in images"),
        (["images/a.jpg", "masks/a.jpg"], "masks as JPEG, whose compression changes the ids"),
        (["images/a.jpg", "masks/b.png"], "no mask has the name of a picture: images/a.jpg, but"),
    ],
)
def test_what_is_not_recognised_is_told_in_one_sentence(
    tmp_path: Path, names: list[str], words: str
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".jpg", ".png"):
            grey(path, [0, 1])
        else:
            path.write_text("x")
    with pytest.raises(DataDirError) as caught:
        init(root)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside = plain(tmp_path / "outside", ["x", "y"])
    root = plain(tmp_path / "data", ["a", "b"])
    (root / "images" / "x.jpg").symlink_to(outside / "images" / "x.jpg")
    (root / "masks" / "x.png").symlink_to(outside / "masks" / "x.png")
    (root / "images" / "again.jpg").symlink_to("a.jpg")
    (root / "loop").symlink_to(root)
    result = init(root)
    assert result.paired == 2
    assert any(note.startswith("3 links are not followed") for note in result.notes)
    assert "1 picture without a mask, left out: images/again.jpg" in result.notes
    assert members(root) == {"train": ["a", "b"]} == {"train": listed(root)}


def test_builds_take_what_init_found_beside_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b"])
    (root / "images" / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    assert init(root).splits == {"train": 2}
    assert listed(root) == ["a", "b"]


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, scandir = plain(tmp_path / "data", ["a", "b"]), os.scandir
    (root / "images" / "locked").mkdir()

    def refused(path: str | Path) -> Any:
        if Path(path).name in locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    locked = {"locked"}
    assert "1 folder not readable, left out: images/locked" in init(root).notes
    assert listed(root) == ["a", "b"]
    locked = {"masks"}
    with pytest.raises(DataDirError, match="no masks, in images; the folder masks cannot be read"):
        init(root)


def test_masks_may_be_in_a_folder_below_the_pictures(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"{name}.jpg")
        grey(tmp_path / "masks" / f"{name}.png", [0, 1])
    (tmp_path / "classes.txt").write_text("x\ny\n")
    assert init(tmp_path).paired == 2
    assert listed(tmp_path) == ["a", "b"]


def test_what_init_drew_is_no_mask_the_next_time(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    grey(tmp_path / "a.png", [0, 1])
    first = init(tmp_path)
    assert first.files[-1].name == "init-overlay.png"
    assert init(tmp_path) == first


@pytest.mark.parametrize("content", ["[]", '{"categories": [1]}', '{"categories": [{"id": "1"}]}'])
def test_a_panoptic_json_of_another_form_is_named(tmp_path: Path, content: str) -> None:
    path = coco(tmp_path / "data") / "annotations" / "panoptic_train2017.json"
    path.write_text(content)
    with pytest.raises(DataDirError, match=r"whose categories .*, found none; replace it by"):
        init(tmp_path / "data")


def test_the_question_about_void_names_the_ids_that_masks_hold(tmp_path: Path) -> None:
    grey(tmp_path / "masks" / "a.png", [3, 7])
    picture(tmp_path / "images" / "a.jpg")
    assert "Masks hold 3, 7; write the id" in init(tmp_path).questions[0]


@pytest.mark.parametrize(("suffix", "kind"), [(".tif", "tiff"), (".npy", "npy"), (".mat", "mat")])
def test_masks_may_be_arrays(tmp_path: Path, suffix: str, kind: str) -> None:
    root = tmp_path / "data"
    for number in range(2):
        values = ids([0, 1 + number, 255])
        picture(root / "images" / f"a{number}.jpg", seed=number)
        path = root / "masks" / f"a{number}{suffix}"
        path.parent.mkdir(exist_ok=True)
        if suffix == ".tif":
            Image.fromarray(values).save(path)
        elif suffix == ".npy":
            np.save(path, np.where(values == 255, -1, values.astype(np.int64)))
        else:
            savemat(path, {"GTcls": values.astype(float), "note": "x"}, do_compression=True)
    init(root)
    assert dataset(root)["label_kind"] == kind
    assert dataset(root).get("label_variable") == ("GTcls" if suffix == ".mat" else None)
    assert list(classes(root)["names"]) == ["0", "1", "2"]
    assert classes(root)["void"] == 255
    assert (root / "init-overlay.png").is_file()


def test_two_variables_that_can_be_the_label_map_are_told(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.jpg")
    (tmp_path / "masks").mkdir()
    savemat(tmp_path / "masks" / "a.mat", {"inst": ids([0, 1]), "cls": ids([0, 2])})
    with pytest.raises(DataDirError, match=r"2 variables can be the label map: inst, cls; keep"):
        init(tmp_path)


def test_folders_of_any_name_are_found_by_the_names_of_their_files(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b"], folders=("2024/from phone", "by hand"))
    init(root)
    assert (dataset(root)["images"], dataset(root)["labels"]) == ("2024/from phone", "by hand")
    shutil.copytree(root / "by hand", root / "by machine")
    with pytest.raises(DataDirError, match=r"phone and by hand, 2024/from phone and by machine"):
        init(root, out=tmp_path / "out")


@pytest.mark.parametrize("name", ['a "b" \\ c', "x = 1 # y", "ü\u007f", "  spaced  out ", "7"])
def test_names_of_any_characters_survive_the_toml(tmp_path: Path, name: str) -> None:
    root = plain(tmp_path / "data", ["a"])
    text(root / "labelmap.txt", "background:0,0,0::", f"{name}:1,1,1::")
    init(root)
    expected = " ".join(name.replace("\u007f", "\\x7f").split())
    assert classes(root)["names"]["1"] == expected


def test_a_folder_that_no_manifest_can_name_is_told(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a"], folders=("im\nages/images", "im\nages/masks"))
    with pytest.raises(DataDirError, match=r"no manifest can describe it: images: .*control char"):
        init(root)


def test_a_table_of_colours_names_classes(tmp_path: Path) -> None:
    root = tmp_path / "data"
    text(root / "class_dict.csv", "name,r,g,b", "Sky,128,128,128", "Void,0,0,0")
    picture(root / "train" / "a.png")
    rgb(root / "train_labels" / "a_L.png", [(128, 128, 128), (0, 0, 0)])
    init(root)
    assert dataset(root)["label_colours"] == {"#808080": 0, "#000000": 1}
    assert (classes(root)["names"], classes(root)["void"]) == ({"0": "Sky"}, 1)


@pytest.mark.parametrize(
    ("name", "lines", "words"),
    [
        ("class_dict.csv", ["name,r,g,b"], "line 1: expected name,red,green,blue below it"),
        ("labelmap.txt", ["a:0,0,0::", "b:0,0,0::"], "line 2: expected another colour than"),
        ("labelmap.txt", ["a:0,0,300::"], "line 1: expected red, green and blue from 0 to 255"),
        ("labelmap.txt", ["a,b"], "line 1: expected label:red,green,blue:parts:actions"),
        ("label_colors.txt", ["0 0 0 a", "b"], "line 2: expected red green blue name, found 'b'"),
        ("classes.txt", ["", "# none"], "expected names of classes, found none"),
        ("classes.txt", ["a\0b"], "cannot be read as a list of classes"),
    ],
)
def test_a_class_list_of_another_form_is_told_by_its_line(
    tmp_path: Path, name: str, lines: list[str], words: str
) -> None:
    root = plain(tmp_path / "data", ["a"])
    text(root / name, *lines)
    with pytest.raises(DataDirError) as caught:
        init(root)
    assert f"{name}: {words}" in str(caught.value)
