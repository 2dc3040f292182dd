"""What is unusual about a dataset, in sentences: one per kind, with the first names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from vocprep.files.ids import ID_RULE
from vocprep.own_data.content.survey import Size, Survey
from vocprep.own_data.layouts.found import JPEG_SUFFIXES, Found, suffix_of
from vocprep.own_data.pairing import Pairs
from vocprep.own_data.tree import Tree
from vocprep.validation import printable

_MOST_NAMES = 3


def notes_on(tree: Tree, found: Found, pairs: Pairs, survey: Survey) -> list[str]:
    """Return the notes, those on the whole first."""
    return [*found.notes, *_on_names(tree, found, pairs), *_on_content(survey)]


def _on_names(tree: Tree, found: Found, pairs: Pairs) -> Iterator[str]:
    end = found.label_suffix
    jpegs = [path for path in pairs.other_masks if suffix_of(path) in JPEG_SUFFIXES]
    others = [path for path in pairs.other_masks if path not in set(jpegs)]
    lossy = "as JPEG, which changes ids, left out (export again as PNG)"
    kinds = (
        ("picture", "pictures", "without a mask, left out", pairs.without_mask),
        ("mask", "masks", "without a picture", pairs.without_picture),
        ("mask", "masks", lossy, jpegs),
        ("file", "files", f"in the masks' folder not *{end}, left out (convert them)", others),
        ("folder", "folders", "not readable, left out", tree.unreadable),
        ("file", "files", "with a name that is not UTF-8, left out", tree.undecodable),
    )
    for one, many, what, paths in kinds:
        if paths:
            yield f"{_count(len(paths), one, many)} {what}: {named(paths)}"
    if pairs.unfit:
        count = _count(len(pairs.unfit), "picture has a name", "pictures have names")
        yield f"{count} that no image id can have, left out: {named(pairs.unfit)}: {ID_RULE}"
    if similar := similar_names(pairs):
        yield similar
    if pairs.twice:
        first = " and ".join(map(printable, pairs.twice[0]))
        yield (
            f"{_count(len(pairs.twice), 'picture is', 'pictures are')} there twice, which builds "
            f"refuse: {first}; remove one of each"
        )


def similar_names(pairs: Pairs) -> str:
    """Return in what the names of a picture and of its mask differ; "" where none are alike."""
    masks = {_folded(key): key for key in sorted(pairs.masks.keys() - pairs.pictures.keys())}
    for image_id in sorted(pairs.pictures.keys() - pairs.masks.keys()):
        other = masks.get(_folded(image_id))
        if other is None:
            continue
        is_composed = _composed(image_id) == _composed(other)
        kind = "how letters are composed (Unicode's NFC and NFD)" if is_composed else "letter case"
        return (
            f"names of pictures and masks differ in {kind}: {printable(pairs.pictures[image_id])} "
            f"and {printable(pairs.masks[other])}; rename the masks as their pictures"
        )
    return ""


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    return _composed(text).casefold()


def _on_content(survey: Survey) -> Iterator[str]:
    if survey.other_size:
        image_id, (width, height), (as_wide, as_high) = survey.other_size[0]
        yield (
            f"{_count(len(survey.other_size), 'mask has', 'masks have')} another size than the "
            f"picture, which builds quarantine: {printable(image_id)}, mask {width}×{height}, "
            f"picture {as_wide}×{as_high}{_turned(survey.other_size[0])}"
        )
    if survey.problems:
        count = _count(len(survey.problems), "file does", "files do")
        yield f"{count} not decode, which builds quarantine: {survey.problems[0]}"
    if max(len(survey.values), len(survey.colours)) == 1:
        yield "masks hold one class only: heads have nothing to tell apart"
    if len(survey.modes) > 1:
        parts = ", ".join(f"{count:,} {mode}" for mode, count in survey.modes.most_common())
        yield f"masks of several kinds: {parts}"


def _turned(other_size: tuple[str, Size, Size]) -> str:
    _, (width, height), picture = other_size
    if (height, width) != picture:
        return ""
    return "; the mask fits the picture as its orientation turns it: store the picture upright"


def named(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many there are beside them."""
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(printable, names[:_MOST_NAMES])) + more


def _count(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
