"""Errors apart: what wrong pixels were taken for, in patches of one class and of several.

Where a label space has a background, an object that was missed, one that was seen where none is,
and one that was taken for another are different faults: the first two ask for other weights of the
classes, the last for better embeddings. Patches of several classes hold the borders.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vocprep.heads.scoring.measures.metrics import ConfusionMatrix
from vocprep.labels.label_space import LabelSpace

_BACKGROUND = ("background", "bg")


@dataclass(frozen=True, kw_only=True)
class ErrorShares:
    """Wrong pixels of some patches, as shares of all scored pixels of the split."""

    pixels: float
    """All pixels of these patches."""
    wrong: float
    """The wrong ones: the sum of the three below."""
    missed_object: float | None
    """Of an object and called background; None where the label space has no background."""
    wrong_object: float
    """Of one class and called another, neither of them background; or called no class."""
    false_object: float | None
    """Of background and called an object; None where the label space has no background."""


@dataclass(frozen=True, kw_only=True)
class Errors:
    """The model's wrong pixels by the patches that they lie in."""

    background: int | None
    """Class id of the background, None where the label space has none."""
    pure: ErrorShares
    """Patches whose valid pixels are of one class."""
    mixed: ErrorShares
    """Patches of two classes or more."""


def background_class(space: LabelSpace) -> int | None:
    """Return the id of the class that stands for everything else, by its name; None without one.

    >>> background_class(LabelSpace.of_classes(name="a", void=255, names={0: "_background_"}))
    0
    """
    named = (key for key, name in space.names.items() if _is_background(name))
    return min(named, default=None)


def _is_background(name: str) -> bool:
    return name.strip("_ ").lower() in _BACKGROUND


def errors_apart(pure: ConfusionMatrix, mixed: ConfusionMatrix, background: int | None) -> Errors:
    """Return the errors of pixels in patches of one class and of several."""
    total = max(int(pure.counts.sum() + mixed.counts.sum()), 1)
    return Errors(
        background=background,
        pure=_shares(pure, total, background),
        mixed=_shares(mixed, total, background),
    )


def _shares(matrix: ConfusionMatrix, total: int, background: int | None) -> ErrorShares:
    pixels = int(matrix.counts.sum())
    wrong = pixels - int(np.trace(matrix.counts))
    if background is None:
        missed = false = None
        other = wrong
    else:
        right = matrix.counts[background, background]
        missed = int(matrix.counts[:, background].sum() - right)
        # A prediction of no class is in the last column, and no object.
        false = int(matrix.counts[background, :-1].sum() - right)
        other = wrong - missed - false
    return ErrorShares(
        pixels=pixels / total,
        wrong=wrong / total,
        missed_object=None if missed is None else missed / total,
        wrong_object=other / total,
        false_object=None if false is None else false / total,
    )
