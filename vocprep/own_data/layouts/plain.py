"""Plain folders: pictures in one, masks in another, also per split, or both in the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from vocprep.dataset_manifest import SPLIT_FIELD
from vocprep.own_data.layouts.class_lists import find_class_list
from vocprep.own_data.layouts.found import (
    JPEG_SUFFIXES,
    MASK_SUFFIXES,
    Found,
    is_mask,
    is_picture,
    of_split,
    stem_of,
    suffix_of,
)
from vocprep.own_data.layouts.split_files import SPLIT_NAMES, list_files, order_of
from vocprep.own_data.tree import Tree, join

_IMAGES = frozenset(
    (
        *("image", "img", "picture", "pic", "photo", "jpeg", "jpg", "jpegimage", "rgb", "raw"),
        *("input", "color", "colour", "still", "original", "source", "data"),
    )
)
"""Names of folders of pictures, in small letters and singular."""
_MASKS = frozenset(
    (
        *("mask", "label", "annotation", "annot", "ann", "anno", "gt", "groundtruth", "trimap"),
        *("segmentation", "seg", "segmentationclass", "segmentationmask", "semantic", "segmap"),
        *("target", "labelid", "labelmap", "labelimage", "lbl"),
    )
)
_MARKS = ("annot", "mask", "label", "gt", "ann", "seg")
"""What the names of a split's masks end with: trainannot, train_masks, train_labels."""
_MANY = 200
"""Masks whose names are compared to find the suffix that they have in common."""


def find_plain(tree: Tree, root: str) -> Found | None:
    """Return folders of pictures and of masks by their names, as ``images`` and ``masks``."""
    for images, labels, splits in _pairs_of_folders(tree, root):
        found = _described(tree, root, (images, labels), splits)
        if found is not None:
            return found
    return None


def find_split_folders(tree: Tree, root: str) -> Found | None:
    """Return folders per split beside those of their masks: ``train`` and ``trainannot``."""
    names = tree.subfolders(root)
    by_form: dict[str, list[str]] = {}
    for split in _splits_among(names):
        for name in names:
            mark = _plain(name.removeprefix(split)) if name.startswith(split) else ""
            if mark.removesuffix("s") in _MARKS:
                by_form.setdefault(name.removeprefix(split), []).append(split)
    if not by_form:
        return None
    form, splits = max(by_form.items(), key=lambda item: (len(item[1]), item[0]))
    labels = join(root, f"{SPLIT_FIELD}{form}")
    return _described(tree, root, (join(root, SPLIT_FIELD), labels), tuple(splits))


def find_camvid(tree: Tree, root: str) -> Found | None:
    """Return CamVid as its authors publish it: stills, label colours, masks ``NAME_L.png``."""
    names = tree.subfolders(root)
    stills = [name for name in names if "stillsraw" in _plain(name)]
    masks = [name for name in names if "labeledapproved" in _plain(name)]
    if not stills or not masks:
        return None
    found = _described(tree, root, (join(root, stills[0]), join(root, masks[0])), ())
    return found and replace(found, layout="CamVid tree")


def find_same_folder(tree: Tree, root: str) -> Found | None:
    """Return a folder that holds pictures beside their masks: ``a.jpg`` and ``a.png``."""
    names = tree.files(root)
    pictures = {stem_of(name) for name in names if suffix_of(name) in JPEG_SUFFIXES}
    suffix = _label_suffix(pictures, (name for name in names if is_mask(name)))
    if not suffix:
        return None
    used = {suffix_of(name) for name in names if suffix_of(name) in JPEG_SUFFIXES}
    return Found(
        layout="pictures and masks in one folder",
        images=root or ".",
        labels=root or ".",
        label_suffix=suffix,
        image_suffixes=tuple(sorted(used)),
        lists=list_files(tree, root),
        class_list=find_class_list(tree, [root]),
    )


def find_by_names(tree: Tree) -> list[Found]:
    """Return all pairs of folders, of JPEGs and of masks, whose files have the same names.

    For trees whose folders have names of their own.
    """
    stems = {
        folder: {stem_of(name) for name in names if suffix_of(name) in JPEG_SUFFIXES}
        for folder, names in tree.folders.items()
    }
    pairs = [
        (images, labels)
        for labels, names in tree.folders.items()
        if (masks := [stem_of(name) for name in names if is_mask(name)]) and not stems[labels]
        for images, pictures in stems.items()
        if pictures and 2 * sum(stem in pictures for stem in masks) >= len(masks)
    ]
    return [found for images, labels in sorted(pairs) if (found := _of_names(tree, images, labels))]


def _of_names(tree: Tree, images: str, labels: str) -> Found | None:
    above = images.rpartition("/")[0]
    found = _described(tree, "", (images, labels or "."), ())
    if found is None:
        return None
    return replace(
        found,
        layout="folders whose files have the same names",
        images=images or ".",
        lists=found.lists or list_files(tree, above),
    )


def _pairs_of_folders(tree: Tree, root: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield folders of pictures and of masks that fit, each with the splits of their names."""
    names = tree.subfolders(root)
    images, masks = _named(names, _IMAGES), _named(names, _MASKS)
    for image, mask in ((image, mask) for image in images for mask in masks):
        folders = join(root, image), join(root, mask)
        splits = _splits_below(tree, folders)
        if splits:
            yield f"{folders[0]}/{SPLIT_FIELD}", f"{folders[1]}/{SPLIT_FIELD}", splits
        else:
            yield *folders, ()
    splits = _splits_among(names)
    for split in splits:
        inner = tree.subfolders(join(root, split))
        for image, mask in (
            (image, mask) for image in _named(inner, _IMAGES) for mask in _named(inner, _MASKS)
        ):
            having = tuple(
                each for each in splits if {image, mask} <= set(tree.subfolders(join(root, each)))
            )
            yield join(root, f"{SPLIT_FIELD}/{image}"), join(root, f"{SPLIT_FIELD}/{mask}"), having


def _described(
    tree: Tree, root: str, folders: tuple[str, str], splits: tuple[str, ...]
) -> Found | None:
    """Return what two folders hold; None where no mask fits a picture."""
    images, labels = folders
    stems: set[str] = set()
    masks: list[str] = []
    for split in splits or ("",):
        stems.update(
            stem_of(path) for path in tree.below(of_split(images, split)) if is_picture(path)
        )
        masks.extend(path for path in tree.below(of_split(labels, split)) if is_mask(path))
    if not stems or not (masks or _has_jpegs(tree, labels, splits)):
        return None
    described = [root, *(of_split(labels, split) for split in splits or ("",))]
    return Found(
        layout="folders per split" if splits else "folders of pictures and masks",
        images=images,
        labels=labels,
        label_suffix=_label_suffix(stems, masks) or _most_common_suffix(masks),
        splits=splits,
        lists=list_files(tree, root),
        class_list=find_class_list(tree, described),
    )


def _has_jpegs(tree: Tree, labels: str, splits: tuple[str, ...]) -> bool:
    return any(
        suffix_of(path) in JPEG_SUFFIXES
        for split in splits or ("",)
        for path in tree.below(of_split(labels, split))
    )


def _label_suffix(pictures: Collection[str], masks: Iterable[str]) -> str:
    """Return what follows the picture's name in most masks' names; "" where nothing fits.

    >>> _label_suffix({"a", "b"}, ["a_L.png", "b_L.png", "c.png"])
    '_L.png'
    """
    counts: Counter[str] = Counter()
    listed = list(masks)
    for name in listed[:: max(1, len(listed) // _MANY)]:
        stem = stem_of(name)
        if stem in pictures:
            counts[name[len(stem) :]] += 1
            continue
        ends = (end for end in range(len(stem) - 1, 0, -1) if stem[:end] in pictures)
        end = next(ends, None)
        if end is not None:
            counts[name[end:]] += 1
    return max(counts, key=lambda suffix: (counts[suffix], -len(suffix))) if counts else ""


def _most_common_suffix(masks: Sequence[str]) -> str:
    counts = Counter(PurePosixPath(name).suffix for name in masks)
    return counts.most_common(1)[0][0] if counts else MASK_SUFFIXES[0]


def _splits_below(tree: Tree, folders: tuple[str, str]) -> tuple[str, ...]:
    """Return the splits that both folders have folders of, where those hold all their files."""
    images, labels = folders
    splits = _splits_among(tree.subfolders(images))
    others = set(tree.subfolders(images)) - set(splits)
    has_others = any(map(is_picture, tree.files(images))) or others
    return () if has_others else tuple(s for s in splits if s in tree.subfolders(labels))


def _splits_among(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted((n for n in names if n.lower() in SPLIT_NAMES), key=order_of))


def _named(names: Iterable[str], words: Collection[str]) -> list[str]:
    """Return the names that are one of some words, also in plural and with other marks."""
    return [n for n in names if {_plain(n), _plain(n).removesuffix("s")} & set(words)]


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
