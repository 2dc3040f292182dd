"""The classes of a dataset: ids with names, which id is void, and what stays a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vocprep.dataset_manifest import LabelKind
from vocprep.errors import DataDirError
from vocprep.own_data.layouts.class_lists import IGNORED
from vocprep.own_data.layouts.found import Found
from vocprep.validation import printable

VoidOption = int | Literal["none"] | None
VOID_NAMES = frozenset(
    {"void", "ignore", "ignored", "unlabeled", "unlabelled", "unlabel", IGNORED, "don't care"}
)
"""Names of classes, in small letters, that stand for pixels of no class."""
FREE = (255, 65_534)
"""Void where every id is a class: the first that is none."""
_SMALL = 64
"""Ids below which 255 beside at least two of them is void, as in VOC and Cityscapes."""
_LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the manifests say of classes; a question in the place of what is not known."""

    label_kind: LabelKind
    names: Mapping[int, str]
    """Class ids and names, void not among them."""
    void: int | None
    """None where it is a question."""
    void_note: str = ""
    """Where void is from, for people."""
    colours: Mapping[int, str]
    """``#rrggbb`` of class ids."""
    label_colours: Mapping[str, int | None]
    """Colours of masks → ids; None where it is a question."""
    questions: Mapping[str, str]
    """By key, ``void`` or a colour: what is asked."""
    names_note: str = ""
    """Where the names are from, for people."""


def make_choices(
    found: Found, kind: LabelKind, names: Mapping[int, str], void: VoidOption, seen: set[int]
) -> Choices:
    """Return the choices of ids with names, "" where there is none.

    ``seen`` are the ids that masks hold. DataDirError where every id is void.
    """
    chosen, note = _void_of(found, names, void, seen)
    classes = {
        key: printable(" ".join(name.split()), _LONGEST_NAME - 10) or f"class {key}"
        for key, name in names.items()
        if key != chosen
    }
    if not classes:
        raise DataDirError(
            f"{found.labels}: every pixel is void ({chosen}); expected at least one class: choose "
            "with --void ID or --void none"
        )
    questions = {} if chosen is not None else {"void": _void_question(names, seen)}
    return Choices(
        label_kind=kind,
        names=_apart(classes),
        void=chosen,
        void_note=note,
        colours={},
        label_colours={},
        questions=questions,
        names_note=_names_note(found, names),
    )


def _void_of(
    found: Found, names: Mapping[int, str], void: VoidOption, seen: set[int]
) -> tuple[int | None, str]:
    """Return the id of void and where it is from; None where nothing says it."""
    if void is not None:
        return (_free(names), "--void none") if void == "none" else (void, "--void")
    return _void_that_follows(found, names, seen)


def _void_that_follows(
    found: Found, names: Mapping[int, str], seen: set[int]
) -> tuple[int | None, str]:
    """Return the id of void by names, layout and values; None where nothing says it."""
    named = [key for key, name in names.items() if name.lower() in VOID_NAMES]
    if len(named) == 1:
        return named[0], f"called {printable(names[named[0]])!r} in {_path_of(found)}"
    if found.void is not None:
        return found.void, f"as a {found.layout} has it"
    others = seen - {255}
    if 255 in seen and not names.get(255) and len(others) > 1 and max(others) < _SMALL:
        return 255, "255 beside small ids, as in VOC and Cityscapes; change it if it is a class"
    if names and all(names[key] for key in names if key in seen):
        return _free(names), f"{_path_of(found)} names every id, so that none is void"
    return None, ""


def _path_of(found: Found) -> str:
    return found.class_list.path if found.class_list else "the class list"


def _free(names: Mapping[int, str]) -> int:
    return next(key for key in FREE if key not in names)


def _void_question(names: Mapping[int, str], seen: set[int]) -> str:
    listed = sorted(seen)
    shown = ", ".join(map(str, listed)) if len(listed) <= 12 else f"{listed[0]} to {listed[-1]}"
    unnamed = [key for key in listed if not names.get(key)]
    named = any(names.values())
    hint = f" {', '.join(map(str, unnamed[:5]))} of them without a name;" if named else ""
    return (
        f"which id marks pixels of no class (void)? Masks hold {shown};{hint} write the id and "
        f"delete its line under [names], or write {_free(names)} if every id is a class."
    )


def _names_note(found: Found, names: Mapping[int, str]) -> str:
    if found.shipped_classes and all(names[key] for key in names if key != found.void):
        return f"those of {found.shipped_classes}, since masks hold no other ids"
    if found.class_list is None:
        return (
            "no file names the ids: change the names before building; versions and runs keep them"
        )
    unnamed = sum(not name for name in names.values())
    more = f"; {unnamed:,} ids have none" if unnamed else ""
    return f"from {found.class_list.path}{more}"


def _apart(names: Mapping[int, str]) -> dict[int, str]:
    """Return names of which no two are the same: ids are added to those that are."""
    counts = Counter(names.values())
    return {key: name if counts[name] == 1 else f"{name} ({key})" for key, name in names.items()}
