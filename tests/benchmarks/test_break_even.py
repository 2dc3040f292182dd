"""The benchmark of training at a tiny size, and its break-even epoch by hand."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
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


@pytest.mark.slow
def test_the_table_of_training_has_all_rows(tmp_path: Path) -> None:
    words = ["--images", "8", "--batch-size", "4", "--repeats", "1", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "train.py"), *words, "--json", str(tmp_path / "out.json")],
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent), "VOCPREP_SHARED_DATA": "nowhere"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["samples"] == {"images": 8, "batch_size": 4, "epochs_a_row": 1}
    (table,) = report["tables"]
    assert [row["name"][:3] for row in table["rows"]] == ["(a)", "(b)", "(c)", "(d)", "(e)"]
    for row in table["rows"]:
        assert row["images_per_s"] > 0
        assert row["name"] in done.stdout
    assert table["rows"][0]["of_seeds_loop"] == table["rows"][1]["of_batched"] == 1
