"""What the tests of builds share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of the module's ``finished`` version, which a test may change."""
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"
