"""Small runs to be exported."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from builders.exported_runs import (
    ONE_CONVOLUTION,
    SMALL,
    WEIGHTS,
    fitted,
    one_convolution,
    small_run,
)
from builders.heads import MASK_HEADS

from vocprep.exporting.options import ExportOptions
from vocprep.exporting.runs.source import RunSource, run_source


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunSource]:
    """A run of cells in context, of two windows around each patch."""
    heads = {**SMALL, **MASK_HEADS["cells in context"], "cells": 2, "cell_context": 1}
    choices = {"backbone": ONE_CONVOLUTION, "layers": ("layer1",), "windows": (32, 64)}
    with one_convolution():
        run = small_run(tmp_path_factory.mktemp("cells") / "run", heads, **choices)
        yield fitted(run_source(run, ExportOptions(weights=WEIGHTS)))


@pytest.fixture(scope="module")
def slots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunSource]:
    """A run of slots whose classes are weighted."""
    heads = {**SMALL, "embedding_dim": 128, **MASK_HEADS["mixed slots"]}
    choices = {"backbone": ONE_CONVOLUTION, "layers": ("layer1",)}
    with one_convolution():
        run = small_run(tmp_path_factory.mktemp("slots") / "run", heads, **choices)
        yield fitted(run_source(run, ExportOptions(weights=WEIGHTS, prior_power=0.3)))
