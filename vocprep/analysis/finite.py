"""Embeddings that can be reckoned with: a few bad numbers must not spoil what is said of the rest.

Shape legend: embeddings of any shape.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LARGEST = np.float32(1e15)
"""Sums of products of so large numbers are finite in single precision."""


def finite(embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return embeddings float32: 0 for what is not finite, ±10¹⁵ for what is beyond.

    >>> finite(np.array([1.5, np.nan, -np.inf, 1e30])).tolist()
    [1.5, 0.0, 0.0, 999999986991104.0]
    """
    single = embeddings.astype(np.float32)
    np.nan_to_num(single, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return single.clip(-_LARGEST, _LARGEST)
