"""The sample in other layouts: the same scenes, in the files of other tools and datasets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders.own_data import classes_below
from numpy.typing import NDArray
from PIL import Image

from vocprep.errors import UsageError
from vocprep.synthetic.dataset import MARKER, sample
from vocprep.synthetic.layouts import SampleLayout

IMAGES = 8
LAYOUTS: tuple[SampleLayout, ...] = ("labelme", "camvid", "cvat", "coco", "plain")
Tree = Callable[[SampleLayout], Path]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Return the folder of a layout; each is made once."""
    made: dict[str, Path] = {}

    def folder(layout: SampleLayout) -> Path:
        if layout not in made:
            made[layout] = tmp_path_factory.mktemp(layout)
            sample(made[layout], images=IMAGES, layout=layout)
        return made[layout]

    return folder


def read(path: Path, mode: str) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.mode == mode, path
        return np.asarray(image)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def test_labelme_has_palette_masks_and_arrays(tree: Tree) -> None:
    folder = tree("labelme")
    listed = (folder / "class_names.txt").read_text().split("\n")
    assert listed[0] == "_background_"
    masks = [read(path, "P") for path in files(folder / "SegmentationClass")]
    found = classes_below(masks, tree("voc"))
    assert found.pop(255) == {""}
    assert all(below == {listed[value]} for value, below in found.items() if value)
    assert len(found) == 20
    for path, mask in zip(files(folder / "SegmentationClassNpy"), masks, strict=True):
        array = np.load(path)
        assert array.dtype == np.int32
        np.testing.assert_array_equal(array, np.where(mask == 255, -1, mask.astype(int)))
    for part in ("JPEGImages", "SegmentationClassVisualization"):
        assert [path.stem for path in files(folder / part)][:2] == ["IMG_0001", "IMG_0002"]


def test_camvid_has_a_folder_per_split_and_pairs_of_paths(tree: Tree) -> None:
    folder = tree("camvid")
    numbered: dict[int, NDArray[np.uint8]] = {}
    for split, count in (("train", 6), ("val", 2)):
        lines = (folder / f"{split}.txt").read_text().splitlines()
        assert len(lines) == count == len(files(folder / split))
        for line in lines:
            image, mask = (folder / path.removeprefix("/SegNet/CamVid/") for path in line.split())
            assert image.name == mask.name
            assert (image.parent.name, mask.parent.name) == (split, f"{split}annot")
            numbered[int(image.stem[-6:])] = mask_values = read(mask, "L")
            assert read(image, "RGB").shape[:2] == mask_values.shape
    found = classes_below([numbered[key] for key in sorted(numbered)], tree("voc"))
    assert found[0] == {"sky"}
    assert found[9] == {"person"}
    assert "" in found[11]
    assert set(found) == set(range(12))


def test_cvat_has_the_colours_of_its_labelmap(tree: Tree) -> None:
    folder = tree("cvat")
    head, *lines = (folder / "labelmap.txt").read_text().splitlines()
    assert head == "# label:color_rgb:parts:actions"
    colours = {}
    for line in lines:
        name, colour, *empty = line.split(":")
        assert empty == ["", ""]
        colours[name] = int("".join(f"{int(part):02x}" for part in colour.split(",")), 16)
    assert next(iter(colours)) == "background"
    listed = (folder / "ImageSets" / "Segmentation" / "default.txt").read_text().splitlines()
    for part in ("JPEGImages", "SegmentationClass", "SegmentationObject"):
        assert [path.stem for path in files(folder / part)] == listed
    masks = [
        read(path, "RGB").astype(int) @ [65536, 256, 1]
        for path in sorted((folder / "SegmentationClass").iterdir())
    ]
    found = classes_below(masks, tree("voc"))
    assert "" in found.pop(colours["background"])
    assert found == {colours[name]: {name} for name in list(colours)[1:]}
    regions = read(folder / "SegmentationObject" / "frame_000000.png", "RGB")
    assert ((regions == 0).all(axis=2) == (masks[0] == 0)).all()


def test_coco_tells_the_segments_of_its_label_maps(tree: Tree) -> None:
    folder = tree("coco")
    categories: dict[int, str] = {}
    panoptic: dict[int, NDArray[np.integer]] = {}
    stuff: dict[int, NDArray[np.uint8]] = {}
    for split in ("train2017", "val2017"):
        document = json.loads((folder / "annotations" / f"panoptic_{split}.json").read_text())
        categories |= {entry["id"]: entry["name"] for entry in document["categories"]}
        sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in document["images"]}
        for annotation in document["annotations"]:
            number = annotation["image_id"]
            rgb = read(folder / f"panoptic_{split}" / annotation["file_name"], "RGB").astype(int)
            segments = rgb @ [1, 256, 65536]
            assert segments.shape == sizes[number]
            panoptic[number] = np.zeros_like(segments)
            for entry in annotation["segments_info"]:
                inside = segments == entry["id"]
                rows, columns = np.nonzero(inside)
                size = [int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
                assert entry["bbox"] == [columns.min(), rows.min(), *size]
                assert entry["area"] == len(rows)
                panoptic[number][inside] = entry["category_id"]
            assert ((panoptic[number] == 0) == (segments == 0)).all()
            stuff[number] = read(folder / f"stuffthingmaps/{split}/{number:012d}.png", "L")
    found = classes_below([panoptic[number] for number in range(1, IMAGES + 1)], tree("voc"))
    assert "" in found.pop(0)
    assert all(len(below) == 1 for below in found.values())
    by_name = {categories[value]: below for value, below in found.items()}
    assert (by_name["sky-other-merged"], by_name["person"]) == ({"sky"}, {"person"})
    found_stuff = classes_below([stuff[number] for number in range(1, IMAGES + 1)], tree("voc"))
    assert "" in found_stuff.pop(255)
    assert (found_stuff[156], found_stuff[0]) == ({"sky"}, {"person"})
    assert set().union(*found_stuff.values()) == set().union(*found.values())


def test_plain_has_images_and_grey_masks_only(tree: Tree) -> None:
    folder = tree("plain")
    assert {path.name for path in folder.iterdir()} == {"images", "masks", MARKER}
    masks = [read(path, "L") for path in files(folder / "masks")]
    found = classes_below(masks, tree("voc"))
    assert (found[1], found[2], found[255]) == ({"sky"}, {"wall"}, {""})
    assert files(folder / "images")[0].name == "0001.jpg"


PICTURES: dict[SampleLayout, str] = {
    "labelme": "JPEGImages/*",
    "camvid": "[tv]*[nl]/*",
    "cvat": "JPEGImages/*",
    "coco": "[tv]*2017/*",
    "plain": "images/*",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_those_of_the_default_layout(tree: Tree, layout: SampleLayout) -> None:
    default = files(tree("voc") / "VOCdevkit" / "VOC2010" / "JPEGImages")
    images = sorted(tree(layout).glob(PICTURES[layout]), key=lambda path: path.stem)
    for path, expected in zip(images, default, strict=True):
        if layout == "camvid":  # PNG keeps what JPEG loses
            difference = np.abs(read(path, "RGB").astype(int) - read(expected, "RGB"))
            assert difference.mean() < 8
        else:
            assert path.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_options_give_the_same_bytes(tree: Tree, layout: SampleLayout, tmp_path: Path) -> None:
    sample(tmp_path / "new", images=2, layout=layout)
    sample(tmp_path / "new", images=2, layout=layout)
    sample(tmp_path / "other", images=2, layout=layout)
    new = {path.relative_to(tmp_path / "new"): path for path in (tmp_path / "new").rglob("*.*")}
    assert len(new) > 4
    for relative, path in new.items():
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "other" / relative).read_bytes()
            if path.suffix in (".jpg", ".png", ".npy"):
                assert path.read_bytes() == (tree(layout) / relative).read_bytes()


def test_summary_counts_splits_where_files_tell_them(tree: Tree) -> None:
    expected = {"labelme": (8, 0), "cvat": (8, 0), "plain": (8, 0), "camvid": (6, 2)}
    for layout in LAYOUTS:
        summary = sample(tree(layout), images=IMAGES, layout=layout)
        assert (summary.train, summary.val) == expected.get(layout, (6, 2))
    assert sample(tree("camvid"), images=IMAGES, layout="camvid").classes == 11


def test_another_layout_is_not_overwritten(tree: Tree) -> None:
    found = (
        r"the sample of 8 images and seed 0 in the layout cvat, found that of 8 images and seed 0 "
        r"in the layout plain; choose another folder$"
    )
    with pytest.raises(UsageError, match=found):
        sample(tree("plain"), images=IMAGES, layout="cvat")
    with pytest.raises(UsageError, match="layout 'voc2': expected "):
        sample(tree("plain"), layout="voc2")  # type: ignore[arg-type]
