"""Label quality beside that of cleanlab, which has the same definitions for one label a patch."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from vocprep.heads.scoring.measures.label_quality import (
    calibrated,
    class_thresholds,
    normalized_margin,
    self_confidence,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    rank = pytest.importorskip("cleanlab.rank")


def made(patches: int = 400, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, patches - classes)])
    logits = random.normal(size=(patches, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probabilities


@pytest.mark.parametrize("adjust", [False, True])
@pytest.mark.parametrize("method", ["self_confidence", "normalized_margin"])
def test_patches_of_one_class_have_the_scores_of_cleanlab(method: str, adjust: bool) -> None:
    labels, probabilities = made()
    expected = rank.get_label_quality_scores(
        labels, probabilities, method=method, adjust_pred_probs=adjust
    )
    shares = np.eye(probabilities.shape[1])[labels]
    if adjust:
        sums = (shares * probabilities).sum(axis=0)
        probabilities = calibrated(probabilities, class_thresholds(sums, shares.sum(axis=0)))
    score = {"self_confidence": self_confidence, "normalized_margin": normalized_margin}[method]
    np.testing.assert_allclose(score(shares, probabilities), expected, rtol=0, atol=1e-12)


def test_a_patch_of_two_classes_is_judged_by_both() -> None:
    shares = np.array([[0.75, 0.25, 0.0], [0.0, 0.0, 0.0]])
    probabilities = np.array([[0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
    assert self_confidence(shares, probabilities).tolist() == pytest.approx([0.225, 0.0])
    assert normalized_margin(shares, probabilities).tolist() == pytest.approx([0.4625, 0.2])
