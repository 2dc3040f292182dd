"""Views: what a version may hold of each image beside its plain view, and how crops are drawn.

Shape legend: H, W pixels of an image as it is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from math import isqrt
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field

from vocprep.errors import UsageError
from vocprep.files.ids import MOST_CROPS, is_plain, view_suffix
from vocprep.geometry import Geometry
from vocprep.validation import LARGEST, WholeNumber, checked, printable

View = Literal["identity", "flip"]
ViewKind = Literal["flip", "crops"]
ViewChoice = bool | tuple[ViewKind, ...]
"""Which views are read beside the plain one: all that there are, none, or those of some kinds."""
Box = tuple[slice, slice]
"""Rows and columns of an image."""

CROP_GEOMETRY: Final = Geometry(geometry="squash")
"""How a crop, which is a square, is brought to the patch grid."""
_CROP_TEXT = re.compile(r"crops:([0-9]{1,6}),\s*([0-9]{1,24})")
_LOW, _HIGH = 1 << 64, 1 << 66
"""A crop's area is at least _LOW / _HIGH, a quarter, of that of the largest square."""


@checked
class Crops:
    """Random square crops of each image, as further views of it: ``crop1`` to ``cropN``.

    >>> crops = Crops(count=2, seed=7)
    >>> crops.names
    ('crop1', 'crop2')
    >>> crops.box("2008_000002", 1, 375, 500)
    (slice(45, 320, None), slice(153, 428, None))
    """

    count: Annotated[int, Field(ge=1, le=MOST_CROPS)]
    """N."""
    seed: Annotated[int, Field(ge=0, le=LARGEST)]
    rule: Annotated[Literal[1], WholeNumber] = 1
    """Version of the rule by which they are drawn (docs/format.md)."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``crops:N,SEED``; UsageError for anything else.

        >>> Crops.parse("crops:2,7")
        Crops(count=2, seed=7, rule=1)
        """
        numbers = _CROP_TEXT.fullmatch(text)
        try:
            if numbers is None:
                raise UsageError("no two numbers")
            return cls(count=int(numbers[1]), seed=int(numbers[2]))
        except UsageError as error:
            raise UsageError(
                f"views {printable(text, 60)!r}: expected crops:N,SEED with the number of crops, 1 "
                f"to {MOST_CROPS}, and a seed, 0 to {LARGEST}, e.g. crops:2,0"
            ) from error

    def __str__(self) -> str:
        return f"crops:{self.count},{self.seed}"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the views."""
        return tuple(f"crop{number}" for number in range(1, self.count + 1))

    def box(self, image_id: str, number: int, height: int, width: int) -> Box:
        """Return where crop ``number``, from 1, lies in an image of height × width pixels.

        Whole numbers only, so that every machine draws the same.
        """
        text = f"vocprep crop {self.rule}\0{self.seed}\0{number}\0{image_id}"
        digest = sha256(text.encode()).digest()
        area, row, column = (int.from_bytes(digest[at : at + 8], "big") for at in (0, 8, 16))
        shorter = min(height, width)
        side = 1 + isqrt((shorter**2 * (_LOW + 3 * area) - 1) // _HIGH)
        top, left = row * (height - side + 1) >> 64, column * (width - side + 1) >> 64
        return slice(top, top + side), slice(left, left + side)

    def boxes(self, image_id: str, height: int, width: int) -> Iterator[tuple[str, Box]]:
        """Yield the name and the place of each crop of an image."""
        for number, name in enumerate(self.names, start=1):
            yield name, self.box(image_id, number, height, width)


def _chosen_view(value: object) -> object:
    """Accept what a user would write: ``"flip"`` or ``"crops:2,0"``."""
    if not isinstance(value, str) or value in ("identity", "flip"):
        return value
    if value.startswith("crops"):
        return Crops.parse(value)
    raise UsageError(f"views {printable(value, 60)!r}: expected flip or crops:N,SEED")


ChosenView = Annotated[View | Crops, BeforeValidator(_chosen_view)]
"""A view, or crops, as a user chooses them."""


def parse_views(text: str) -> tuple[str, ...]:
    """Split further views with commas between them, of which crops have one too.

    UsageError where one is named twice, or the plain view, which is no further one.

    >>> parse_views("crops:2,0, flip")
    ('crops:2,0', 'flip')
    """
    views = tuple(part.strip() for part in re.split(r",(?!\s*-?[0-9])", text))
    kinds = [view.partition(":")[0] for view in views]
    twice = [kind for kind in kinds if kinds.count(kind) > 1]
    if "identity" in kinds:
        raise UsageError(
            f"views {printable(text, 60)!r}: expected further views, flip or crops:N,SEED; leave "
            "identity out, the plain view, which every version holds"
        )
    if twice:
        raise UsageError(f"views {printable(text, 60)!r}: expected {printable(twice[0], 60)} once")
    return views


def check_crops(crops: Crops | None, geometry: Geometry) -> None:
    """Raise UsageError for crops with a geometry that resizes nothing."""
    if crops is not None and geometry.geometry == "native":
        raise UsageError(
            f"views {str(crops)!r} do not go with geometry 'native', which resizes nothing: "
            "expected crop or squash"
        )


def per_image(choice: ViewChoice, views: Sequence[str]) -> int:
    """Return how many views of each image are read, of a version that holds such views of all.

    >>> per_image(("crops",), ("identity", "flip", "crop1", "crop2"))
    3
    """
    return sum(is_chosen(f"#{view}" if view != "identity" else "", choice) for view in views)


def is_chosen(record_id: str, choice: ViewChoice) -> bool:
    """Return whether a record is among those that are read.

    >>> [is_chosen(record_id, ("flip",)) for record_id in ("a", "a#flip", "a#crop1")]
    [True, True, False]
    """
    if isinstance(choice, bool):
        return choice or is_plain(record_id)
    view = view_suffix(record_id)
    return not view or ("flip" if view == "#flip" else "crops") in choice


def chosen_rows(record_ids: Sequence[str], choice: ViewChoice) -> list[int]:
    """Return which of some records are among those that are read.

    >>> chosen_rows(["a", "a#flip", "b"], False)
    [0, 2]
    """
    if all_plain(record_ids):
        return list(range(len(record_ids)))
    return [row for row, record_id in enumerate(record_ids) if is_chosen(record_id, choice)]


def all_plain(record_ids: Sequence[str]) -> bool:
    """Return whether it is plain at once that no record is of a view other than the plain one."""
    return "#" not in "".join(record_ids)


def is_crop(record_id: str) -> bool:
    """Return whether a record is a crop."""
    return view_suffix(record_id).startswith("#crop")


def draw_alike(one: Crops | None, other: Crops | None) -> bool:
    """Return whether crops of one number are the same in both, however many there are."""
    return one is not None and other is not None and replace(one, count=other.count) == other
