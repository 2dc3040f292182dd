"""The command line run in this process, and what a first session with it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vocprep.cli.main import main

Run = Callable[..., Result]


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def vocprep() -> Run:
    """Call it with a command's words."""
    return invoke


@pytest.fixture(scope="session")
def shards(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished dataset version of four pictures; not to be written to."""
    out = tmp_path_factory.mktemp("shards") / "out"
    result = invoke(
        *("build-shards", "pascal-context", "--data-dir", sample_tree, "--out", out),
        *(
            "--weights",
            "random:0",
            "--limit-per-split",
            2,
            "--samples-per-shard",
            1,
            "--device",
            "cpu",
        ),
    )
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on it; not to be written to."""
    out = tmp_path_factory.mktemp("run") / "out"
    result = invoke("train", shards, "--out", out, "--epochs", 1, "--device", "cpu")
    assert result.exit_code == 0, result.output
    return out
