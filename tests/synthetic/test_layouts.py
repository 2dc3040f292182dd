"""The sample in other layouts: the same scenes, in the files of other tools and datasets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat

from vocprep.errors import UsageError
from vocprep.labels.label_space import load_label_space
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


@pytest.fixture(scope="module")
def names() -> dict[int, str]:
    return dict(load_label_space("context460").names)


def truth(voc: Path, number: int) -> NDArray[np.uint16]:
    """The ids of context460 of an image, as the default layout has them."""
    found: NDArray[np.uint16] = loadmat(voc / "trainval" / f"2010_{number:06d}.mat")["LabelMap"]
    return found


def read(path: Path, mode: str) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.mode == mode, path
        return np.asarray(image)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def names_of(
    classes: NDArray[np.integer], labels: NDArray[np.uint16], names: dict[int, str]
) -> dict[int, set[str]]:
    """Which classes of context460 lie below each value."""
    found: dict[int, set[str]] = {}
    for pair in np.unique(classes.astype(np.int64) * 460 + labels).tolist():
        found.setdefault(pair // 460, set()).add(names.get(pair % 460, ""))
    return found


def all_names_of(
    masks: list[NDArray[np.integer]], voc: Path, names: dict[int, str]
) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for number, mask in enumerate(masks, start=1):
        for value, below in names_of(mask, truth(voc, number), names).items():
            found.setdefault(value, set()).update(below)
    return found


def test_labelme_has_palette_masks_and_arrays(tree: Tree, names: dict[int, str]) -> None:
    folder = tree("labelme")
    listed = (folder / "class_names.txt").read_text().split("\n")
    assert listed[0] == "_background_"
    masks = [read(path, "P") for path in files(folder / "SegmentationClass")]
    found = all_names_of(list(masks), tree("voc"), names)
    assert found.pop(255) == {""}
    assert all(below == {listed[value]} for value, below in found.items() if value)
    assert len(found) == 20
    for path, mask in zip(files(folder / "SegmentationClassNpy"), masks, strict=True):
        array = np.load(path)
        assert array.dtype == np.int32
        np.testing.assert_array_equal(array, np.where(mask == 255, -1, mask.astype(int)))
    for part in ("JPEGImages", "SegmentationClassVisualization"):
        assert [path.stem for path in files(folder / part)][:2] == ["IMG_0001", "IMG_0002"]


def test_camvid_has_a_folder_per_split_and_pairs_of_paths(
    tree: Tree, names: dict[int, str]
) -> None:
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
    found = all_names_of([numbered[key] for key in sorted(numbered)], tree("voc"), names)
    assert found[0] == {"sky"}
    assert found[9] == {"person"}
    assert "" in found[11]
    assert set(found) == set(range(12))


def test_cvat_has_the_colours_of_its_labelmap(tree: Tree, names: dict[int, str]) -> None:
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
    found = all_names_of(masks, tree("voc"), names)
    assert "" in found.pop(colours["background"])
    assert found == {colours[name]: {name} for name in list(colours)[1:]}
    regions = read(folder / "SegmentationObject" / "frame_000000.png", "RGB")
    assert ((regions == 0).all(axis=2) == (masks[0] == 0)).all()


def test_coco_tells_the_segments_of_its_label_maps(tree: Tree, names: dict[int, str]) -> None:
    folder = tree("coco")
    found: dict[str, set[str]] = {}
    stuff: dict[int, set[str]] = {}
    for split in ("train2017", "val2017"):
        document = json.loads((folder / "annotations" / f"panoptic_{split}.json").read_text())
        categories = {entry["id"]: entry["name"] for entry in document["categories"]}
        sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in document["images"]}
        for annotation in document["annotations"]:
            number = annotation["image_id"]
            rgb = read(folder / f"panoptic_{split}" / annotation["file_name"], "RGB").astype(int)
            ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
            assert ids.shape == sizes[number]
            areas = {entry["id"]: entry["area"] for entry in annotation["segments_info"]}
            values, counts = np.unique(ids[ids > 0], return_counts=True)
            assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == areas
            for entry in annotation["segments_info"]:
                rows, columns = np.nonzero(ids == entry["id"])
                size = [int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
                assert entry["bbox"] == [columns.min(), rows.min(), *size]
                below = names_of(ids == entry["id"], truth(tree("voc"), number), names)[1]
                found.setdefault(categories[entry["category_id"]], set()).update(below)
            mask = read(folder / "stuffthingmaps" / split / f"{number:012d}.png", "L")
            for value, below in names_of(mask, truth(tree("voc"), number), names).items():
                stuff.setdefault(value, set()).update(below)
    assert all(len(below) == 1 for below in found.values())
    assert (found["sky-other-merged"], found["person"]) == ({"sky"}, {"person"})
    assert "" in stuff.pop(255)
    assert (stuff[156], stuff[0]) == ({"sky"}, {"person"})
    assert set().union(*stuff.values()) == set().union(*found.values())


def test_plain_has_images_and_grey_masks_only(tree: Tree, names: dict[int, str]) -> None:
    folder = tree("plain")
    assert {path.name for path in folder.iterdir()} == {"images", "masks", MARKER}
    masks = [read(path, "L") for path in files(folder / "masks")]
    found = all_names_of(list(masks), tree("voc"), names)
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
