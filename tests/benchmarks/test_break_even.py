"""The break-even epoch of the benchmark of training, by hand."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def break_even(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int | None]:
    monkeypatch.syspath_prepend(str(FOLDER))
    function: Callable[..., int | None] = runpy.run_path(str(FOLDER / "train.py"))["break_even"]
    return function


@pytest.mark.parametrize(
    ("build_seconds", "fast", "epoch"),
    [
        (0.0, 20.0, 1),
        (4.0, 20.0, 1),
        (
            5.0,
            20.0,
            2,
        ),  # 100 pictures: 10 s an epoch, 5 s once built: even after one, less after two
        (31.0, 20.0, 7),
        (5.0, 10.0, None),
        (5.0, 5.0, None),
    ],
)
def test_break_even_is_the_first_epoch_that_ends_sooner(
    break_even: Callable[..., int | None], build_seconds: float, fast: float, epoch: int | None
) -> None:
    assert break_even(100, build_seconds, 10.0, fast) == epoch
    if epoch is not None:
        plain = [10.0 * epochs for epochs in range(epoch + 1)]
        built = [build_seconds + 100 / fast * epochs for epochs in range(epoch + 1)]
        assert built[epoch] < plain[epoch]
        assert built[epoch - 1] >= plain[epoch - 1]
