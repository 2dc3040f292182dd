"""Sheets of images with their truth and prediction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vocprep.drawing.label_maps import ERROR_COLOUR
from vocprep.drawing.labelled import LabelledImage, labelled_sheet
from vocprep.drawing.palette import ClassStyle

STYLE = ClassStyle.of({1: "cat", 2: "dog"}, 255, str)
TRUTH = np.ones((224, 224), dtype=np.uint16)
PREDICTED = np.where(np.arange(224)[:, np.newaxis] < 50, np.uint16(2), TRUTH)
ALL = LabelledImage(
    name="2010_000002",
    image=np.full((224, 224, 3), 90, dtype=np.uint8),
    truth=TRUTH,
    predicted=PREDICTED,
    confidence=np.full((224, 224), 0.5, dtype=np.float32),
)


@pytest.mark.parametrize(
    ("absent", "panels"),
    [
        ((), 5),
        (("confidence",), 4),
        (("image",), 4),
        (("image", "confidence"), 3),
        (("truth",), 3),
        (("truth", "confidence"), 2),
        (("predicted", "confidence"), 2),
        (("image", "predicted", "confidence"), 1),
    ],
)
def test_sheet_has_a_panel_for_everything_that_is_known(
    absent: tuple[str, ...], panels: int
) -> None:
    sheet = np.asarray(labelled_sheet(replace(ALL, **dict.fromkeys(absent)), STYLE))
    # Text and legend are small: pixels that are not white are those of the panels.
    covered = int((sheet != 255).any(axis=-1).sum())
    assert panels * 448**2 < covered < (panels + 0.1) * 448**2


def test_errors_are_those_of_truth_and_prediction() -> None:
    sheet = np.asarray(labelled_sheet(replace(ALL, image=None, confidence=None), STYLE))
    assert (sheet == ERROR_COLOUR).all(axis=-1).sum() == 448 * 100


def test_title_is_above_the_panels() -> None:
    assert labelled_sheet(ALL, STYLE, "worst").height > labelled_sheet(ALL, STYLE).height


def test_large_images_are_reduced_before_they_are_painted() -> None:
    large = LabelledImage(
        name="large",
        image=np.zeros((3000, 4000, 3), dtype=np.uint8),
        predicted=np.ones((3000, 4000), dtype=np.uint16),
    )
    assert 1000 * 2 < labelled_sheet(large, STYLE).width < 1000 * 2 + 300
