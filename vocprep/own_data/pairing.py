"""Pictures and masks by image id: which belong together, and which are alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vocprep.dataset_manifest import IMAGE_SUFFIXES
from vocprep.files.ids import is_image_id
from vocprep.own_data.layouts.found import (
    Found,
    is_mask,
    is_picture,
    of_split,
    stem_of,
    suffix_of,
)
from vocprep.own_data.tree import Tree, join


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The pictures and masks of a layout by image id; paths are below the data dir."""

    pictures: Mapping[str, str]
    masks: Mapping[str, str]
    image_ids: tuple[str, ...]
    """Of what has both, sorted."""
    without_mask: tuple[str, ...]
    """Paths of pictures."""
    without_picture: tuple[str, ...]
    """Paths of masks."""
    twice: tuple[tuple[str, str], ...]
    """Paths of pictures that differ in their suffix only: builds refuse them."""
    other_masks: tuple[str, ...]
    """Paths of files in the folder of the masks that have another suffix than most."""
    unfit: tuple[str, ...]
    """Paths of pictures whose names cannot be image ids."""


def pair_files(tree: Tree, found: Found) -> Pairs:
    """Return the pictures and masks of a layout by image id."""
    pictures, twice = _pictures(tree, found)
    masks, others = _masks(tree, found)
    unfit = [key for key in pictures if not is_image_id(key)]
    unfit_paths = sorted(pictures.pop(key) for key in unfit)
    for key in unfit:
        masks.pop(key, None)
    both = sorted(pictures.keys() & masks.keys())
    return Pairs(
        pictures=pictures,
        masks=masks,
        image_ids=tuple(both),
        without_mask=tuple(sorted(pictures[key] for key in pictures.keys() - masks.keys())),
        without_picture=tuple(sorted(masks[key] for key in masks.keys() - pictures.keys())),
        twice=tuple(sorted(twice)),
        other_masks=tuple(sorted(others)),
        unfit=tuple(unfit_paths),
    )


def in_folder(folder: str, name: str) -> str:
    """Return the path of a file, where ``"."`` is the data dir itself."""
    return join("" if folder == "." else folder, name)


def _pictures(tree: Tree, found: Found) -> tuple[dict[str, str], list[tuple[str, str]]]:
    pictures: dict[str, str] = {}
    twice: list[tuple[str, str]] = []
    for prefix, path in _files(tree, found, found.images):
        suffixes = found.image_suffixes or IMAGE_SUFFIXES
        if suffix_of(path) not in suffixes or _is_mask_beside(found, path):
            continue
        image_id = prefix + stem_of(_inside(found.images, prefix, path))
        if image_id in pictures:
            twice.append((pictures[image_id], path))
        else:
            pictures[image_id] = path
    return pictures, twice


def _masks(tree: Tree, found: Found) -> tuple[dict[str, str], list[str]]:
    masks: dict[str, str] = {}
    others: list[str] = []
    for prefix, path in _files(tree, found, found.labels):
        if path.endswith(found.label_suffix):
            inside = _inside(found.labels, prefix, path)
            masks[prefix + inside.removesuffix(found.label_suffix)] = path
        elif (is_mask(path) or is_picture(path)) and found.images != found.labels:
            others.append(path)
    return masks, others


def _files(tree: Tree, found: Found, folder: str) -> Iterator[tuple[str, str]]:
    """Yield each file below a folder: the prefix of its image id, and its path."""
    for split in found.splits or ("",):
        where = of_split(folder, split)
        where = "" if where == "." else where
        prefix = f"{split}/" if split else ""
        names = tree.files(where) if found.images == found.labels else tree.below(where)
        yield from ((prefix, join(where, name)) for name in names)


def _inside(folder: str, prefix: str, path: str) -> str:
    where = of_split(folder, prefix.removesuffix("/"))
    return path if where == "." else path.removeprefix(f"{where}/")


def _is_mask_beside(found: Found, path: str) -> bool:
    """Return whether a file in the folder of the pictures is a mask."""
    if found.images == found.labels:
        return path.endswith(found.label_suffix)
    return found.images == "." and path.startswith(f"{found.labels}/")


def suffix_counts(paths: Mapping[str, str]) -> Counter[str]:
    """Return how many files have each suffix, the most frequent first."""
    counts = Counter(suffix_of(path) for path in paths.values())
    return Counter(dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))))
