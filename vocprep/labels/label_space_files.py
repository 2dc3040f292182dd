"""The files of label spaces, checked: the TOML of a manifest and the JSON beside shards and runs.

A manifest is written by people, so that names which are the same twice or empty are refused; what
is stored may be of an earlier version, and only what no reader could use is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from vocprep.manifest_paths import Reference, one_line
from vocprep.validation import printable

OUTSIDE = 0xFFFF
"""No id of a label space."""
LONGEST_NAME = 200
"""Characters of a class name; the longest that is shipped has 21."""
LONGEST_TITLE = 10_000


def _id_of(key: object) -> object:
    """Return the id of a table's key, which is text; ``01`` and ``1`` would be one id."""
    if not isinstance(key, str):
        return key
    if _DECIMAL.fullmatch(key) is None:
        raise ValueError(f"{printable(key[:20])!r} is no id: expected a whole number, as 1 or 20")
    return int(key)


def _hex_colour(text: str) -> str:
    if _HEX_COLOUR.fullmatch(text) is None:
        raise ValueError(
            f"{printable(text[:20])!r} is no colour: expected # and six hexadecimal digits, two "
            "each for red, green and blue, as '#1e90ff'"
        )
    return text.lower()


def check_colours(colours: Mapping[int, str], names: Mapping[int, str], void: int) -> None:
    """Raise ValueError for a colour of an id that is no class."""
    for key in colours:
        if key == void:
            raise ValueError(f"colours: id {key} is void, which is hatched; leave its colour out")
        if key not in names:
            raise ValueError(f"colours: id {key} is not a class; expected ids of names")


_HEX_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,8}")
LabelId = Annotated[int, Field(ge=0, lt=OUTSIDE)]
RawKey = Annotated[LabelId, BeforeValidator(_id_of)]
ClassKey = Annotated[int, Field(ge=0, lt=32768), BeforeValidator(_id_of)]
Name = Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(one_line)]
HexColour = Annotated[str, AfterValidator(_hex_colour)]
"""``#rrggbb``, in small letters once it is read."""
Colours = Annotated[dict[ClassKey, HexColour], Field(min_length=1)]
ClassNames = Annotated[dict[ClassKey, Name], Field(min_length=1)]


class StoredLabelSpace(BaseModel):
    """The values of ``LabelSpace.to_json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    title: Annotated[str, Field(max_length=LONGEST_TITLE)]
    void: LabelId
    void_unknown: bool
    names: ClassNames
    raw_to_class: dict[RawKey, LabelId]
    colours: Colours | None = None

    @model_validator(mode="after")
    def _ids_have_names(self) -> Self:
        if self.void in self.names:
            raise ValueError(f"void id {self.void} is also a class")
        unnamed = set(self.raw_to_class.values()) - self.names.keys() - {self.void}
        if unnamed:
            raise ValueError(f"raw_to_class: id {min(unnamed)} is neither a class nor void")
        check_colours(self.colours or {}, self.names, self.void)
        return self


class LabelSpaceManifest(BaseModel):
    """The TOML file of a label space."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: Annotated[str, Field(max_length=LONGEST_TITLE)]
    void: Annotated[LabelId, Field(strict=True)]
    base: Reference | None = None
    base_names: dict[str, Name] = {}
    """Class name here → class name in the base, where they differ."""
    names: ClassNames
    colours: Colours | None = None
    """Class id → colour, where it is not left to the program."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if self.void in self.names:
            raise ValueError(f"void id {self.void} is also a class; choose another")
        first_with: dict[str, int] = {}
        for key, name in self.names.items():
            if not name.strip():
                raise ValueError(f"names: class {key} has an empty name; give it one")
            first = first_with.setdefault(name, key)
            if first != key:
                raise ValueError(
                    f"names: classes {first} and {key} are both called {name!r}; name them apart"
                )
        check_colours(self.colours or {}, self.names, self.void)
        return self
