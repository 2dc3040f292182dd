"""How far embeddings may differ between numerics classes, and how far they do.

Shape legend: P patches, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.recipe import Precision


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How far two sets of embeddings of the same patches are apart."""

    patches: int = 0
    largest_deviation: float = 0.0
    """Maximum of |found − expected| / max(1, |expected|) over all numbers."""
    smallest_cosine: float = 1.0
    """Minimum over the patches of the cosine between their two embeddings."""

    def __add__(self, other: Deviation) -> Deviation:
        """Return the deviation over the patches of both."""
        return Deviation(
            patches=self.patches + other.patches,
            largest_deviation=max(self.largest_deviation, other.largest_deviation),
            smallest_cosine=min(self.smallest_cosine, other.smallest_cosine),
        )

    def within(self, tolerance: Tolerance) -> bool:
        """Return whether both measures are within a tolerance."""
        return (
            self.largest_deviation <= tolerance.largest_deviation
            and self.smallest_cosine >= tolerance.smallest_cosine
        )

    def __str__(self) -> str:
        return (
            f"largest deviation {self.largest_deviation:.2g}, "
            f"smallest cosine {self.smallest_cosine:.6f}"
        )


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """The deviation that is allowed between numerics classes."""

    largest_deviation: float
    smallest_cosine: float

    def __str__(self) -> str:
        return f"{self.largest_deviation:g} and {self.smallest_cosine:g}"


EMBEDDING_TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(largest_deviation=0.005, smallest_cosine=0.9999),
    "tf32": Tolerance(largest_deviation=0.2, smallest_cosine=0.999),
    "fp16": Tolerance(largest_deviation=0.2, smallest_cosine=0.999),
    "bf16": Tolerance(largest_deviation=1.0, smallest_cosine=0.99),
    "exact": Tolerance(largest_deviation=0.0, smallest_cosine=1.0),
}
"""Between two machines at the same precision. fp32 allows one rounding of float16 storage and some
more; bf16 differs from fp32 by 0.47 and 0.997 on photographs, and two ways to compute it by
no more than twice that (docs/format.md)."""


def measure_deviation(found: NDArray[Any], expected: NDArray[Any]) -> Deviation:
    """Return the deviation of embeddings [P, D] from the expected ones of the same patches.

    A number that is not finite counts as an infinite deviation.

    >>> print(measure_deviation(np.array([[2.0, 0.0]]), np.array([[2.5, 0.0]])))
    largest deviation 0.2, smallest cosine 1.000000
    """
    one, other = found.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):  # _nan_as_infinite handles what is not a number
        deviations = np.abs(one - other) / np.maximum(1, np.abs(other))
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines = (one * other).sum(axis=1) / np.where(norms == 0, 1, norms)
    # Two embeddings of zeros only are equal; one of them alone has cosine 0 to anything.
    cosines = np.where((one == other).all(axis=1), 1.0, cosines)
    return Deviation(
        patches=len(one),
        largest_deviation=_nan_as_infinite(deviations.max()),
        smallest_cosine=-_nan_as_infinite(-cosines.min()),
    )


def _nan_as_infinite(value: float) -> float:
    return float("inf") if np.isnan(value) else float(value)


def total_deviation(parts: Sequence[Deviation]) -> Deviation:
    """Return the deviation over the patches of all parts; of no parts, over no patches."""
    return sum(parts, start=Deviation())
