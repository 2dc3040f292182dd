"""Choosing ids for the values and colours of masks, by class lists and by what masks hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from vocprep.dataset_manifest import LabelKind
from vocprep.errors import DataDirError, UsageError
from vocprep.labels.label_space import load_label_space
from vocprep.own_data.content.choices import FREE, Choices, VoidOption, make_choices
from vocprep.own_data.content.masks import BYTE_MODES
from vocprep.own_data.content.survey import Survey, grey_of
from vocprep.own_data.layouts.found import ClassList, Found, suffix_of
from vocprep.validation import printable

_MOST_COLOURS = 256
"""Colours of masks without a class list; more are those of smooth edges."""
_MOST_UNKNOWN = 20
"""Colours that a class list does not name."""
_MOST_VALUES = 1000
_LARGEST = 32_767
"""Class id."""
_KINDS: Mapping[str, LabelKind] = {
    ".png": "png",
    ".npy": "npy",
    ".mat": "mat",
    ".tif": "tiff",
    ".tiff": "tiff",
}
_WHITE, _BLACK = "#ffffff", "#000000"


def choose(found: Found, survey: Survey, void: VoidOption, where: str) -> Choices:
    """Return what follows from a class list and from the values and colours of masks.

    DataDirError, with the data dir ``where``, for masks that no manifest can describe.
    """
    table = found.class_list.ids_of_colours if found.class_list else {}
    if found.annotations:
        return _by_segments(found, void)
    if _is_by_colours(survey, table):
        return _by_colours(found, survey, void, where)
    if set(survey.values) == {0, 255} and suffix_of(found.label_suffix) == ".png":
        return _black_and_white(found, void)
    return _by_values(found, survey, void, where)


def _is_by_colours(survey: Survey, table: Mapping[str, int]) -> bool:
    """Return whether colours are what tells classes apart, and not the values below them."""
    if survey.of_colours:
        return True
    if not table or survey.of_values:
        return False
    return set(survey.colours) <= set(table)


def _by_colours(found: Found, survey: Survey, void: VoidOption, where: str) -> Choices:
    """Choose ids of colours: by a class list, as greys, else by their share of the pixels."""
    listed, seen = found.class_list, _with_greys(survey)
    table = listed.ids_of_colours if listed else {}
    unknown = [colour for colour in _largest_first(seen) if colour not in table]
    if survey.of_colours < survey.modes.total() and unknown and not _are_greys(seen):
        raise _of_several_kinds(found, survey, where)
    _check_colours(found, survey, unknown, where, bool(table))
    if not table:
        return _by_greys(found, seen, void) if _are_greys(seen) else _by_share(found, seen, void)
    names = listed.by_id(0) if listed else {}
    made = make_choices(found, "colours", names, void, set(names))
    total = sum(seen.values())
    questions = {
        colour: (
            f"{colour} is not in {listed.path if listed else ''}, and "
            f"{100 * seen[colour] / total:.2g} % of the pixels have it: which id of classes.toml "
            "does it stand for? For another class, add an id and a name under [names] there."
        )
        for colour in unknown
    }
    return _coloured(made, table, questions)


def _of_several_kinds(found: Found, survey: Survey, where: str) -> DataDirError:
    kinds = ", ".join(
        f"{count:,} {mode} such as {printable(survey.first_with[mode])}{found.label_suffix}"
        for mode, count in survey.modes.most_common()
    )
    return DataDirError(
        f"{where}/{found.labels}: masks of ids and masks of colours: {kinds}; nothing says which "
        "id a colour stands for: save all masks as one kind, or add a labelmap.txt with lines "
        "name:red,green,blue::"
    )


def _by_share(found: Found, seen: Counter[str], void: VoidOption) -> Choices:
    """Choose ids of colours that nothing names: 0 for the largest."""
    ids = {colour: number for number, colour in enumerate(_largest_first(seen))}
    made = make_choices(found, "colours", dict.fromkeys(ids.values(), ""), void, set(ids.values()))
    return _coloured(made, ids, {})


def _largest_first(seen: Counter[str]) -> list[str]:
    return sorted(seen, key=lambda colour: (-seen[colour], colour))


def _are_greys(seen: Counter[str]) -> bool:
    return all(grey_of(colour) >= 0 for colour in seen)


def _by_greys(found: Found, seen: Counter[str], void: VoidOption) -> Choices:
    """Choose ids of masks of values that were saved as RGB."""
    values = {grey_of(colour) for colour in seen}
    if values == {0, 255}:
        return _black_and_white(found, void)
    made = make_choices(found, "colours", _names_of_values(found, values), void, values)
    ids = sorted({*made.names, *values} & set(range(256)))
    return replace(made, label_colours={f"#{key:02x}{key:02x}{key:02x}": key for key in ids})


def _coloured(made: Choices, table: Mapping[str, int], questions: Mapping[str, str]) -> Choices:
    colours = {key: colour for colour, key in table.items() if key in made.names}
    return replace(
        made,
        colours=colours,
        label_colours={**table, **dict.fromkeys(questions)},
        questions={**made.questions, **questions},
    )


def _with_greys(survey: Survey) -> Counter[str]:
    """Return the pixels by colour, those of grey masks among them."""
    seen = Counter(survey.colours)
    if not survey.of_values:
        return seen
    for value, count in survey.values.items():
        if value < 256:
            seen[f"#{value:02x}{value:02x}{value:02x}"] += count
    return seen


def _check_colours(
    found: Found, survey: Survey, unknown: list[str], where: str, has_table: bool
) -> None:
    """Raise DataDirError for more colours than classes can have."""
    most = _MOST_UNKNOWN if has_table else _MOST_COLOURS
    if len(unknown) <= most:
        return
    of = f"colours that {found.class_list.path} does not name" if found.class_list else "colours"
    raise DataDirError(
        f"{where}/{found.labels}: {len(unknown):,} {of} in {survey.looked_at:,} masks, such as "
        f"{', '.join(unknown[:3])}: expected one colour per class; they were smoothed, scaled or "
        "stored with loss: export them again, as PNG without smoothing"
    )


def _black_and_white(found: Found, void: VoidOption) -> Choices:
    """Choose for masks of 0 and 255, where 255 is the second class, or void."""
    if isinstance(void, int) and void not in (0, 255):
        raise UsageError(f"void {void}: masks hold 0 and 255 only; expected 0, 255 or none")
    if void == 255:
        made = make_choices(found, "colours", {0: "", 255: ""}, 255, {0, 255})
        return replace(made, label_colours={_BLACK: 0, _WHITE: 255})
    made = make_choices(found, "colours", {0: "", 1: ""}, "none" if void is None else void, {0, 1})
    if void is not None:
        return replace(made, label_colours={_BLACK: 0, _WHITE: 1})
    question = (
        "masks hold 0 (black) and 255 (white) only: is white the second class, or void? Write 1 "
        "for the class, 255 for void."
    )
    return replace(
        made,
        label_colours={_BLACK: 0, _WHITE: None},
        questions={_WHITE: question},
        void_note="255, which white may be",
    )


def _by_segments(found: Found, void: VoidOption) -> Choices:
    """Choose for COCO's panoptic masks, whose ids are those of the categories."""
    names = found.class_list.by_id(0) if found.class_list else {}
    made = make_choices(found, "panoptic", names, void, set(names))
    return replace(made, colours=_colours_of(found, made.names))


def _colours_of(found: Found, names: Mapping[int, str]) -> dict[int, str]:
    """Return the colours that a class list gives to classes."""
    table = found.class_list.ids_of_colours if found.class_list else {}
    return {key: colour for colour, key in table.items() if key in names}


def _by_values(found: Found, survey: Survey, void: VoidOption, where: str) -> Choices:
    """Choose for masks whose values are ids."""
    seen = set(survey.values)
    if not seen:
        raise DataDirError(
            f"{where}/{found.labels}: no mask could be read; the first problem: "
            f"{survey.problems[0] if survey.problems else 'none'}"
        )
    _check_values(found, seen, where)
    if (
        isinstance(void, int)
        and void > 255
        and void not in FREE
        and survey.modes.keys() <= BYTE_MODES
    ):
        raise UsageError(
            f"void {void}: the masks are of 8 bits and hold no id above 255: expected an id that "
            "they hold, 255, or none where every id is a class"
        )
    names = _names_of_values(found, seen)
    kind = _KINDS.get(suffix_of(found.label_suffix), "png")
    made = make_choices(found, kind, names, void, seen)
    return replace(made, colours=_colours_of(found, made.names))


def _check_values(found: Found, seen: set[int], where: str) -> None:
    """Raise DataDirError for values that are no ids of classes."""
    if len(seen) > _MOST_VALUES or max(seen) > _LARGEST:
        raise DataDirError(
            f"{where}/{found.labels}: masks hold {len(seen):,} values up to {max(seen):,}: they "
            f"look like instances or distances; expected ids of classes, at most {_MOST_VALUES:,} "
            f"and none above {_LARGEST:,}"
        )


def _names_of_values(found: Found, seen: set[int]) -> dict[int, str]:
    """Return the names of ids by a class list, "" for those that it does not name."""
    listed = found.class_list
    named = listed.by_id(_first_id(listed, seen)) if listed else _shipped_names(found, seen)
    named.pop(-1, None)
    top = max((key for key in seen if key != 255), default=0)
    between = range(top + 1) if top < _MOST_VALUES and not named else ()
    return {key: named.get(key, "") for key in sorted({*named, *seen, *between})}


def _shipped_names(found: Found, seen: set[int]) -> dict[int, str]:
    """Return the names of a shipped label space that the layout has, where it has all ids seen."""
    if not found.shipped_classes:
        return {}
    space = load_label_space(found.shipped_classes)
    return dict(space.names) if seen <= {*space.names, space.void} else {}


def _first_id(listed: ClassList, seen: set[int]) -> int:
    """Return the id of the first name of a list that does not say it.

    It is 0, unless the masks hold as many ids above 0 as there are names, beside a 0 that has none.
    """
    if listed.first is not None:
        return listed.first
    has_background = listed.names[0].strip("_").lower() in ("background", "bg")
    top = max((key for key in seen if key != 255), default=0)
    return 1 if top == len(listed.names) and not has_background else 0
