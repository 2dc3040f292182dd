"""The generated sample is one version on every machine: manifests/locks/sample.lock.json."""

from __future__ import annotations

from pathlib import Path

import pytest

from vocprep.checks.lock import read_lock
from vocprep.checks.remake import build_locked
from vocprep.manifests import manifests_dir
from vocprep.options import BuildOptions
from vocprep.synthetic.dataset import sample


@pytest.mark.slow
def test_the_sample_is_the_locked_version(tmp_path: Path) -> None:
    sample(tmp_path / "data")
    lock = manifests_dir() / "locks" / "sample.lock.json"
    result = build_locked(
        lock, out=tmp_path / "out", data_dir=tmp_path / "data", options=BuildOptions(device="cpu")
    )
    pinned = read_lock(lock)
    assert result.index.source_id == pinned.source_id
    assert result.index.content_id == pinned.content_id
