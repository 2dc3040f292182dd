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
    """Differences between embeddings that should be the same."""

    patches: int = 0
    largest: float = 0.0
    """Of |found − expected| / max(1, |expected|) over all numbers."""
    cosine: float = 1.0
    """The smallest between the two embeddings of a patch."""

    def __add__(self, other: Deviation) -> Deviation:
        """Put the patches of both together."""
        return Deviation(
            patches=self.patches + other.patches,
            largest=max(self.largest, other.largest),
            cosine=min(self.cosine, other.cosine),
        )

    def within(self, tolerance: Tolerance) -> bool:
        """Say whether it is no more than a tolerance allows."""
        return self.largest <= tolerance.largest and self.cosine >= tolerance.cosine

    def __str__(self) -> str:
        return f"largest deviation {self.largest:.2g}, smallest cosine {self.cosine:.6f}"


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What is allowed between numerics classes."""

    largest: float
    cosine: float

    def __str__(self) -> str:
        return f"{self.largest:g} and {self.cosine:g}"


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(largest=0.005, cosine=0.9999),
    "tf32": Tolerance(largest=0.2, cosine=0.999),
    "fp16": Tolerance(largest=0.2, cosine=0.999),
    "bf16": Tolerance(largest=1.0, cosine=0.99),
}
"""Between two machines at the same precision. fp32 allows one rounding of float16 storage and some
more; bf16 differs from fp32 by 0.47 and 0.997 on photographs, and two ways to compute it by
no more than twice that (docs/format.md)."""


def measure(found: NDArray[Any], expected: NDArray[Any]) -> Deviation:
    """Compare embeddings [P, D] of the same patches."""
    one, other = found.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):  # what is not a number is dealt with below
        largest = np.abs(one - other) / np.maximum(1, np.abs(other))
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines = (one * other).sum(axis=1) / np.where(norms == 0, 1, norms)
    # Two embeddings of nothing but zeros are the same; one of them alone is as far as can be.
    cosines = np.where((one == other).all(axis=1), 1.0, cosines)
    return Deviation(
        patches=len(one), largest=_worst(largest.max()), cosine=-_worst(-cosines.min())
    )


def _worst(value: float) -> float:
    """Let what is not a number count as infinitely far."""
    return float("inf") if np.isnan(value) else float(value)


def total(parts: Sequence[Deviation]) -> Deviation:
    """Put deviations together; of none, no deviation over no patches."""
    return sum(parts, start=Deviation())
