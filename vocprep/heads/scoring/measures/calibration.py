"""Calibration: whether pixels of a confidence are right as often as it says.

The confidence of a pixel is what ``predict`` gives: the probability of the mask that won it, or of
the class where heads have cells. Masks are trained to be drawn, not to give the chance that a
pixel's class is right, so that the two may differ much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BINS = 20
"""Bins of equal width that confidences 0..1 are sorted into."""
STEPS = 4000
"""Confidences are rounded to 1/this and counted, so that no sum depends on an order."""


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """The pixels whose confidence lies in ``low`` ≤ confidence < ``high``, 1 in the last bin."""

    low: float
    high: float
    pixels: int
    confidence: float
    """Their mean confidence; 0 without pixels."""
    accuracy: float
    """The share of them whose class was predicted; 0 without pixels."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Confidence beside accuracy, over the scored pixels of a split."""

    expected_error: float
    """Expected calibration error: the mean, over pixels, of their bin's |accuracy − confidence|."""
    confidence: float
    """Mean over all pixels."""
    accuracy: float
    """Pixel accuracy."""
    bins: tuple[CalibrationBin, ...]


class CalibrationCounter:
    """Counts pixels by confidence and by whether their class was predicted."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        # Wrong, right and void pixels by confidence.
        self._cells = torch.zeros(3 * (STEPS + 1), dtype=torch.int64, device=device)

    def add(self, confidence: Tensor, outcome: Tensor) -> None:
        """Count pixels of equal shape: confidence float in 0..1; 0 wrong, 1 right, 2 not scored."""
        cell = (confidence * STEPS).round_().to(torch.int16)
        cell += outcome.to(torch.int16).mul_(STEPS + 1)
        self._cells += torch.bincount(cell.flatten(), minlength=len(self._cells))

    def calibration(self) -> Calibration:
        """Return the bins so far; zeros without pixels."""
        wrong, right, _ = self._cells.view(3, -1).cpu().numpy()
        step = np.arange(STEPS + 1)
        place = np.minimum(step * BINS // STEPS, BINS - 1)
        pixels, hits, steps = (
            np.bincount(place, values) for values in (wrong + right, right, (wrong + right) * step)
        )
        total = max(float(pixels.sum()), 1.0)
        confidences, accuracies = (sums / pixels.clip(min=1) for sums in (steps / STEPS, hits))
        return Calibration(
            expected_error=float((pixels * abs(accuracies - confidences)).sum() / total),
            confidence=float(steps.sum() / STEPS / total),
            accuracy=float(hits.sum() / total),
            bins=tuple(
                CalibrationBin(
                    low=i / BINS,
                    high=(i + 1) / BINS,
                    pixels=int(pixels[i]),
                    confidence=float(confidences[i]),
                    accuracy=float(accuracies[i]),
                )
                for i in range(BINS)
            ),
        )
