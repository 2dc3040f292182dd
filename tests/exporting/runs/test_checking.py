"""A file that computes something else than the run is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from numpy.typing import NDArray

from vocprep.errors import DataError
from vocprep.exporting.runs.checking import check
from vocprep.exporting.runs.source import RunSource

Arrays = Sequence[NDArray[Any]]


def test_outputs_of_the_run_itself_are_accepted_and_others_are_refused(slots: RunSource) -> None:
    module = slots.heads()

    def itself(inputs: Arrays) -> Arrays:
        return [each.numpy() for each in module(*map(torch.from_numpy, inputs))]

    agreement = check(slots, "heads", "heads.onnx", itself)
    assert agreement.agreeing == agreement.pixels > 0

    def other_classes(inputs: Arrays) -> Arrays:
        chances, label_map, confidence = itself(inputs)
        return chances, label_map + (confidence > 0.5), confidence

    def less_sure(inputs: Arrays) -> Arrays:
        chances, label_map, confidence = itself(inputs)
        return chances, label_map, confidence * 0.98

    def no_numbers(inputs: Arrays) -> Arrays:
        chances, label_map, confidence = itself(inputs)
        return chances * float("nan"), label_map, confidence

    for wrong in (other_classes, less_sure, no_numbers):
        with pytest.raises(DataError, match=r"heads\.onnx: expected .* nothing was written"):
            check(slots, "heads", "heads.onnx", wrong)
