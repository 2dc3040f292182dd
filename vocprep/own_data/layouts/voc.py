"""Trees of VOC's form: VOC itself, labelme's, and the mask exports of CVAT and Datumaro."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from vocprep.own_data.layouts.class_lists import (
    IGNORED,
    LABELMAP_NAMES,
    find_class_list,
)
from vocprep.own_data.layouts.found import Found, is_mask, is_picture, suffix_of
from vocprep.own_data.layouts.split_files import list_files
from vocprep.own_data.tree import Tree, join

IMAGES = "JPEGImages"
MASKS = "SegmentationClass"
VOID = 255
_PNG_MASKS = "SegmentationClassPNG"
_NPY_MASKS = "SegmentationClassNpy"
_BACKGROUND = "_background_"
"""labelme's name of 0, which its list begins with in most releases."""
_OFFICIAL = re.compile(r"VOC20\d\d")


def find_labelme(tree: Tree, root: str) -> Found | None:
    """Return labelme's ``data_dataset_voc``: its PNGs where it has them, else its arrays.

    Earlier releases keep arrays in SegmentationClass and PNGs in SegmentationClassPNG, later ones
    PNGs in SegmentationClass and arrays in SegmentationClassNpy.
    """
    listed = {name.lower() for name in tree.files(root)}
    if "class_names.txt" not in listed or IMAGES not in tree.subfolders(root):
        return None
    class_list = find_class_list(tree, [root])
    if class_list is None or class_list.names[0] not in (IGNORED, _BACKGROUND):
        return None
    kinds = [
        (folder, suffix)
        for suffix in (".png", ".npy")
        for folder in (_PNG_MASKS, MASKS, _NPY_MASKS)
        if any(suffix_of(name) == suffix for name in tree.files(join(root, folder)))
    ]
    if not kinds:
        return None
    folder, suffix = kinds[0]
    return Found(
        layout="VOC export of labelme",
        images=join(root, IMAGES),
        labels=join(root, folder),
        label_suffix=suffix,
        lists=list_files(tree, root),
        class_list=class_list,
        void=VOID,
    )


def find_mask_export(tree: Tree, root: str) -> Found | None:
    """Return the mask export of CVAT or Datumaro, whose labelmap.txt has the colours of classes.

    Pictures may be in another folder of the tree, since CVAT exports them only when told to.
    """
    listed = {name.lower() for name in tree.files(root)}
    if not listed & set(LABELMAP_NAMES) or MASKS not in tree.subfolders(root):
        return None
    images = join(root, IMAGES)
    elsewhere = () if tree.has_files_below(images) else _pictures_of(tree, join(root, MASKS))
    return Found(
        layout="mask export of CVAT or Datumaro",
        images=elsewhere[0] if len(elsewhere) == 1 else images,
        labels=join(root, MASKS),
        lists=list_files(tree, root),
        class_list=find_class_list(tree, [root]),
        notes=(f"pictures are in {elsewhere[0] or '.'}",) if len(elsewhere) == 1 else (),
    )


def find_voc(tree: Tree, root: str) -> Found | None:
    """Return a tree of JPEGImages and SegmentationClass."""
    folders = tree.subfolders(root)
    if IMAGES not in folders or MASKS not in folders:
        return None
    names = tree.files(join(root, MASKS))
    masks = next((suffix_of(name) for name in names if is_mask(name)), ".png")
    is_official = _OFFICIAL.fullmatch(PurePosixPath(root or tree.root.name).name) is not None
    return Found(
        layout="PASCAL VOC tree" if is_official else "tree in VOC's layout",
        images=join(root, IMAGES),
        labels=join(root, MASKS),
        label_suffix=masks,
        lists=list_files(tree, root),
        class_list=find_class_list(tree, [root, join(root, "ImageSets"), join(root, MASKS)]),
        void=VOID,
        shipped_classes="voc21" if is_official else "",
    )


def _pictures_of(tree: Tree, masks: str) -> tuple[str, ...]:
    """Return the folders that hold a picture of each mask."""
    stems = {PurePosixPath(name).stem for name in tree.files(masks) if is_mask(name)}
    return tuple(
        folder
        for folder, names in tree.folders.items()
        if folder != masks
        and PurePosixPath(folder).name != "SegmentationObject"
        and stems
        and stems <= {PurePosixPath(name).stem for name in names if is_picture(name)}
    )
