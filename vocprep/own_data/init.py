"""The verb ``init``: from a folder of pictures and masks to the manifests that builds need."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from vocprep.dataset_manifest import DATASET_FILE
from vocprep.errors import DataDirError, UsageError
from vocprep.files.ids import ID_RULE
from vocprep.own_data.content.choosing import choose
from vocprep.own_data.content.rules import rule_of_choices, rule_of_layout
from vocprep.own_data.content.survey import SAMPLE, chosen, look_at, survey
from vocprep.own_data.description import Description
from vocprep.own_data.layouts.found import JPEG_SUFFIXES, Found, suffix_of
from vocprep.own_data.layouts.table import recognise
from vocprep.own_data.notes import notes_on, similar_names
from vocprep.own_data.options import InitOptions
from vocprep.own_data.pairing import Pairs, pair_files
from vocprep.own_data.result import InitResult, result_of
from vocprep.own_data.splitting import draw_splits, find_splits, joined_folders, parse_split
from vocprep.own_data.tree import OVERLAY_FILE, Tree, list_tree
from vocprep.own_data.writing.files import check_writable, replaced_splits, stamped, write_files
from vocprep.own_data.writing.kept import kept_classes
from vocprep.own_data.writing.overlay import draw_overlay
from vocprep.own_data.writing.texts import (
    CLASSES_FILE,
    LISTS_FOLDER,
    check_texts,
    classes_text,
    dataset_text,
    split_text,
)
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.storage.places import local_path
from vocprep.validation import printable


def init(
    folder: str | Path,
    *,
    out: str | Path | None = None,
    options: InitOptions | None = None,
    progress: Progress = NO_PROGRESS,
) -> InitResult:
    """Recognise the pictures and masks in a folder, and write what builds need to read them.

    Writes ``dataset.toml``, ``classes.toml``, split lists and an overlay sheet into ``out``, by
    default the folder itself; no other file is changed. What cannot be known is a question in these
    files. Raises DataDirError where the folder holds nothing that is recognised, UsageError where a
    file would be replaced that ``init`` did not write. A ``classes.toml`` that was edited is kept
    where its void and its ids are those found here.
    """
    folder, options = local_path(folder), options or InitOptions()
    out = folder if out is None else local_path(out)
    shares = None if options.split is None else parse_split(options.split)
    tree = list_tree(folder)
    found = recognise(tree)
    if shares is not None:
        found = _to_be_cut(found)
    pairs = pair_files(tree, found)
    _check_pairs(tree, found, pairs)
    rule, covered = rule_of_layout(tree, found, pairs)
    ids = chosen(_of(pairs, covered), None if options.all_masks else SAMPLE, options.seed)
    sums = survey(partial(look_at, tree, pairs, rule), ids, options.workers, progress)
    choices = choose(found, sums, options.void, str(folder))
    kept = kept_classes(out, choices)
    choices = kept or choices
    splits = (
        find_splits(tree, found, pairs)
        if shares is None
        else draw_splits(pairs.image_ids, shares, options.seed)
    )
    notes = (*notes_on(tree, found, pairs, sums), *splits.notes)
    described = Description(
        root=folder,
        name=options.name or plain_name(folder),
        found=found,
        pairs=pairs,
        survey=sums,
        choices=choices,
        rule=rule_of_choices(choices, rule),
        splits=splits,
        notes=notes,
    )
    files = _files(described)
    hints = _hints(out, described, files, options)
    if kept is not None:
        del files[CLASSES_FILE]
        hints.append(f"{CLASSES_FILE} was edited and is kept as it is: it has the ids found here")
    files = stamped(files)
    check_writable(out, files)
    if not options.dry_run:
        write_files(out, files)
    return result_of(described, out, tuple(files), hints, dry_run=options.dry_run)


def plain_name(folder: Path) -> str:
    """Return a folder's name as that of a dataset.

    >>> plain_name(Path("data/My pets (2024)")), plain_name(Path("/"))
    ('My-pets-2024', 'dataset')
    """
    name = folder.resolve().name
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:64].strip("-") or "dataset"


def _hints(
    out: Path, described: Description, files: Mapping[str, bytes], options: InitOptions
) -> list[str]:
    """Return what to know of the splits of this call, before its files are written."""
    hints, members = [], described.splits.members
    if replaced := replaced_splits(out, files):
        again = "" if options.split else "; where --split made them, give it again to keep them"
        hints.append(f"the splits {', '.join(replaced)} of an earlier init are replaced{again}")
    if len(members) == 1 and joined_folders(described.found) is not None:
        only = next(iter(members))
        hints.append(
            f"all pictures are split {only}: heads are trained without validation; --split 80/20 "
            "divides them"
        )
    return hints


def _of(pairs: Pairs, splits: tuple[str, ...]) -> Sequence[str]:
    """Return the image ids of some splits that are folders; all where there are none."""
    starts = tuple(f"{split}/" for split in splits)
    return [key for key in pairs.image_ids if key.startswith(starts)] if starts else pairs.image_ids


def _to_be_cut(found: Found) -> Found:
    """Return a layout whose pictures may go to any split."""
    joined = joined_folders(found)
    if joined is None:
        raise UsageError(
            f"--split: each split has folders of its own here, as {found.images}; leave --split "
            "out, or move all pictures into one folder and all masks into another"
        )
    return joined


def _check_pairs(tree: Tree, found: Found, pairs: Pairs) -> None:
    """Raise DataDirError where no picture has a mask, with what to do about it."""
    if pairs.image_ids:
        return
    images, labels = tree.root / found.images, tree.root / found.labels
    if not pairs.pictures and pairs.unfit:
        first = printable(pairs.unfit[0])
        raise DataDirError(f"{tree.root}: {first}: no name of a picture: {ID_RULE}; rename it")
    if not pairs.pictures:
        raise DataDirError(
            f"{images}: no picture of the {len(pairs.masks):,} masks in {labels}; export with "
            "the pictures, or put them there under the names of the masks"
        )
    if not pairs.masks:
        jpegs = [path for path in pairs.other_masks if suffix_of(path) in JPEG_SUFFIXES]
        if jpegs:
            raise DataDirError(
                f"{tree.root / jpegs[0]}: masks as JPEG, whose compression changes the ids: export "
                "them again, as PNG"
            )
        raise DataDirError(f"{labels}: no mask *{found.label_suffix}; expected one per picture")
    if similar := similar_names(pairs):
        raise DataDirError(f"{tree.root}: {similar}")
    picture, mask = min(pairs.pictures.values()), min(pairs.masks.values())
    raise DataDirError(
        f"{tree.root}: no mask has the name of a picture: {picture}, but {mask}; name each mask "
        "as its picture, or as it with one ending, e.g. a.jpg and a_mask.png"
    )


def _files(described: Description) -> dict[str, bytes]:
    """Return what is written, by path below the output folder."""
    dataset, classes = dataset_text(described), classes_text(described)
    check_texts(str(described.root), dataset, classes)
    files = {DATASET_FILE: dataset.encode(), CLASSES_FILE: classes.encode()}
    if described.splits.by == "lists":
        for split, image_ids in described.splits.members.items():
            # Builds put the split before the names of its folder.
            start = f"{split}/" if described.found.is_split_by_folders else ""
            names = [image_id.removeprefix(start) for image_id in image_ids]
            files[f"{LISTS_FOLDER}/{split}.txt"] = split_text(names).encode()
    overlay = draw_overlay(described)
    if overlay is not None:
        files[OVERLAY_FILE] = overlay
    return files
