"""Which pictures belong to which split: by lists, by folders, or drawn with a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from vocprep.dataset_manifest import SPLIT_FIELD
from vocprep.errors import DataDirError, UsageError
from vocprep.files.names import is_plain_name
from vocprep.own_data.layouts.found import Found, of_split
from vocprep.own_data.layouts.split_files import USUAL, ListedSplit, read_lists
from vocprep.own_data.pairing import Pairs
from vocprep.own_data.tree import Tree
from vocprep.validation import printable

WHOLE = "train"
"""The split of a dataset without splits: what heads are trained on."""
_NAMES = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The pictures of each split, and how the manifest names them."""

    members: Mapping[str, tuple[str, ...]]
    """Split → image ids, sorted."""
    by: Literal["files", "lists", "folders", "whole"]
    """Split files that are there, lists to be written, folders per split, or one split."""
    folder: str = ""
    """Of the split files."""
    notes: tuple[str, ...] = ()


def parse_split(text: str) -> tuple[int, ...]:
    """Return the shares of ``80/20`` or ``80/10/10``; UsageError for anything else.

    >>> parse_split("80/20")
    (80, 20)
    """
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(
            f"split {text!r}: expected shares of train and val, or of train, val and test, as "
            "80/20 or 80/10/10"
        )
    shares = tuple(map(int, parts))
    if sum(shares) != 100:
        raise UsageError(
            f"split {text!r} sums to {sum(shares)}: expected shares that sum to 100, such as 80/20 "
            "or 80/10/10"
        )
    return shares


def draw_splits(image_ids: Sequence[str], shares: Sequence[int], seed: int) -> Splits:
    """Cut image ids into train, val and test, by an order that follows from seed and ids alone.

    >>> draw_splits(["a", "b", "c", "d"], (3, 1), 0).members
    {'train': ('a', 'c', 'd'), 'val': ('b',)}
    """
    if len(image_ids) < len(shares):
        raise UsageError(
            f"--split: {len(image_ids):,} pictures with masks: expected at least {len(shares)}"
        )
    order = sorted(image_ids, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
    ends, total = [0], sum(shares)
    for number in range(1, len(shares)):
        # Every split gets a picture at least.
        end = round(len(order) * sum(shares[:number]) / total)
        left = len(order) - (len(shares) - number)
        ends.append(min(max(end, ends[-1] + 1), left))
    ends.append(len(order))
    members = {
        name: tuple(sorted(order[start:stop]))
        for name, start, stop in zip(_NAMES, ends, ends[1:], strict=False)
    }
    return Splits(members=members, by="lists")


def find_splits(tree: Tree, found: Found, pairs: Pairs) -> Splits:
    """Return the splits that lists or folders give; one split of all where nothing does."""
    if found.is_split_by_folders:
        return _by_folders(tree, found, pairs)
    if not found.lists:
        has_others = bool(pairs.twice) or _has_others(tree, found, pairs)
        by: Literal["lists", "whole"] = "lists" if has_others else "whole"
        return Splits(members={WHOLE: pairs.image_ids}, by=by)
    return _by_lists(tree, found, pairs)


def _has_others(tree: Tree, found: Found, pairs: Pairs) -> bool:
    """Return whether a build of all would refuse pictures, or find some that are left out here."""
    folders = {of_split(found.images, split) for split in found.splits or ("",)}
    left_out = (*tree.outside, *tree.undecodable, *tree.unreadable)
    starts = tuple("" if folder == "." else f"{folder}/" for folder in folders)
    return bool(pairs.unfit) or any(path.startswith(starts) for path in left_out)


def _by_folders(tree: Tree, found: Found, pairs: Pairs) -> Splits:
    members: dict[str, list[str]] = {split: [] for split in found.splits}
    for image_id in pairs.image_ids:
        members[image_id.partition("/")[0]].append(image_id)
    empty = [split for split, ids in members.items() if not ids]
    notes = [f"split {split} has no picture with a mask and is left out" for split in empty]
    others = [split for split, ids in members.items() if ids and split not in _NAMES]
    train, val = (next((s for s in others if s.startswith(n)), "") for n in _NAMES[:2])
    if train or val:
        options = f"--train-split {train}" * bool(train) + f" --val-split {val}" * bool(val)
        notes.append(f"splits are named as their folders: train with {options.strip()}")
    return Splits(
        members={split: tuple(ids) for split, ids in members.items() if ids},
        by="lists" if pairs.without_mask or _has_others(tree, found, pairs) else "folders",
        notes=tuple(notes),
    )


def _by_lists(tree: Tree, found: Found, pairs: Pairs) -> Splits:
    """Read split lists, of which those that only join others are left out."""
    paired, taken = set(pairs.image_ids), set[str]()
    members: dict[str, tuple[str, ...]] = {}
    notes: list[str] = []
    is_plain = True
    pictures = pairs.pictures.keys()
    listed = [each for path in found.lists for each in read_lists(tree, path, pictures)]
    for each in listed:
        ids = {key for key in each.image_ids if key in paired}
        split = USUAL.get(each.split.lower(), each.split)
        if not ids or ids <= taken or not is_plain_name(split) or split in members:
            notes.append(_left_out(each, bool(ids)))
            continue
        notes.extend(_notes_on(each, len(ids), ids & taken))
        members[split] = tuple(sorted(ids - taken))
        is_plain &= each.is_plain and len(ids) == len(each.image_ids) and not ids & taken
        is_plain &= split == each.split
        taken |= ids
    if not members:
        raise _no_picture(tree, found, listed[0])
    if paired - taken:
        notes.append(_with_rest(members, paired - taken))
        is_plain &= WHOLE not in members or set(members[WHOLE]) <= taken
    folders = {str(PurePosixPath(path).parent) for path in found.lists}
    is_files = is_plain and len(folders) == 1
    return Splits(
        members=members,
        by="files" if is_files else "lists",
        folder=folders.pop() if is_files else "",
        notes=tuple(notes),
    )


def _with_rest(members: dict[str, tuple[str, ...]], rest: set[str]) -> str:
    """Make what no list has the train split where there is none; return what was done."""
    words = f"{len(rest):,} pictures with masks are in no split list"
    if WHOLE in members or not members.keys() & {"val", "test"}:
        return f"{words} and are left out"
    others = dict(members)
    members.clear()
    members.update({WHOLE: tuple(sorted(rest)), **others})
    return f"{words}: they are split {WHOLE}"


def _no_picture(tree: Tree, found: Found, first: ListedSplit) -> DataDirError:
    entry = f", e.g. {printable(first.unknown[0])!r}" if first.unknown else ""
    return DataDirError(
        f"{tree.root / first.path}: names no picture of {found.images} that has a mask{entry}; "
        "correct the list or remove it"
    )


def _left_out(each: ListedSplit, has_pictures: bool) -> str:
    reason = "it joins the others" if has_pictures else "none of its pictures has a mask"
    return f"split list {each.name} is left out: {reason}"


def _notes_on(each: ListedSplit, count: int, shared: set[str]) -> list[str]:
    notes = []
    if each.unknown:
        first = printable(each.unknown[0])
        notes.append(
            f"{each.name}: {len(each.unknown):,} entries name no picture, the first {first!r}"
        )
    without = len(each.image_ids) - count
    if without:
        notes.append(f"{each.name}: {without:,} of its pictures have no mask and are left out")
    if shared:
        notes.append(
            f"{each.name}: {len(shared):,} of its pictures are in an earlier split too and are "
            f"left out here, the first {printable(min(shared))!r}"
        )
    return notes


def joined_folders(found: Found) -> Found | None:
    """Return a layout of folders per split as one of nested folders; None where it is none.

    ``images/{split}`` becomes ``images``, so that a picture may go to any split.
    """
    if not found.is_split_by_folders:
        return found
    images, labels = (path.removesuffix(f"/{SPLIT_FIELD}") for path in (found.images, found.labels))
    if SPLIT_FIELD in images or SPLIT_FIELD in labels:
        return None
    return Found(**{**vars(found), "images": images, "labels": labels, "splits": ()})
