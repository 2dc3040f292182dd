"""The command line run in this process, and what a first session with it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from builders.verbs import build_words, invoke, run_words
from click.testing import Result

Run = Callable[..., Result]


@pytest.fixture
def vocprep() -> Run:
    """Call it with a command's words."""
    return invoke


@pytest.fixture(scope="session")
def shards(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished dataset version of four pictures; not to be written to."""
    out = tmp_path_factory.mktemp("shards") / "out"
    run_words(*build_words(sample_tree, out))
    return out


@pytest.fixture(scope="session")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on it; not to be written to."""
    out = tmp_path_factory.mktemp("run") / "out"
    run_words("train", shards, "--out", out, "--epochs", 1, "--device", "cpu")
    return out
