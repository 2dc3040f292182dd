"""All layouts that are recognised, and where in a tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vocprep.errors import DataDirError
from vocprep.own_data.layouts.coco import find_panoptic, find_stuff
from vocprep.own_data.layouts.found import Found, is_mask, is_picture
from vocprep.own_data.layouts.plain import (
    find_by_names,
    find_camvid,
    find_plain,
    find_same_folder,
    find_split_folders,
)
from vocprep.own_data.layouts.voc import find_labelme, find_mask_export, find_voc
from vocprep.own_data.tree import Tree, join
from vocprep.validation import printable

LAYOUTS: tuple[Callable[[Tree, str], Found | None], ...] = (
    find_labelme,
    find_mask_export,
    find_voc,
    find_panoptic,
    find_stuff,
    find_camvid,
    find_split_folders,
    find_plain,
    find_same_folder,
)
"""The first that finds something counts."""
_DEEPEST = 3
"""Folders in folders that are looked into for a layout."""
_MOST_SHOWN = 5


def recognise(tree: Tree) -> Found:
    """Return what a tree holds: in itself, else in the only folder in it that is recognised.

    DataDirError where nothing is recognised, or several folders are.
    """
    level = [""]
    for _ in range(_DEEPEST + 1):
        found = [each for folder in level if (each := _find(tree, folder)) is not None]
        if len(found) == 1:
            return found[0]
        if found:
            places = [each.images.rpartition("/")[0] or each.images for each in found]
            shown = ", ".join(map(printable, places[:_MOST_SHOWN]))
            more = f" and {len(places) - _MOST_SHOWN:,} more" if len(places) > _MOST_SHOWN else ""
            raise DataDirError(
                f"{tree.root}: {len(places):,} datasets, in {shown}{more}; name the folder of one"
            )
        level = [join(folder, name) for folder in level for name in tree.subfolders(folder)]
    return _by_names(tree)


def _by_names(tree: Tree) -> Found:
    """Return the two folders whose files have the same names; DataDirError for none or several."""
    found = find_by_names(tree)
    if len(found) == 1:
        return replace(found[0], notes=_links(tree))
    if not found:
        raise DataDirError(f"{tree.root}: {_what_is_there(tree)}")
    pairs = [f"{each.images} and {each.labels}" for each in found[:_MOST_SHOWN]]
    raise DataDirError(
        f"{tree.root}: several folders can be those of pictures and masks: "
        f"{', '.join(map(printable, pairs))}; name those that are meant images and masks"
    )


def _find(tree: Tree, folder: str) -> Found | None:
    for find in LAYOUTS:
        found = find(tree, folder)
        if found is not None:
            notes = (*found.notes, *_links(tree))
            return replace(found, notes=notes)
    return None


def _links(tree: Tree) -> tuple[str, ...]:
    if not tree.outside:
        return ()
    count = len(tree.outside)
    words = "a link is" if count == 1 else f"{count:,} links are"
    return (
        f"{words} not followed, since nothing outside of the folder is read: "
        f"{printable(tree.outside[0])}",
    )


def _what_is_there(tree: Tree) -> str:
    """Return what a tree without a known layout holds, and what is expected."""
    pictures = [f for f, names in tree.folders.items() if any(map(is_picture, names))]
    masks = [f for f in pictures if any(map(is_mask, tree.files(f)))]
    expected = (
        "expected pictures and masks, e.g. in images/ and masks/ with the same names, or a tree of "
        "VOC, labelme, CVAT, CamVid or COCO"
    )
    links = "".join(f"; {note}" for note in _links(tree))
    if tree.unreadable:
        links = f"; the folder {printable(tree.unreadable[0])} cannot be read{links}"
    if not any(tree.folders.values()):
        return f"{expected}, found no file{links}"
    if not pictures:
        return f"{expected}, found no picture{links}"
    shown = ", ".join(printable(folder or ".") for folder in sorted(pictures)[:_MOST_SHOWN])
    kind = "pictures" if masks else "pictures, but no masks,"
    return f"{expected}, found {kind} in {shown}{links}"
