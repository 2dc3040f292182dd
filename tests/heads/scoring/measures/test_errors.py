"""Errors apart, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vocprep.heads.scoring.measures.errors import background_class, errors_apart
from vocprep.heads.scoring.measures.metrics import ConfusionMatrix
from vocprep.labels.label_space import LabelSpace, load_label_space

PURE = ConfusionMatrix(np.array([[49, 3, 1, 1], [6, 10, 0, 0], [4, 5, 10, 1]]))
MIXED = ConfusionMatrix(np.array([[4, 0, 2, 0], [1, 2, 0, 0], [0, 1, 0, 0]]))


def test_errors_are_told_apart():
    found = errors_apart(PURE, MIXED, background=0)
    assert (found.pure.pixels, found.mixed.pixels) == (0.9, 0.1)
    assert found.pure.missed_object == pytest.approx(0.10)
    assert found.pure.false_object == pytest.approx(0.04)
    assert found.pure.wrong_object == pytest.approx(0.07)  # two of them called no class
    assert found.mixed.missed_object == pytest.approx(0.01)
    assert found.mixed.false_object == pytest.approx(0.02)
    assert found.mixed.wrong_object == pytest.approx(0.01)
    assert (found.pure.wrong, found.mixed.wrong) == pytest.approx((0.21, 0.04))


def test_without_background_a_wrong_class_is_all_that_is_known():
    found = errors_apart(PURE, MIXED, background=None)
    assert found.pure.missed_object is None
    assert found.pure.false_object is None
    assert found.pure.wrong_object == found.pure.wrong == pytest.approx(0.21)


def test_the_background_is_known_by_its_name():
    assert background_class(load_label_space("voc21")) == 0
    assert background_class(load_label_space("context460")) is None
    named = {3: "cat", 7: "Background"}
    assert background_class(LabelSpace.of_classes(name="own", void=0, names=named)) == 7
