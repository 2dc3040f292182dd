"""A version to be damaged."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from builders.versions import Built


@pytest.fixture
def built_copy(crop_hdf5: Built, tmp_path: Path) -> Built:
    """A copy of a version, to be damaged."""
    shutil.copytree(crop_hdf5.path, tmp_path / "version")
    return replace(crop_hdf5, path=tmp_path / "version")
