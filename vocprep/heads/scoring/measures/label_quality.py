"""Label quality: how well given labels agree with predictions of a model that did not learn them.

The scores are those of confident learning (Northcutt et al., 2021), for patches with shares of
several classes: where a patch has one class they are the usual ones. 1 is a label that the model
believes entirely, 0 one that it excludes.

Shape legend: P patches, C classes. ``shares`` [P, C] are the parts of each patch's pixels, of sum 1
(0 without a label); ``probabilities`` [P, C] are the model's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def self_confidence(shares: Array, probabilities: Array) -> NDArray[np.float64]:
    """Return the probability [P] of the given classes, weighted by their shares.

    >>> self_confidence(np.array([[0.5, 0.5, 0.0]]), np.array([[0.2, 0.7, 0.1]]))
    array([0.45])
    """
    product: NDArray[np.float64] = (shares * probabilities).sum(axis=1, dtype=np.float64)
    return product


def normalized_margin(shares: Array, probabilities: Array) -> NDArray[np.float64]:
    """Return how far [P] the given classes are above the best other one, from 0 to 1.

    >>> normalized_margin(np.array([[1.0, 0.0, 0.0]]), np.array([[0.2, 0.7, 0.1]])).round(3)
    array([0.25])
    """
    others = np.where(shares > 0, 0.0, probabilities).max(axis=1)
    margin: NDArray[np.float64] = (self_confidence(shares, probabilities) - others + 1) / 2
    return margin


def class_thresholds(sums: Array, areas: Array) -> NDArray[np.float64]:
    """Return the self-confidence [C] that is usual for each class.

    ``sums`` [C] are the sums of ``shares * probabilities`` over patches, ``areas`` [C] those of
    ``shares``. A class that no patch has gets the largest threshold of the others.

    >>> class_thresholds(np.array([3.0, 1.0, 0.0]), np.array([4.0, 4.0, 0.0]))
    array([0.75, 0.25, 0.75])
    """
    known = areas > 0
    thresholds = np.divide(sums, areas, out=np.zeros(len(sums)), where=known)
    return np.where(known, thresholds, thresholds.max(initial=0.0))


def calibrated(probabilities: Array, thresholds: Array) -> NDArray[np.float64]:
    """Return probabilities [P, C] less what is usual for each class, again of sum 1.

    So that classes that the model seldom believes are judged by their own measure.

    >>> calibrated(np.array([[0.6, 0.4]]), np.array([0.8, 0.2])).round(3)
    array([[0.375, 0.625]])
    """
    shifted = probabilities - thresholds + thresholds.max()
    total = shifted.sum(axis=1, keepdims=True)
    result: NDArray[np.float64] = np.divide(shifted, np.where(total > 0, total, 1))
    return result
