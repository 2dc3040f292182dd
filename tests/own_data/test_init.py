"""``init``: what it writes of each layout, what it never touches, and what it cannot know."""

from __future__ import annotations

import hashlib
import shlex
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from builders.own_trees import CVAT, cvat, grey, labelme, picture, plain, rgb, text

from vocprep.errors import DataDirError, ManifestError, UsageError
from vocprep.labels.label_space import load_label_space
from vocprep.manifests import load_dataset
from vocprep.own_data.init import init
from vocprep.own_data.options import InitOptions


def dataset(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "dataset.toml").read_text(encoding="utf-8"))


def classes(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "classes.toml").read_text(encoding="utf-8"))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_plain_folders_are_described_and_nothing_of_the_users_changes(tmp_path: Path) -> None:
    root = plain(tmp_path / "My pets (2024)", ["a", "b", "c"])
    before = digests(root)
    result = init(root)
    after = digests(root)
    assert {key: after[key] for key in before} == before
    assert set(after) - set(before) == {"dataset.toml", "classes.toml", "init-overlay.png"}
    assert dataset(root) == {
        "name": "My-pets-2024",
        "title": "My-pets-2024",
        "images": "images",
        "labels": "masks",
        "label_kind": "png",
        "splits": ["train"],
        "schemas": ["classes.toml"],
    }
    assert classes(root)["void"] == 255
    assert classes(root)["names"] == {"0": "class 0", "1": "class 1", "2": "class 2"}
    assert load_dataset(root / "dataset.toml").name == "My-pets-2024"
    assert load_label_space(root / "classes.toml").outputs == 3
    assert shlex.split(result.command) == [
        *("vocprep", "build-shards", str(root / "dataset.toml")),
        *("--data-dir", str(root), "--out", "shards/My-pets-2024"),
    ]
    assert result.void_percent == pytest.approx(100 / 3, abs=4)


def test_a_dry_run_writes_nothing_and_finds_the_same(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b", "c"])
    before = digests(root)
    dry = init(root, options=InitOptions(dry_run=True))
    assert digests(root) == before
    wet = init(root)
    assert {**dry.to_json(), "dry_run": False} == wet.to_json()


def test_another_folder_holds_the_manifests_and_paths_stay_below_the_data_dir(
    tmp_path: Path,
) -> None:
    root = plain(tmp_path / "data", ["a", "b", "c", "d"])
    before = digests(root)
    init(root, out=tmp_path / "out", options=InitOptions(split="50/25/25", seed=3))
    assert digests(root) == before
    manifest = load_dataset(tmp_path / "out" / "dataset.toml")
    assert (manifest.images, manifest.splits) == ("images", ("train", "val", "test"))
    lists = [Path(path) for path in (manifest.split_lists or {}).values()]
    assert [path.parent for path in lists] == [tmp_path / "out" / "dataset-splits"] * 3
    members = [path.read_text().split() for path in lists]
    assert [len(ids) for ids in members] == [2, 1, 1]
    assert sorted(chain.from_iterable(members)) == ["a", "b", "c", "d"]


def test_a_split_follows_from_its_seed_alone(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", [f"im{number}" for number in range(12)])
    found = []
    for out, seed in (("one", 0), ("two", 0), ("three", 1)):
        init(root, out=tmp_path / out, options=InitOptions(split="75/25", seed=seed))
        found.append((tmp_path / out / "dataset-splits" / "val.txt").read_text().split())
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 3


def test_the_same_call_again_changes_nothing_and_another_replaces_what_nobody_edited(
    tmp_path: Path,
) -> None:
    root = plain(tmp_path / "data", [f"im{number}" for number in range(8)])
    init(root, options=InitOptions(split="50/25/25"))
    before = digests(root)
    init(root, options=InitOptions(split="50/25/25"))
    assert digests(root) == before
    init(root, options=InitOptions(split="75/25", void="none"))
    assert dataset(root)["splits"] == ["train", "val"]
    assert not (root / "dataset-splits" / "test.txt").exists()
    assert classes(root)["names"]["255"] == "class 255"


@pytest.mark.parametrize("name", ["dataset.toml", "classes.toml", "dataset-splits/val.txt"])
def test_what_somebody_wrote_or_edited_is_never_replaced(tmp_path: Path, name: str) -> None:
    root = plain(tmp_path / "data", ["a", "b", "c"])
    init(root, options=InitOptions(split="67/33"))
    edited = root / name
    more = '7 = "another class"' if name == "classes.toml" else "# mine"
    edited.write_text(f"{edited.read_text()}{more}\n")
    before = digests(root)
    with pytest.raises(UsageError, match=r"is there already.* move it away, or .* --out"):
        init(root, options=InitOptions(split="33/67"))
    assert digests(root) == before


def test_edited_names_stay_where_the_ids_are_the_same(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b", "c"])
    init(root)
    edited = root / "classes.toml"
    edited.write_text(edited.read_text().replace("class 1", "cat"))
    before = edited.read_bytes()
    for split in ("67/33", "33/67"):
        result = init(root, options=InitOptions(split=split))
        assert any("classes.toml was edited and is kept" in note for note in result.notes)
        assert [row.name for row in result.classes] == ["class 0", "cat", "class 2", "void"]
        assert root / "classes.toml" not in result.files
        assert edited.read_bytes() == before
    assert dataset(root)["splits"] == ["train", "val"]
    with pytest.raises(UsageError, match="has other ids than these masks"):
        init(root, options=InitOptions(void=2))


def test_void_that_was_answered_in_the_classes_is_not_asked_again(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b"], lambda number: [0, 1, 2 + number])
    init(root)
    lines = (root / "classes.toml").read_text().replace('void = "?"', "void = 3").splitlines()
    kept = [line for line in lines if not line.startswith("3 = ")]
    text(root / "classes.toml", *kept)
    result = init(root, options=InitOptions(split="50/50"))
    assert (result.void, result.void_note, result.questions) == (3, "as classes.toml has it", ())
    assert load_label_space(root / "classes.toml").void == 3


def test_splits_that_another_call_replaces_are_told(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b", "c"])
    alone = "all pictures are split train: heads are trained without validation; --split 80/20"
    assert init(root).notes == (f"{alone} divides them",)
    assert init(root, options=InitOptions(split="67/33")).notes == ()
    assert init(root, options=InitOptions(split="67/33")).notes == ()
    for dry_run in (True, False):
        told, hint = init(root, options=InitOptions(void="none", dry_run=dry_run)).notes
        assert told.startswith("the splits train, val of an earlier init are replaced; where --spl")
        assert hint.startswith(alone)
    assert "earlier init" not in (root / "dataset.toml").read_text()


def test_void_above_what_masks_of_8_bits_hold_is_refused(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b"])
    with pytest.raises(UsageError, match=r"void 300: the masks are of 8 bits and hold no id above"):
        init(root, options=InitOptions(void=300))
    init(root, options=InitOptions(void=65_534))  # what a question offers where 255 is a class
    assert classes(root)["names"]["255"] == "class 255"


def test_a_link_in_the_place_of_a_manifest_is_not_written_through(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b"])
    (root / "classes.toml").symlink_to(tmp_path / "elsewhere.toml")
    with pytest.raises(UsageError, match=r"classes\.toml: is there already"):
        init(root)
    assert not (tmp_path / "elsewhere.toml").exists()


def test_a_manifest_of_somebody_else_cannot_make_init_remove_files(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b"])
    init(root)
    victim = root / "images" / "a.jpg"
    digest = hashlib.sha256(victim.read_bytes()).hexdigest()
    with (root / "dataset.toml").open("a") as stream:
        stream.write(f"# {digest} images/a.jpg\n# {digest} ../data/images/a.jpg\n")
    init(root)
    assert victim.exists()


@pytest.mark.parametrize("is_old", [True, False])
def test_labelmes_export_is_read_from_its_pngs(tmp_path: Path, is_old: bool) -> None:
    root = labelme(tmp_path / "data_dataset_voc", is_old=is_old)
    result = init(root)
    folder = "SegmentationClassPNG" if is_old else "SegmentationClass"
    assert (dataset(root)["labels"], dataset(root)["label_kind"]) == (folder, "png")
    assert classes(root)["names"] == {"0": "_background_", "1": "cat", "2": "dog"}
    assert (classes(root)["void"], result.layout) == (255, "VOC export of labelme")
    assert not result.questions


@pytest.mark.parametrize("is_palette", [True, False])
def test_a_mask_export_takes_names_and_colours_from_its_labelmap(
    tmp_path: Path, is_palette: bool
) -> None:
    root = cvat(tmp_path / "task", is_palette=is_palette)
    init(root)
    found = dataset(root)
    assert found["label_kind"] == "colours"
    assert found["label_colours"] == {"#000000": 0, "#fa3253": 1, "#33ddff": 2}
    assert (found["split_files"], found["splits"]) == ("ImageSets/Segmentation", ["default"])
    assert classes(root)["names"] == {str(key): name for key, name in enumerate(CVAT)}
    assert classes(root)["colours"] == {"0": "#000000", "1": "#fa3253", "2": "#33ddff"}


def test_pictures_that_were_not_exported_are_found_beside(tmp_path: Path) -> None:
    root = cvat(tmp_path / "task", pictures="frames")
    assert init(root).notes[0] == "pictures are in frames"
    assert dataset(root)["images"] == "frames"
    with pytest.raises(DataDirError, match=r"no picture of the 4 masks .* put them there"):
        init(cvat(tmp_path / "bare", pictures=None))


def test_a_layout_is_found_below_its_folder_and_several_are_told_apart(tmp_path: Path) -> None:
    labelme(tmp_path / "work" / "data_dataset_voc", is_old=False)
    init(tmp_path / "work")
    assert dataset(tmp_path / "work")["images"] == "data_dataset_voc/JPEGImages"
    cvat(tmp_path / "work" / "task")
    with pytest.raises(DataDirError, match=r"2 datasets, in data_dataset_voc, task; name"):
        init(tmp_path / "work")


def test_an_unanswered_question_refuses_the_manifest_with_the_question(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b"], lambda number: [0, 1, 2 + number])
    result = init(root)
    assert len(result.questions) == 1
    with pytest.raises(ManifestError, match=r"classes\.toml: line \d+: void is not answered: whi"):
        load_label_space(root / "classes.toml")
    init(root, options=InitOptions(void=3))
    assert load_label_space(root / "classes.toml").void == 3
    assert list(load_label_space(root / "classes.toml").names) == [0, 1, 2]


def test_black_and_white_masks_ask_whether_white_is_a_class(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b"], lambda _: [0, 255])
    init(root)
    with pytest.raises(ManifestError, match=r'"#ffffff" is not answered: masks hold 0'):
        load_dataset(root / "dataset.toml")
    for void, white, names in (("none", 1, ["0", "1"]), (255, 255, ["0"]), (0, 1, ["1"])):
        init(root, options=InitOptions(void=void))  # type: ignore[arg-type]
        assert dataset(root)["label_colours"] == {"#000000": 0, "#ffffff": white}
        assert list(classes(root)["names"]) == names


def test_what_is_alone_or_does_not_fit_is_told(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b", "c"])
    picture(root / "images" / "lone.jpg")
    grey(root / "masks" / "stray.png", [0, 1])
    grey(root / "masks" / "b.png", [0, 1, 255], (10, 10))
    text(root / "masks" / "c.png", "no picture at all")
    notes = init(root).notes
    assert "1 picture without a mask, left out: images/lone.jpg" in notes
    assert "1 mask without a picture: masks/stray.png" in notes
    assert any("1 mask has another size" in note and "b, mask 10×10" in note for note in notes)
    assert any("1 file does not decode" in note and "c.png" in note for note in notes)


def test_names_that_only_look_the_same_are_told(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a"])
    composed, apart = "caf\u00e9", "cafe\u0301"
    picture(root / "images" / f"{composed}.jpg")
    grey(root / "masks" / f"{apart}.png", [0, 1, 255])
    assert any("composed (Unicode's NFC and NFD)" in note for note in init(root).notes)
    (root / "images" / f"{composed}.jpg").rename(root / "images" / "CAFE.jpg")
    (root / "masks" / f"{apart}.png").rename(root / "masks" / "cafe.png")
    (root / "images" / "a.jpg").unlink()
    with pytest.raises(DataDirError, match=r"differ in letter case: images/CAFE\.jpg and masks/ca"):
        init(root)


def test_ids_and_colours_without_a_table_are_not_mixed(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b", "c"])
    rgb(root / "masks" / "b.png", [(0, 0, 0), (200, 0, 0)])
    with pytest.raises(DataDirError, match=r"2 8-bit grey PNG such as a\.png, 1 RGB PNG such as b"):
        init(root)


def test_masks_of_another_kind_are_left_out_with_advice(tmp_path: Path) -> None:
    root = plain(tmp_path / "data", ["a", "b", "c", "d"])
    for stem, suffix in (("c", ".jpg"), ("d", ".tif")):
        picture(root / "masks" / f"{stem}{suffix}")
        (root / "masks" / f"{stem}.png").unlink()
    notes = init(root).notes
    assert any("as JPEG, which changes ids" in note and "masks/c.jpg" in note for note in notes)
    assert any("not *.png, left out (convert them): masks/d.tif" in note for note in notes)
