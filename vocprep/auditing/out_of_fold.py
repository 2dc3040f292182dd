"""Out-of-fold predictions: the class probabilities of patches by heads that did not learn them.

The heads are softmax regressions. Their loss is bounded by a quadratic one whose matrix stays the
same, so that one factorisation per fold replaces a learning rate: no randomness, and fifteen passes
of large matrix products.

Shape legend: R patches, F features, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from vocprep.auditing.patches import Patches, label_shares
from vocprep.progress import Progress

_STEPS = 15
_RIDGE = 0.01
_CHUNK = 8192
"""Patches whose scores are in memory at once."""
_LEAST = 1e-4
"""Probabilities below this one count as much: none is evidence beyond it."""
Floats = NDArray[np.float32]


def deal_folds(groups: Sequence[str], folds: int) -> NDArray[np.int64]:
    """Return the fold [N] of each picture, which follows from the name of its group alone.

    >>> deal_folds(["a", "d", "a"], 4).tolist()
    [2, 1, 2]
    """
    digests = (hashlib.sha256(group.encode()).digest() for group in groups)
    return np.array([int.from_bytes(digest[:8]) % folds for digest in digests], dtype=np.int64)


def predict_out_of_fold(
    patches: Patches, fold_of: NDArray[np.int64], progress: Progress
) -> NDArray[np.float16]:
    """Return log probabilities float16 [R, C] of all patches, each by heads of the other folds.

    ``fold_of`` [N] is the fold of each picture. Where all pictures are in one fold their heads have
    learnt nothing, and every class is as likely as another.
    """
    result = np.empty((len(patches.slots), len(patches.classes)), dtype=np.float16)
    folds = np.unique(fold_of)
    row_folds = np.repeat(fold_of, np.diff(patches.starts))
    rows = {int(fold): np.flatnonzero(row_folds == fold) for fold in folds}
    curvature = {fold: _curvature(patches, own) for fold, own in rows.items()}
    whole = sum(curvature.values(), np.zeros_like(next(iter(curvature.values()))))
    progress.begin("training", len(folds) * _STEPS, 0)
    try:
        for fold, own in rows.items():
            others = np.flatnonzero(row_folds != fold)
            weights = _fit(patches, others, whole - curvature[fold], progress)
            for chunk in _chunks(own):
                probabilities = _softmax(_features(patches, chunk) @ weights)
                result[chunk] = np.log(np.maximum(probabilities, _LEAST))
    finally:
        progress.end()
    return result


def _fit(
    patches: Patches, rows: NDArray[np.intp], curvature: NDArray[np.float64], progress: Progress
) -> Floats:
    """Return weights float32 [F, C] fitted to the label shares of patches."""
    shape = curvature.shape[0], len(patches.classes)
    weights = np.zeros(shape, dtype=np.float32)
    total = float(patches.pixels[rows].sum()) / 1024
    if not total:
        progress.advance(_STEPS)
        return weights
    # 1/2 bounds the curvature of the softmax (Boehning, 1992).
    bound = 0.5 * curvature / total + _RIDGE * np.eye(shape[0])
    factor = cho_factor(bound)
    ahead, momentum = weights, 1.0
    for _ in range(_STEPS):  # with Nesterov's acceleration
        gradient = _gradient(patches, rows, ahead) / total + _RIDGE * ahead
        step = ahead - cho_solve(factor, gradient).astype(np.float32)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = step + np.float32((momentum - 1) / following) * (step - weights)
        weights, momentum = step, following
        progress.advance(1)
    return weights


def _gradient(patches: Patches, rows: NDArray[np.intp], weights: Floats) -> NDArray[np.float64]:
    """Return the gradient [F, C] of the cross-entropy, summed over patches by their labels."""
    gradient = np.zeros(weights.shape)
    for chunk in _chunks(rows):
        features, shares = _features(patches, chunk), label_shares(patches, chunk)
        probabilities = _softmax(features @ weights)
        probabilities *= shares.sum(axis=1, keepdims=True)
        gradient += features.T @ (probabilities - shares)
    return gradient


def _curvature(patches: Patches, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the products [F, F] of features, summed over patches by their labelled pixels."""
    size = patches.features.shape[1]
    total = np.zeros((size, size))
    for chunk in _chunks(rows):
        features = _features(patches, chunk)
        labelled = patches.pixels[chunk].sum(axis=1, keepdims=True) / np.float32(1024)
        total += (features * labelled).T @ features
    return total


def _features(patches: Patches, rows: NDArray[np.intp]) -> Floats:
    return patches.features[rows].astype(np.float32)


def _chunks(rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    bounds = [*range(0, len(rows), _CHUNK), len(rows)]
    for start, stop in pairwise(bounds):
        yield rows[start:stop]


def _softmax(scores: Floats) -> Floats:
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores
