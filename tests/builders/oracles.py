"""Scores computed the slow way, pixel by pixel."""

from __future__ import annotations

import numpy as np

VOID = 9


def naive_ious(truth: np.ndarray, predicted: np.ndarray, categories: int) -> list[float]:
    ious = []
    for label in range(categories):
        hits = union = 0
        for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
            if t == VOID:
                continue
            hits += t == label and p == label
            union += label in (t, p)
        ious.append(hits / union if union else 0.0)
    return ious


def naive_average_precision(scores: list[int], held: list[bool]) -> float:
    """Go down the thresholds, one score at a time."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        accepted = [h for s, h in zip(scores, held, strict=True) if s >= threshold]
        recall = sum(accepted) / sum(held)
        total += (recall - before) * sum(accepted) / len(accepted)
        before = recall
    return total
