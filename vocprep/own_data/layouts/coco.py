"""COCO: panoptic segments with their JSON, and the label maps of COCO-Stuff."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vocprep.dataset_manifest import SPLIT_FIELD
from vocprep.errors import DataDirError
from vocprep.files.reading import read_json
from vocprep.own_data.layouts.class_lists import find_class_list
from vocprep.own_data.layouts.found import ClassList, Found, is_mask, is_picture, of_split
from vocprep.own_data.layouts.split_files import order_of
from vocprep.own_data.tree import Tree, join
from vocprep.validation import explain

_PANOPTIC = re.compile(r"panoptic_(.+)\.json")
_SPLIT = re.compile(r"(train|val|test|minival)(20\d\d)?")
_STUFF = ("stuffthingmaps", "stuffthingmaps_trainval2017", "stuff_masks", "stuffmaps")
_STUFF_VOID = 255
_UNLABELLED = "unlabeled"
_EXPECTED = "expected COCO's panoptic JSON, whose categories have an id and a name"
_ADVICE = "replace it by a sound copy"


def find_panoptic(tree: Tree, root: str) -> Found | None:
    """Return COCO's panoptic annotations: ``panoptic_SPLIT.json`` with PNGs and pictures."""
    for folder in (join(root, "annotations"), root):
        splits = [match[1] for name in tree.files(folder) if (match := _PANOPTIC.fullmatch(name))]
        labels = _template(
            tree,
            [join(at, f"panoptic_{SPLIT_FIELD}") for at in dict.fromkeys((root, folder))],
            splits,
            is_mask,
        )
        images = _template(tree, _picture_folders(root), splits, is_picture)
        if not labels or not images:
            continue
        having = _having(tree, (images, labels), splits)
        if not having:
            continue
        annotations = join(folder, f"panoptic_{SPLIT_FIELD}.json")
        stuff = find_stuff(tree, root)
        found = Found(
            layout="COCO panoptic tree",
            images=images,
            labels=labels,
            splits=having,
            class_list=_categories(tree, [of_split(annotations, split) for split in having]),
            annotations=annotations,
            void=0,
            notes=(f"label maps of COCO-Stuff in {stuff.labels} are not used",) if stuff else (),
        )
        return _without_year(found)
    return None


def find_stuff(tree: Tree, root: str) -> Found | None:
    """Return the label maps of COCO-Stuff: ids 0 to 181 of things and stuff, 255 for neither."""
    for name in tree.subfolders(root):
        masks = join(root, name)
        splits = [each for each in tree.subfolders(masks) if _SPLIT.fullmatch(each)]
        if name.lower() not in _STUFF or not splits:
            continue
        labels = join(masks, SPLIT_FIELD)
        images = _template(tree, _picture_folders(root), splits, is_picture)
        having = _having(tree, (images, labels), splits) if images else ()
        if having:
            found = Found(
                layout="COCO-Stuff tree",
                images=images,
                labels=labels,
                splits=having,
                class_list=_stuff_names(tree, [root, masks]),
                void=_STUFF_VOID,
            )
            return _without_year(found)
    return None


def _without_year(found: Found) -> Found:
    """Move the year that the splits share into the paths: ``train2017`` is split ``train``."""
    matches = [_SPLIT.fullmatch(split) for split in found.splits]
    years = {match[2] for match in matches if match}
    if None in matches or len(years) != 1 or None in years:
        return found
    dated = f"{SPLIT_FIELD}{years.pop()}"
    return replace(
        found,
        images=found.images.replace(SPLIT_FIELD, dated),
        labels=found.labels.replace(SPLIT_FIELD, dated),
        annotations=found.annotations.replace(SPLIT_FIELD, dated),
        splits=tuple(match[1] for match in matches if match),
    )


def _picture_folders(root: str) -> list[str]:
    return [join(root, SPLIT_FIELD), join(root, f"images/{SPLIT_FIELD}")]


def _template(
    tree: Tree, folders: list[str], splits: list[str], is_one: Callable[[str], bool]
) -> str:
    """Return the first of some paths with ``{split}`` that has files for a split; "" for none."""
    for folder in folders:
        for split in splits:
            if any(map(is_one, tree.files(of_split(folder, split)))):
                return folder
    return ""


def _having(tree: Tree, folders: tuple[str, str], splits: list[str]) -> tuple[str, ...]:
    """Return the splits that have a folder of each kind."""
    having = [s for s in splits if all(tree.files(of_split(folder, s)) for folder in folders)]
    return tuple(sorted(having, key=_order))


def _order(split: str) -> tuple[int, str]:
    return order_of(split.rstrip("0123456789"))


def _categories(tree: Tree, paths: list[str]) -> ClassList:
    """Return the categories of the smallest JSON; all splits have the same ones."""
    path = min(paths, key=lambda each: (tree.root / each).stat().st_size)
    where = tree.root / path
    try:
        listed = [_category(each) for each in read_json(where)["categories"]]
    except (KeyError, TypeError) as error:  # another form of JSON
        raise DataDirError(f"{where}: {_EXPECTED}, found none; {_ADVICE}") from error
    except (OSError, ValueError) as error:
        raise DataDirError(f"{where}: {_EXPECTED}, found: {explain(error)}; {_ADVICE}") from error
    colours = [colour for *_, colour in listed]
    return ClassList(
        path=path,
        names=tuple(name for _, name, _ in listed),
        ids=tuple(key for key, *_ in listed),
        colours=tuple(colours) if all(colours) else (),
    )


def _category(value: Any) -> tuple[int, str, str]:
    key, name, colour = value["id"], value["name"], value.get("color")
    if not isinstance(key, int) or not isinstance(name, str):
        raise TypeError("a category without id or name")
    is_colour = (
        isinstance(colour, list)
        and len(colour) == 3
        and all(isinstance(level, int) and 0 <= level <= 255 for level in colour)
    )
    return key, name, f"#{bytes(colour).hex()}" if is_colour else ""


def _stuff_names(tree: Tree, folders: list[str]) -> ClassList | None:
    """Return the names of a list; COCO-Stuff's own counts from 1, and its label maps from 0."""
    listed = find_class_list(tree, folders)
    if listed is None or not listed.ids or listed.names[0].lower() != _UNLABELLED:
        return listed
    return replace(listed, names=listed.names[1:], ids=tuple(key - 1 for key in listed.ids[1:]))
