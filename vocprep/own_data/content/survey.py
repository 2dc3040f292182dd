"""What the masks and pictures of a dataset hold, by a seeded sample that is spread over all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import PCG64, Generator

from vocprep.errors import DataError
from vocprep.features.image import picture_size, read_image_file
from vocprep.labels.decode import LabelRule, read_label_file
from vocprep.own_data.content.masks import MaskContent, look_into
from vocprep.own_data.pairing import Pairs
from vocprep.own_data.tree import Tree
from vocprep.parallel import map_ordered
from vocprep.progress import Progress, advancing, task

SAMPLE = 200
"""Masks that are decoded, where not all are."""
Size = tuple[int, int]
"""Width and height."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What one picture and its mask hold; a sentence instead of what does not decode."""

    image_id: str
    mask: MaskContent | None
    picture: Size | None
    problem: str = ""


@dataclass(kw_only=True)
class Survey:
    """Sums over the masks that were decoded."""

    looked_at: int = 0
    modes: Counter[str] = field(default_factory=Counter)
    first_with: dict[str, str] = field(default_factory=dict)
    """Image id of the first mask of each mode."""
    values: Counter[int] = field(default_factory=Counter)
    """Pixels by value."""
    colours: Counter[str] = field(default_factory=Counter)
    """Pixels by colour."""
    masks_of: Counter[str] = field(default_factory=Counter)
    """Masks by colour or by value (as text) that they hold."""
    of_colours: int = 0
    """Masks that hold colours and no values."""
    of_values: int = 0
    """Masks that hold values and no colours."""
    palette: dict[int, str] = field(default_factory=dict)
    picture_sizes: Counter[Size] = field(default_factory=Counter)
    other_size: list[tuple[str, Size, Size]] = field(default_factory=list)
    """Image id, size of the mask, size of the picture, where the two differ."""
    problems: list[str] = field(default_factory=list)
    """A sentence for each file that does not decode."""

    def pixels_of(self, value: str, *, by_colour: bool) -> int:
        """Return the pixels of a value or colour; greys are colours of masks without any."""
        if not by_colour:
            return self.values[int(value)]
        return self.colours[value] + (self.values[grey_of(value)] if self.of_values else 0)

    def masks_with(self, value: str, *, by_colour: bool) -> int:
        """Return how many masks hold a value or colour."""
        greys = self.masks_of[str(grey_of(value))] if by_colour and self.of_values else 0
        return self.masks_of[value] + greys

    def add(self, looked: Looked) -> None:
        """Count one picture and its mask."""
        self.looked_at += 1
        if looked.problem:
            self.problems.append(looked.problem)
        if looked.picture is not None:
            self.picture_sizes[looked.picture] += 1
        mask = looked.mask
        if mask is None:
            return
        self.modes[mask.mode] += 1
        self.first_with.setdefault(mask.mode, looked.image_id)
        self.values.update(mask.values)
        self.colours.update(mask.colours)
        self.of_colours += not mask.values
        self.of_values += not mask.colours
        self.masks_of.update(map(str, mask.values))
        self.masks_of.update(mask.colours.keys())
        for value, colour in mask.palette.items():
            self.palette.setdefault(value, colour)
        if looked.picture is not None and looked.picture != mask.size:
            self.other_size.append((looked.image_id, mask.size, looked.picture))


def grey_of(colour: str) -> int:
    """Return the value of a grey ``#vvvvvv``; −1 for other colours.

    >>> grey_of("#0a0a0a"), grey_of("#0a0a0b")
    (10, -1)
    """
    levels = set(bytes.fromhex(colour[1:]))
    return levels.pop() if len(levels) == 1 else -1


def chosen(image_ids: Sequence[str], count: int | None, seed: int) -> list[str]:
    """Return ids at seeded places in equal parts of all; every id for None.

    >>> chosen("abcdef", 3, 0) == chosen("abcdef", 3, 0), len(chosen("abcdef", 3, 0))
    (True, 3)
    """
    if count is None or len(image_ids) <= count:
        return list(image_ids)
    edges = np.linspace(0, len(image_ids), count + 1)
    places = edges[:-1] + Generator(PCG64(seed)).random(count) * np.diff(edges)
    return [image_ids[int(place)] for place in places]


def survey(
    look: Callable[[str], Looked], image_ids: Sequence[str], workers: int, progress: Progress
) -> Survey:
    """Look at the masks and pictures of some image ids."""
    sums = Survey()
    with task(progress, "masks", len(image_ids)):
        for looked in advancing(map_ordered(look, image_ids, workers), progress):
            sums.add(looked)
    return sums


def look_at(tree: Tree, pairs: Pairs, rule: LabelRule | None, image_id: str) -> Looked:
    """Decode a mask, and read the size of its picture."""
    mask, size, problems = None, None, []
    mask_path = tree.root / pairs.masks[image_id]
    picture_path = tree.root / pairs.pictures[image_id]
    try:
        mask = look_into(read_label_file(mask_path), mask_path, rule)
    except DataError as error:
        problems.append(str(error))
    try:
        height, width = picture_size(read_image_file(picture_path), str(picture_path))
        size = width, height
    except DataError as error:
        problems.append(str(error))
    return Looked(image_id=image_id, mask=mask, picture=size, problem="".join(problems[:1]))
