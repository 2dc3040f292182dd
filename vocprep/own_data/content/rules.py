"""How the masks of a layout are decoded before and after it is known what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vocprep.errors import DataDirError, DataError
from vocprep.labels.colours import ColourTable
from vocprep.labels.decode import LabelRule, decode_label_map, read_label_file
from vocprep.labels.mat import matrix_names
from vocprep.labels.panoptic import PanopticTables
from vocprep.own_data.content.choices import Choices
from vocprep.own_data.layouts.found import Found, of_split, suffix_of
from vocprep.own_data.pairing import Pairs
from vocprep.own_data.tree import Tree

MOST_JSON_BYTES = 100 << 20
"""Of the annotations that are read to look at masks; beyond, those of the smallest split are."""
NOT_ANSWERED = 65_534
"""Id of colours that are asked for, in the overlay sheet."""


def rule_of_layout(
    tree: Tree, found: Found, pairs: Pairs
) -> tuple[LabelRule | None, tuple[str, ...]]:
    """Return the rule of masks that do not decode by themselves, and the splits that it covers.

    None where they do; all splits are covered then.
    """
    if suffix_of(found.label_suffix) == ".mat":
        return _rule_of_mat(tree.root / pairs.masks[pairs.image_ids[0]]), found.splits
    if not found.annotations:
        return None, found.splits
    sizes = {
        split: (tree.root / of_split(found.annotations, split)).stat().st_size
        for split in found.splits
    }
    covered: Sequence[str] = found.splits
    if sum(sizes.values()) > MOST_JSON_BYTES:
        covered = [min(sizes, key=lambda split: sizes[split])]
    files = [
        (of_split(found.labels, split), tree.root / of_split(found.annotations, split))
        for split in covered
    ]
    return LabelRule(kind="panoptic", segments=PanopticTables.read(files)), tuple(covered)


def _rule_of_mat(path: Path) -> LabelRule | None:
    """Return the rule that names the variable of a label map; None for ``LabelMap`` of uint16.

    DataDirError where several variables can be the label map.
    """
    data = read_label_file(path)
    with suppress(DataError):
        decode_label_map(data, path)
        return None
    fitting = [name for name in matrix_names(data) if _decodes(data, path, name)]
    if len(fitting) > 1:
        raise DataDirError(
            f"{path}: {len(fitting)} variables can be the label map: {', '.join(fitting[:5])}; "
            "keep that one alone in the file, or call it LabelMap"
        )
    return LabelRule(kind="mat", variable=fitting[0]) if fitting else None


def _decodes(data: bytes, path: Path, name: str) -> bool:
    try:
        LabelRule(kind="mat", variable=name).decode(data, path)
    except DataError:
        return False
    return True


def rule_of_choices(choices: Choices, of_layout: LabelRule | None) -> LabelRule:
    """Return the rule that builds follow; colours that are asked for have an id of their own."""
    if of_layout is not None:
        return of_layout
    table = {
        colour: NOT_ANSWERED if key is None else key
        for colour, key in choices.label_colours.items()
    }
    return LabelRule(
        kind=choices.label_kind,
        colours=ColourTable.of(table) if choices.label_kind == "colours" else None,
    )
